"""Values as JSON text, whatever text they hold: what comes from outside may be odd."""

from __future__ import annotations

import json
from typing import Protocol

import msgspec
from isal import isal_zlib

_ENCODER = msgspec.json.Encoder()


def encode_json(value: object) -> bytes:
    """Write a JSON-ready value on one line.

    A lone surrogate, which UTF-8 cannot hold, is written as its escape; what is no
    number is null.
    """
    try:
        return steady(_ENCODER.encode(value))
    except UnicodeEncodeError:
        return steady(json.dumps(value).encode())


def steady(text: bytes) -> bytes:
    """Escape in a JSON text what could steer a terminal; it says the same as before.

    JSON itself asks it of the controls below the space alone.
    """
    if text.isascii() and b"\x7f" not in text:
        return text
    chars = text.decode()
    if chars.isprintable():
        return text
    return "".join(map(_escaped, chars)).encode()


def _escaped(char: str) -> str:
    if char.isprintable():
        return char
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def printable(text: str) -> str:
    """Write out, as Python would, each character that is not to be seen."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


_GZIP = 16 + isal_zlib.MAX_WBITS
_FAST = 1


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether who sends this header can read gzip."""
    return "gzip" in accept_encoding


class Packer(Protocol):
    """Packs what comes piece by piece."""

    def compress(self, data: bytes | memoryview, /) -> bytes:
        """Take a piece, and return what is packed by now."""

    def flush(self) -> bytes:
        """Return the rest."""


def gzip_packer() -> Packer:
    """Make a packer of one gzip member."""
    return isal_zlib.compressobj(_FAST, wbits=_GZIP)


def gzip_member(data: bytes) -> bytes:
    """Pack some bytes as one gzip member; members in a row are gzip as well."""
    return isal_zlib.compress(data, _FAST, _GZIP)
