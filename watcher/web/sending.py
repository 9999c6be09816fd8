"""Answers on their way: piece by piece, so many at once, no longer than so long.

A connection holds no more than one piece that the kernel has not taken. Few pieces
are made a turn of the loop, whoever they are for, so that probes get in between.
"""

from __future__ import annotations

import math
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
from aiohttp import web

from watcher.encoding import Packer, accepts_gzip, gzip_packer
from watcher.ports import Response
from watcher.web.door import Visitor, visitor_of
from watcher.web.http import Refused

STREAM = "text/event-stream"
STALLED_AFTER = 60.0
"""Seconds after which a reader that takes nothing is given up."""
LONGEST_ANSWER = 60.0
LONGEST_STREAM = 3600.0
"""Seconds after which a stream ends; its reader comes back where it was."""
PIECE = 2**16
MOST_ANSWERS = 64
MOST_STREAMS = 100
SHARE = 4
"""One peer may have one in so many of these."""
GRACE = 0.25
"""Seconds for which a reader may be late before it gives way to another."""

_NO_CONTENT = 204


class Turnstile:
    """Lets few through a turn of the loop."""

    def __init__(self) -> None:
        self._few = anyio.Semaphore(2)

    async def passing(self) -> None:
        """Wait for one's turn."""
        async with self._few:
            await anyio.lowlevel.checkpoint()


@dataclass(eq=False, slots=True)
class Sending:
    """One long answer on its way.

    Attributes:
        since: When it began to wait for its reader; infinite while it does not.
    """

    visitor: Visitor
    since: float = math.inf


@dataclass(slots=True)
class Places:
    """Places for long answers; where there is none, another gives way.

    Attributes:
        most: How many there are.
        grace: Who gives way has waited for its reader for so long, and longest of all;
            None: the oldest gives way, waiting or not.
    """

    most: int
    grace: float | None
    _taken: dict[Sending, None] = field(default_factory=dict)

    @contextmanager
    def one(self, visitor: Visitor, now: float) -> Iterator[Sending]:
        """Take a place.

        Raises:
            Refused: None can be had.
        """
        own = [each for each in self._taken if each.visitor.peer == visitor.peer]
        if len(own) >= max(1, self.most // SHARE):
            self._clear(own, now)
        elif len(self._taken) >= self.most:
            self._clear(self._taken, now)
        sending = Sending(visitor)
        self._taken[sending] = None
        try:
            yield sending
        finally:
            self._taken.pop(sending, None)

    def _clear(self, among: Iterable[Sending], now: float) -> None:
        last = next(iter(among))
        if self.grace is not None:
            last = min(among, key=lambda each: each.since)
            if now - last.since < self.grace:
                text = "too many answers are on their way"
                raise Refused(503, text, {"Retry-After": "1"})
        del self._taken[last]
        last.visitor.give_way()


class Sender:
    """Sends answers."""

    def __init__(self, connections: int, turnstile: Turnstile) -> None:
        """Make a sender for a house of so many connections."""
        few = max(1, connections // 4)
        self._turnstile = turnstile
        self._answers = Places(min(MOST_ANSWERS, few), GRACE)
        self._streams = Places(min(MOST_STREAMS, few), None)

    async def send(self, incoming: web.Request, answer: Response) -> web.StreamResponse:
        """Send an answer, and tell its page once all of it is sent.

        Raises:
            Refused: Too many are on their way.
        """
        outgoing = web.StreamResponse(status=answer.status, headers=answer.headers)
        if answer.status != _NO_CONTENT:
            outgoing.headers["Content-Type"] = answer.content_type
        outgoing.headers["Vary"] = "Accept, Accept-Encoding"
        if incoming.method == "HEAD" or answer.status == _NO_CONTENT:
            await outgoing.prepare(incoming)
            return outgoing
        packer = _packer(incoming, answer)
        if packer:
            outgoing.headers["Content-Encoding"] = "gzip"
        with suppress(ConnectionError):
            if is_short(answer):
                await _send_short(incoming, outgoing, answer, packer)
            else:
                await self._send_long(incoming, outgoing, answer, packer)
            if answer.sent:
                answer.sent()
        return outgoing

    async def _send_long(
        self,
        incoming: web.Request,
        outgoing: web.StreamResponse,
        answer: Response,
        packer: Packer | None,
    ) -> None:
        streams = answer.content_type == STREAM
        places = self._streams if streams else self._answers
        longest = LONGEST_STREAM if streams else LONGEST_ANSWER
        turnstile = None if streams else self._turnstile
        with places.one(visitor_of(incoming), anyio.current_time()) as sending:
            with anyio.move_on_after(longest) as whole:
                await outgoing.prepare(incoming)
                async with _opened(answer.body) as chunks:
                    async for piece in _pieces(chunks, packer, turnstile):
                        await _write(incoming, outgoing, piece, sending)
            if whole.cancelled_caught and not streams:
                raise _given_up(incoming)
            await _write(incoming, outgoing, None, sending)


def is_short(answer: Response) -> bool:
    """Whether an answer is there already and goes in one piece."""
    body = answer.body
    return isinstance(body, Sequence) and sum(map(len, body)) <= PIECE


def _packer(incoming: web.Request, answer: Response) -> Packer | None:
    accepted = accepts_gzip(incoming.headers.get("Accept-Encoding", ""))
    if not accepted or "Content-Encoding" in answer.headers:
        return None
    return None if answer.content_type == STREAM else gzip_packer()  # it would wait


async def _send_short(
    incoming: web.Request,
    outgoing: web.StreamResponse,
    answer: Response,
    packer: Packer | None,
) -> None:
    body = b"".join(answer.body) if isinstance(answer.body, Sequence) else b""
    if packer:
        body = packer.compress(body) + packer.flush()
    outgoing.content_length = len(body)
    await outgoing.prepare(incoming)
    await outgoing.write(body)
    visitor_of(incoming).wait()  # whoever does not take it gives way to others
    await incoming.writer.drain()


async def _pieces(
    chunks: AsyncIterator[bytes], packer: Packer | None, turnstile: Turnstile | None
) -> AsyncIterator[bytes | memoryview]:
    async for chunk in chunks:
        shared = memoryview(chunk)  # not copied, however many it is sent to
        for start in range(0, max(1, len(chunk)), PIECE):
            if turnstile:
                await turnstile.passing()
            piece = shared[start : start + PIECE]
            yield packer.compress(piece) if packer else piece
    if packer:
        yield packer.flush()


async def _write(
    incoming: web.Request,
    outgoing: web.StreamResponse,
    piece: bytes | memoryview | None,
    sending: Sending,
) -> None:
    """Send a piece, or the end, and wait until the kernel has taken it."""
    if incoming.transport is None:  # the connection is lost
        raise ConnectionResetError
    sending.since = anyio.current_time()
    with anyio.move_on_after(STALLED_AFTER) as patience:
        await (outgoing.write_eof() if piece is None else outgoing.write(piece))
    sending.since = math.inf
    if patience.cancelled_caught:
        raise _given_up(incoming)


def _given_up(incoming: web.Request) -> ConnectionError:
    visitor_of(incoming).give_way()
    return ConnectionResetError()


@asynccontextmanager
async def _opened(
    body: Iterable[bytes] | AsyncIterator[bytes],
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Walk a body in either form, and let it end whatever happens."""
    chunks = body if isinstance(body, AsyncIterator) else _each(body)
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def _each(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
