"""Hides secrets that an answer echoes, before anyone reads it."""

from __future__ import annotations

import html.entities
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache

from pydantic import SecretStr

MASK = b"***"
_SHORTEST = 6  # shorter ones would hit ordinary words
_HEAD = 8  # characters; what is cut to fewer is let be
_MOST_ECHOES = 32
_LONGEST_FORM = 32  # bytes that one character takes
_STRIDE = 32

# Of one byte before the secret the first two digits of base64 tell, of two the first
# three; what follows is the same wherever in a text the secret stands.
_ALIGNMENTS = ((0, 0), (1, 2), (2, 3))
_URL_SAFE = {"+": "-", "/": "_"}
_NAMES: dict[str, list[str]] = {}
for _name, _char in html.entities.html5.items():
    if _name.endswith(";") and len(_char) == 1:
        _NAMES.setdefault(_char, []).append(_name)


class Mask:
    """Replaces every occurrence of some secrets in a body.

    A secret is found as it is, escaped for JSON, HTML or a URL, each character in a form
    of its own, in hex and in base64, inside a longer text too; whole, or cut after at
    least eight characters. A body that is full of them is replaced as a whole.
    """

    def __init__(self, secrets: Iterable[SecretStr], *more: _Spelling) -> None:
        texts = {secret.get_secret_value() for secret in secrets}
        self._spellings = [
            spelling
            for text in sorted(texts, key=len, reverse=True)
            if len(text) >= _SHORTEST
            for spelling in _spellings(text)
        ]
        self._spellings += more

    def __or__(self, other: Mask) -> Mask:
        """Return what hides the secrets of both."""
        return Mask((), *other._spellings, *self._spellings)

    def apply(self, body: bytes) -> bytes:
        """Return the body without the secrets; the same object where it has none."""
        for spelling in self._spellings:
            # Looking for a plain run of bytes costs a thousandth of a pattern.
            if spelling.anchor in body:
                body = spelling.hide(body)
        return body

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return headers whose values are without the secrets, and well-formed text."""
        return {
            name: self.apply(value.encode("utf-8", "surrogateescape")).decode(
                "utf-8", "replace"
            )
            for name, value in headers.items()
        }


def of_request(headers: Mapping[str, str]) -> Mask:
    """Return what hides the signature of one request, and all that stands before it.

    Whoever has it may send the same request again, for as long as its date is good.
    """
    _, _, value = headers.get("Authorization", "").partition(" ")
    signature = value.rpartition("Signature=")[2]
    if not signature:
        return Mask(())
    return Mask(
        (SecretStr(signature),),
        _Spelling(signature.upper()),
        _Spelling(_base64(bytes.fromhex(signature)), base64=True),
        _Spelling(value, len("Access=") + _HEAD),
    )


class _Spelling:
    """One way to write a secret.

    Attributes:
        anchor: The longest part of its head that every encoding writes as it is.
    """

    def __init__(self, text: str, head: int = _HEAD, *, base64: bool = False) -> None:
        self._text = text
        self._head_length = min(head, len(text))
        self._twins = _URL_SAFE if base64 else {}
        runs = re.findall(r"[A-Za-z0-9]+", text[: self._head_length])
        self.anchor = max(runs, key=len, default="").encode()

    def hide(self, body: bytes) -> bytes:
        """Return the body without it."""
        kept, done = [], 0
        for start, end in self._places(body):
            kept.append(body[done:start])
            done = end
            if len(kept) > _MOST_ECHOES:
                return MASK
        kept.append(body[done:])
        return MASK.join(kept) if len(kept) > 1 else body

    def _places(self, body: bytes) -> Iterator[tuple[int, int]]:
        end = 0
        while found := self._find(body, end):
            end = self._end(body, found.start())
            yield found.start(), end

    def _find(self, body: bytes, since: int) -> re.Match[bytes] | None:
        if not self.anchor:
            return self._head.search(body, since)
        before = self._text.index(self.anchor.decode())
        near = since - 1
        while (near := body.find(self.anchor, near + 1)) >= 0:
            start = max(since, near - before * _LONGEST_FORM)
            end = near + self._head_length * _LONGEST_FORM
            look = self._head.search if before else self._head.match
            if found := look(body, start, end):
                return found
        return None

    def _end(self, body: bytes, start: int) -> int:
        """Return where it ends that begins there, all ways to read it considered.

        "%25" may be a sign as a URL has it, or the sign itself and two digits.
        """
        ends, last, place = {start}, start, 0
        while ends and place < len(self._text):
            last = max(ends)
            plain = self._text[place : place + _STRIDE]
            if (
                plain.isascii()
                and plain.isalnum()
                and body.startswith(_raw(plain), last)
            ):
                ends, place = {last + len(plain)}, place + len(plain)
                continue
            forms = _unit(self._text[place], self._twins.get(self._text[place], ""))
            found = (form.match(body, end) for end in ends for form in forms)
            ends, place = {each.end() for each in found if each}, place + 1
        return max(ends, default=last)

    @cached_property
    def _head(self) -> re.Pattern[bytes]:
        chars = self._text[: self._head_length]
        units = (_unit(char, self._twins.get(char, "")) for char in chars)
        alternatives = (b"|".join(form.pattern for form in unit) for unit in units)
        return re.compile(b"".join(b"(?:" + each + b")" for each in alternatives))


def _spellings(text: str) -> Iterator[_Spelling]:
    raw = _raw(text)
    yield _Spelling(text)
    for digits in {raw.hex(), raw.hex().upper()}:
        yield _Spelling(digits, 2 * _HEAD)
    for before, skipped in _ALIGNMENTS:
        digits = _base64(bytes(before) + raw)[skipped:]
        yield _Spelling(digits, base64=True)


def _base64(raw: bytes) -> str:
    """Return the digits that depend on these bytes alone."""
    return b64encode(raw).decode()[: len(raw) * 8 // 6]


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1024)
def _unit(char: str, twin: str) -> tuple[re.Pattern[bytes], ...]:
    """Return what finds one character; an encoder may have broken the line before it."""
    forms = [*_forms(char), *([re.escape(twin.encode())] if twin else [])]
    return tuple(re.compile(rb"(?:\s|\\[rn])*" + form) for form in forms)


def _forms(char: str) -> Iterator[bytes]:
    raw = _raw(char)
    units = char.encode("utf-16-be", "surrogatepass")
    yield re.escape(raw)
    if char.isascii() and char.isalnum():
        return
    yield re.escape(json.dumps(char)[1:-1].encode())
    yield rb"\\" + re.escape(raw)  # as some write "/"
    yield b"".join(
        rb"\\u" + _hex(units[i : i + 2].hex()) for i in range(0, len(units), 2)
    )
    names = [name.encode() for name in _NAMES.get(char, ())]
    number = b"#(?:0{0,6}%d|[xX]0{0,6}%b);" % (ord(char), _hex(f"{ord(char):x}"))
    for percent, ampersand in ((b"%", b"&"), (b"%25", b"&amp;")):  # as it is, and twice
        yield b"".join(percent + _hex(f"{byte:02x}") for byte in raw)
        yield from (ampersand + name for name in (number, *names))


def _hex(digits: str) -> bytes:
    return f"(?i:{digits})".encode()
