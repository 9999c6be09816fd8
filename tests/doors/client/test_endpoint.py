"""Which addresses exist, and which may be trusted with credentials."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.client.endpoint import (
    check_endpoint,
    endpoint_of,
    iam_endpoint_of,
    is_loopback,
)


def test_addresses_of_a_region():
    assert endpoint_of("cn-north-4") == "https://modelarts.cn-north-4.myhuaweicloud.com"
    assert iam_endpoint_of("cn-north-4") == "https://iam.cn-north-4.myhuaweicloud.com"


@pytest.mark.parametrize("region", ["", "a.b", "a/b", "-a", "a-", "A", "a\n", "evil#"])
def test_what_is_no_region(region):
    with pytest.raises(ValueError, match="region"):
        endpoint_of(region)
    with pytest.raises(ValueError, match="region"):
        iam_endpoint_of(region)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://modelarts.example.com", "https://modelarts.example.com"),
        ("https://modelarts.example.com/", "https://modelarts.example.com"),
        ("https://h:8443/prefix/", "https://h:8443/prefix"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_addresses_that_may_be_used(url, kept):
    assert check_endpoint(url) == kept


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://modelarts.example.com", "https://"),
        ("http://10.0.0.1", "https://"),
        ("http://0.0.0.0", "https://"),
        ("http://127.0.0.1.evil.com", "https://"),
        ("http://localhost.evil.com", "https://"),
        ("http://[2001:db8::1]", "https://"),
        ("HTTP://example.com", "https://"),
        ("https://user:sesame@h", "must not hold a user"),
        ("http://localhost@evil.com", "must not hold a user"),
        ("https://h?x=1", "query"),
        ("https://h#x", "fragment"),
        ("ftp://h", "must be an address"),
        ("h", "must be an address"),
        ("", "must be an address"),
        ("https://", "must be an address"),
        ("https://h:port", "must be an address"),
        ("https://h:0", "must be an address"),
        ("https://h:99999", "must be an address"),
        ("https://[::1", "must be an address"),
        ("https://h\n", "must be an address"),
        ("https://h h", "must be an address"),
        ("https://ü", "must be an address"),
    ],
)
def test_addresses_that_may_not(url, match):
    with pytest.raises(ValueError, match=match) as caught:
        check_endpoint(url)
    assert "sesame" not in str(caught.value)


@given(st.text())
def test_http_is_for_this_machine_alone(host):
    try:
        check_endpoint(f"http://{host}")
    except ValueError:
        return
    name = host.split("/")[0]
    name = name[1 : name.index("]")] if name.startswith("[") else name.split(":")[0]
    assert is_loopback(name.lower())
