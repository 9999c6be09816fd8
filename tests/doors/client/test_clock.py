"""The servers' time, as their Date headers tell it."""

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tests.doors.client.servers import NOW, http_date
from watcher.client.clock import ServerClock


def clock(now=NOW):
    return ServerClock(lambda: now)


def note(on, skew, host="h", took=0.1, at=NOW):
    """An answer of a server whose clock is `skew` seconds behind ours."""
    on.note(host, http_date(int(at - skew)), at - took, at)


def test_nothing_is_known_at_first():
    assert clock().skew("h") == 0.0
    assert clock().server_time("h") == NOW == clock().machine_time()


@pytest.mark.parametrize("skew", [-5000, -1200, -30, -3, 3, 30, 1200, 5000])
def test_skew_is_ours_minus_theirs(skew):
    on = clock()
    note(on, skew)
    assert on.skew("h") == pytest.approx(skew, abs=0.6)
    assert on.server_time("h") == pytest.approx(NOW - skew, abs=0.6)


@given(st.floats(-0.4, 0.4), st.floats(0, 0.2), st.floats(0, 1))
def test_a_right_clock_is_never_corrected(skew, took, fraction):
    on = clock()
    for second in range(5):
        note(on, skew, took=took, at=NOW + second + fraction)
    assert on.skew("h") == 0.0


@pytest.mark.parametrize("text", ["", "soon", "Tue, 99 Nov 2023 10:00:00 GMT", "\x00"])
def test_what_is_no_date_says_nothing(text):
    on = clock()
    on.note("h", text, NOW, NOW)
    assert on.skew("h") == 0.0


def test_one_odd_answer_among_five_does_not_count():
    on = clock()
    for skew in (10, 10, 40, 10, 10):
        note(on, skew)
    assert on.skew("h") == pytest.approx(10, abs=0.6)


def test_a_clock_that_was_set_is_believed_at_once():
    on = clock()
    for _ in range(5):
        note(on, 0)
    note(on, 1200)
    assert on.skew("h") == pytest.approx(1200, abs=0.6)
    note(on, 0)
    assert on.skew("h") == 0.0


def test_a_slow_answer_counts_only_where_there_is_no_other():
    on = clock()
    note(on, 100, took=8)
    assert on.skew("h") == pytest.approx(96, abs=0.6)
    note(on, 100)
    note(on, 100)
    note(on, 500, took=8)
    assert on.skew("h") == pytest.approx(100, abs=0.6)


def test_a_date_that_leads_astray_is_doubted():
    on = clock()
    note(on, -3600)
    followed = on.offset("h")
    assert followed == pytest.approx(-3600, abs=0.6)
    assert on.doubt("h", followed)
    assert on.offset("h") == 0.0
    assert on.skew("h") == followed, "it is still what the server says"
    assert on.doubt("h", 0.0), "neither helps: the other way round"
    assert on.offset("h") == followed


def test_what_was_learned_meanwhile_is_tried_first():
    on = clock()
    note(on, 1200)
    assert on.doubt("h", 0.0)
    assert on.offset("h") == pytest.approx(1200, abs=0.6)


def test_a_doubt_ends_when_a_clock_is_set():
    on = clock()
    note(on, -3600)
    on.doubt("h", on.offset("h"))
    note(on, 1200)
    assert on.offset("h") == pytest.approx(1200, abs=0.6)


def test_with_clocks_that_agree_there_is_nothing_to_try():
    on = clock()
    note(on, 0)
    assert not on.doubt("h", 0.0)


def test_a_host_not_heard_yet_is_taken_to_agree_with_the_last():
    on = clock()
    note(on, 1200, host="one")
    assert on.skew("two") == pytest.approx(1200, abs=0.6)
    assert on.server_time() == pytest.approx(NOW - 1200, abs=0.6)
    note(on, 0, host="two")
    assert on.skew("two") == 0.0
    assert on.skew("one") == pytest.approx(1200, abs=0.6)


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", http_date(0)])
def test_a_date_more_than_a_day_off_is_noted_and_not_believed(date):
    on = clock()
    note(on, 1200)
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            on.note("h", date, NOW, NOW)
    assert on.skew("h") == on.offset("h") == pytest.approx(1200, abs=0.6)
    assert abs(on.astray("h")) > 86_400
    assert [(line["event"], line["host"]) for line in lines] == [
        ("clock.disbelieved", "h")
    ]
    note(on, 1200)
    assert on.astray("h") == 0.0


def test_a_day_is_believed():
    on = clock()
    note(on, 86_000)
    assert on.skew("h") == pytest.approx(86_000, abs=0.6)
