"""Values as JSON text, whatever text they hold: what comes from outside may be odd."""

from __future__ import annotations

import json

import msgspec

_ENCODER = msgspec.json.Encoder()


def encode_json(value: object) -> bytes:
    """Write a JSON-ready value on one line.

    A lone surrogate, which UTF-8 cannot hold, is written as its escape; what is no
    number is null.
    """
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()
