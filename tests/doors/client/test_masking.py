"""Secrets that an answer echoes."""

import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr

from watcher.client.masking import Mask

SECRETS = st.text(st.characters(codec="utf-8"), min_size=6, max_size=40)


def mask(*secrets):
    return Mask(map(SecretStr, secrets))


@given(st.binary(max_size=20), SECRETS, st.binary(max_size=20))
def test_no_form_of_a_secret_is_left(before, secret, after):
    forms = {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        quote(secret, safe=""),
        quote(secret),
        re.sub("%..", lambda hit: hit[0].lower(), quote(secret, safe="")),
        json.dumps(quote(secret))[1:-1],
    }
    for form in forms:
        raw = form.encode()
        assume(raw not in before + b"|***|" + after)
        assert raw not in mask(secret).apply(before + b"|" + raw + b"|" + after)


def test_the_rest_stays_as_it_is():
    body = b'{"name":"job","secret":"sesame-1"}'
    assert mask("sesame-1").apply(body) == b'{"name":"job","secret":"***"}'
    assert mask("another-secret").apply(body) is body
    assert mask().apply(body) is body


def test_the_longer_of_two_secrets_goes_first():
    assert mask("sesame", "sesame-open").apply(b"<sesame-open>") == b"<***>"


def test_a_secret_that_is_a_common_word_is_let_be():
    assert mask("job").apply(b"job") == b"job"


def test_plus_for_a_space_is_no_form_that_keys_have():
    secret = "abc+/=012"
    assert mask(secret).apply(quote_plus(secret).encode()) == b"***"


@pytest.mark.parametrize("value", ["a\udcff-sesame-1", "sesame-1"])
def test_headers_come_out_as_well_formed_text(value):
    shown = mask("sesame-1").headers({"X": value})["X"]
    assert "sesame" not in shown
    shown.encode()
