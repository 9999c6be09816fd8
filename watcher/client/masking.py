"""Hides secrets that an answer echoes, before anyone reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from pydantic import SecretStr

MASK = b"***"
_SHORTEST = 6  # shorter ones would hit ordinary words


class Mask:
    """Replaces every occurrence of some secrets in a body.

    A secret is found as it is, escaped for JSON, and percent-encoded, each character in
    a form of its own.
    """

    def __init__(self, secrets: Iterable[SecretStr]) -> None:
        texts = {secret.get_secret_value() for secret in secrets}
        self._patterns = [
            (_anchor(text), re.compile(b"".join(map(_forms, text))))
            for text in sorted(texts, key=len, reverse=True)
            if len(text) >= _SHORTEST
        ]

    def apply(self, body: bytes) -> bytes:
        """Return the body without the secrets; the same object where it has none."""
        for anchor, pattern in self._patterns:
            # Looking for a plain run of bytes costs a thousandth of the pattern.
            if anchor in body:
                body = pattern.sub(MASK, body)
        return body

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return headers whose values are without the secrets, and well-formed text."""
        return {
            name: self.apply(value.encode("utf-8", "surrogateescape")).decode(
                "utf-8", "replace"
            )
            for name, value in headers.items()
        }


def _anchor(text: str) -> bytes:
    """Return the longest part that every encoding writes as it is."""
    return max(re.findall(r"[A-Za-z0-9]+", text), key=len, default="").encode()


def _forms(char: str) -> bytes:
    raw = char.encode()
    units = char.encode("utf-16-be")
    plain = re.escape(raw)
    short = re.escape(json.dumps(char)[1:-1].encode())
    slash = rb"\\" + plain  # as some write "/"
    escaped = b"".join(
        rb"\\u" + _hex(units[i : i + 2].hex()) for i in range(0, len(units), 2)
    )
    percent = b"".join(b"%" + _hex(f"{byte:02x}") for byte in raw)
    return b"(?:" + b"|".join((plain, short, slash, escaped, percent)) + b")"


def _hex(digits: str) -> bytes:
    return f"(?i:{digits})".encode()
