"""The forms of the API's answers: one JSON object, or one with a long list in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

import anyio.lowlevel

from watcher.encoding import encode_json
from watcher.ports import Response

JSON = "application/json"
CHUNK = 2**15


def answer(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with one JSON value."""
    return Response([encode_json(value), b"\n"], JSON, status, headers or {})


def problem(status: int, text: str) -> Response:
    """Answer with one line that says what is wrong."""
    return answer({"error": text}, status)


def long_answer(
    head: Mapping[str, object], name: str, rows: Iterable[object]
) -> Response:
    """Answer with an object whose last member is a list, made while it is sent."""
    return Response(_in_chunks(head, name, rows), JSON)


async def _in_chunks(
    head: Mapping[str, object], name: str, rows: Iterable[object]
) -> AsyncIterator[bytes]:
    opening = encode_json({**head, name: []}).removesuffix(b"]}")
    chunk, size, separator = [opening], len(opening), b""
    for row in rows:
        text = encode_json(row)
        chunk += (separator, text)
        separator = b","
        size += len(text)
        if size >= CHUNK:
            yield b"".join(chunk)
            await anyio.lowlevel.checkpoint()
            chunk, size = [], 0
    yield b"".join([*chunk, b"]}\n"])
