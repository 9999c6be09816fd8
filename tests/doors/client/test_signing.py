"""The signature against vectors made by the official signer."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from watcher.client.signing import Call, Key, canonical_query, sign

VECTORS = json.loads(
    (Path(__file__).parent / "data" / "signing_vectors.json").read_text()
)["vectors"]


def key_of(given_):
    token = given_["security_token"]
    return Key(given_["ak"], SecretStr(given_["sk"]), token and SecretStr(token))


def call_of(given_):
    headers = {k: v for k, v in given_["headers"].items() if k != "X-Sdk-Date"}
    if given_["project_id_header"]:
        headers["X-Project-Id"] = given_["project_id_header"]
    return Call(
        method=given_["method"],
        host=given_["host"],
        path=given_["path"],
        query=[(name, value) for name, value in given_["query"]],
        headers=headers,
        body=(given_["body"] or "").encode(),
    )


def moment_of(given_):
    return datetime.fromisoformat(given_["x_sdk_date"]).timestamp()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_signature_is_the_official_one(vector):
    given_, expected = vector["input"], vector["output"]

    added = sign(key_of(given_), call_of(given_), moment_of(given_))

    assert added["Authorization"] == expected["authorization"]
    official = expected["headers"]
    assert set(added) | set(call_of(given_).headers) | {"Host"} == set(official)
    assert all(
        official[name] == value
        for name, value in added.items()
        if name != "Authorization"
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_sent_query_is_the_signed_one(vector):
    uri = vector["output"]["request_uri"]
    query = canonical_query(call_of(vector["input"]).query)
    assert query == (uri.split("?", 1)[1] if "?" in uri else "")


def test_ten_vectors_are_there():
    assert len(VECTORS) == 10


def test_a_repr_shows_no_secret():
    key = Key("AK", SecretStr("sesame"), SecretStr("open-token"))
    call = Call("GET", "h", "/", headers={"X-Auth-Token": "open-token"}, body=b"sesame")
    assert "sesame" not in repr(key) + repr(call)
    assert "open-token" not in repr(key) + repr(call)


@pytest.mark.parametrize(
    ("access", "secret", "token"),
    [
        ("", "s", None),
        ("a", "", None),
        ("a\n", "s", None),
        ("a", "se cret", None),
        ("a", "s", "t\r\nX-Evil: 1"),
        ("ä", "s", None),
    ],
)
def test_a_key_that_would_break_a_header_is_refused_unseen(access, secret, token):
    with pytest.raises(ValueError, match="empty or holds") as caught:
        Key(access, SecretStr(secret), token and SecretStr(token))
    assert "cret" not in str(caught.value).replace("secret key", "")
    assert "Evil" not in str(caught.value)


@given(st.text(max_size=30), st.text(max_size=30))
def test_every_part_of_the_call_is_covered(first, second):
    def signature(query):
        key = Key("AK", SecretStr("sk"))
        return sign(key, Call("GET", "h", "/p", query), 0.0)["Authorization"]

    one, two = signature([("q", first)]), signature([("q", second)])
    assert (one == two) == (first == second)
