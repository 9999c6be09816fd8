"""JSON for everybody: one line that steers no terminal and says what it was told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.encoding import encode_json
from watcher.logs import _json

STEERING = (
    "\x7f\x80\x85\x9b\x9f\xad\u061c\u200b\u200e\u202e\u2028\u2066\ufeff\U000e0041"
)
ENCODERS = [encode_json, lambda value: _json(None, "info", value)]


@pytest.mark.parametrize("encode", ENCODERS)
@pytest.mark.parametrize("char", STEERING)
@pytest.mark.parametrize("more", ["", "\ud800", "\u9a71\u52a8"])
def test_what_steers_a_terminal_is_escaped(encode, char, more):
    value = {"message": f"a{char}[2J{more}", f"k{char}": [char]}
    shown = encode(value)
    assert shown.decode().isprintable()
    assert json.loads(shown) == value


@pytest.mark.parametrize("encode", ENCODERS)
@given(st.dictionaries(st.text(), st.text()))
def test_every_text_is_the_same_when_read_again(encode, value):
    shown = encode(value)
    assert shown.decode().isprintable()
    assert json.loads(shown) == value


def test_what_can_be_read_stays_as_it_is():
    assert encode_json("\u9a71\u52a8 caf\u00e9") == '"\u9a71\u52a8 caf\u00e9"'.encode()
