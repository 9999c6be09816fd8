"""Secrets that an answer echoes."""

import html
import json
import re
import time
from base64 import (
    b64decode,
    b64encode,
    encodebytes,
    urlsafe_b64decode,
    urlsafe_b64encode,
)
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import SecretStr

from watcher.client.masking import MASK, Mask, of_request
from watcher.client.signing import Call, Key, sign

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
        quote(quote(secret, safe="")),
        html.escape(secret),
        html.escape(html.escape(secret)),
        "".join(c if c.isalnum() else f"&#{ord(c)};" for c in secret),
        "".join(c if c.isalnum() else f"&#x{ord(c):04X};" for c in secret),
        secret.encode().hex(),
        secret.encode().hex().upper(),
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


@given(st.binary(max_size=20), SECRETS, st.binary(max_size=20))
def test_no_base64_of_a_text_that_holds_a_secret_gives_it_away(before, secret, after):
    whole = before + secret.encode() + after
    for encode, decode in (
        (b64encode, b64decode),
        (urlsafe_b64encode, urlsafe_b64decode),
    ):
        shown = mask(secret).apply(encode(whole))
        assert MASK in shown or len(secret.encode()) < 8
        for part in shown.split(MASK):
            for missing in range(4):
                digits = b"A" * missing + part
                rest = decode(digits[: len(digits) // 4 * 4])
                assert secret.encode() not in rest


@given(
    SECRETS, st.integers(8, 40), st.sampled_from([b"", b"...", b'"', b"\xe2\x80\xa6"])
)
def test_a_secret_that_is_cut_is_hidden_too(secret, kept, end):
    cut = secret[:kept].encode()
    assume(cut not in b"<" + MASK + end)
    assert cut not in mask(secret).apply(b"<" + cut + end)


def test_what_is_cut_to_a_few_characters_says_nothing():
    assert mask("sesame-open-wide").apply(b"<sesame-...>") == b"<sesame-...>"


def test_base64_in_lines_is_hidden_to_its_end():
    secret = "0123456789-abcdefghij+" * 20
    shown = mask(secret).apply(b"<" + encodebytes(secret.encode()).strip() + b">")
    assert shown.startswith(b"<***")
    assert len(shown) < 10


def test_a_secret_that_reads_like_its_own_escape():
    for secret in ("a%25b%41c-012", "x&amp;y&#43;-012", "back\\\\slash\\-012"):
        for form in (secret, quote(secret, safe=""), html.escape(secret)):
            assert mask(secret).apply(form.encode()) == MASK, (secret, form)


def test_a_body_full_of_a_secret_is_hidden_whole():
    body = b"<sesame-open>" * 1000
    assert mask("sesame-open").apply(body) == MASK


@pytest.mark.parametrize("size", [2_000_000])
def test_what_nearly_is_a_secret_does_not_take_long(size):
    body = b"sesame-0pen " * (size // 12)
    began = time.perf_counter()
    assert mask("sesame-open", "+-/=+-/=+-").apply(body) is body
    assert time.perf_counter() - began < 30


class TestOfRequest:
    key = Key("AKIDEXAMPLE", SecretStr("secret-key-of-example"))
    headers = sign(key, Call("GET", "h", "/", (), {"Host": "h"}), 1_750_000_000.0)
    value = headers["Authorization"]
    signature = value.rpartition("=")[2]

    @pytest.mark.parametrize(
        "form",
        [
            value,
            value[:-10],
            value[:70],
            signature,
            signature.upper(),
            signature[:8],
            value.encode().hex(),
            b64encode(value.encode()).decode(),
            b64encode(b"Authorization: " + value.encode()).decode(),
            b64encode(bytes.fromhex(signature)).decode(),
            quote(value),
            html.escape(value),
            json.dumps(value),
        ],
    )
    def test_no_signature_comes_back(self, form):
        shown = of_request(self.headers).apply(f"<{form}>".encode()).decode()
        assert "***" in shown
        for part in (form[-20:], self.signature[:8], self.signature[8:24]):
            assert part not in shown

    def test_of_a_request_without_one_nothing_is_hidden(self):
        body = b"SDK-HMAC-SHA256 Access="
        assert of_request({}).apply(body) is body
