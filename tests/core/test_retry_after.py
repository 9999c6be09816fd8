"""What a server may write into Retry-After, and what is made of it."""

import pytest

from watcher.core.retry_after import retry_after

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("3600", 3600.0),
        ("86400", 3600.0),
        ("9" * 18, 3600.0),
        ("9" * 5000, None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("\u0663", None),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60.0),
        ("Wed, 15 Nov 2023 22:14:20 GMT", 3600.0),
        ("Tue, 14 Nov 2023 22:12:20 GMT", None),
        ("Tue, 99 Nov 2023 22:12:20 GMT", None),
    ],
)
@pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
def test_seconds_or_a_date(name, header, seconds):
    assert retry_after({name: header}, NOW) == seconds


def test_a_date_is_read_against_the_servers_clock():
    headers = {
        "Retry-After": "Tue, 14 Nov 2023 10:00:30 GMT",
        "date": "Tue, 14 Nov 2023 10:00:00 GMT",
    }
    assert retry_after(headers, NOW) == 30.0


def test_nothing_asked_for():
    assert retry_after({}, NOW) is None
