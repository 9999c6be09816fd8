"""Server-sent events: what the streams have in common.

Source: WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import anyio

from watcher.encoding import encode_json
from watcher.ports import Response

STREAM = "text/event-stream"
PULSE = 1.0
"""Seconds after which a stream with nothing to say looks whether its reader left."""
PULSES_A_HEARTBEAT = 15
OPENING = b"retry: 2000\n\n"
HEARTBEAT = b": still here\n\n"


def stream(messages: AsyncIterator[bytes]) -> Response:
    """Answer with messages without end; the server says how many such there may be."""
    return Response(messages, STREAM, headers={"X-Accel-Buffering": "no"})


def message(name: str, data: object, place: object = None) -> bytes:
    """Write one message; `place` is what a reader shows to go on from there."""
    head = b"" if place is None else b"id: %b\n" % str(place).encode()
    return b"%bevent: %b\ndata: %b\n\n" % (head, name.encode(), encode_json(data))


async def until_news(
    news: Callable[[], Awaitable[object]], pulse: float
) -> AsyncIterator[bytes]:
    """Keep a stream open until there is news: yields nothing, or a heartbeat."""
    for number in count(1):
        with anyio.move_on_after(pulse) as waiting:
            await news()
        yield b"" if number % PULSES_A_HEARTBEAT else HEARTBEAT
        if not waiting.cancelled_caught:
            return
