"""`/api/v1/events`: the journal, page by page or as server-sent events.

A stream has no queue: each reads the journal at its own pace, so that a slow reader
costs one batch of memory and nothing else.

Source: WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from itertools import count

import anyio

from watcher.core.errors import StoreError
from watcher.core.journal import line
from watcher.core.model import JournalEvent
from watcher.encoding import encode_json
from watcher.pages.api.answers import JSON, problem
from watcher.ports import JournalReader, Request, Response

STREAM = "text/event-stream"
MOST_EVENTS = 1000
BATCH = 100
MOST_READS = 2
LARGEST_SEQ = 2**53
PULSE = 1.0
"""Seconds after which a stream with nothing to say looks whether its reader left."""
PULSES_A_HEARTBEAT = 15
_OPENING = b"retry: 2000\n\n"
_HEARTBEAT = b": still here\n\n"


class EventsPage:
    """Committed events, oldest first."""

    path = "/api/v1/events"
    parameters: Collection[str] = ("after", "limit")

    def __init__(self, journal: JournalReader, *, pulse: float = PULSE) -> None:
        """Make the page.

        Args:
            journal: What it shows.
            pulse: See `PULSE`.
        """
        self._journal = journal
        self._pulse = pulse
        self._reading = anyio.Semaphore(MOST_READS)  # the poller's commits come between
        self.streams = 0

    async def respond(self, request: Request) -> Response:
        """Show what came after a number; 400 where it is none."""
        streamed = STREAM in request.headers.get("accept", "")
        try:
            after = _number("after", request.query.get("after"), 0, 0, LARGEST_SEQ)
            limit = _number("limit", request.query.get("limit"), 100, 1, MOST_EVENTS)
            if streamed:
                last = request.headers.get("last-event-id")
                after = _number("Last-Event-ID", last or None, after, 0, LARGEST_SEQ)
        except ValueError as exc:
            return problem(400, str(exc))
        return self._stream(after) if streamed else await self._page(after, limit)

    async def _page(self, after: int, limit: int) -> Response:
        after = _resumed(after, await self._journal.grown(-1))
        try:
            events = await self._look(after, min(limit, BATCH))
        except StoreError as exc:
            return problem(503, f"the journal cannot be read: {exc}")
        return Response(self._batches(events, after, limit), JSON)

    async def _batches(
        self, events: Sequence[JournalEvent], after: int, limit: int
    ) -> AsyncIterator[bytes]:
        """Read on while it is sent, so that a slow reader costs one batch of memory."""
        yield b'{"events":['
        separator = b""
        while events:
            after, limit = events[-1].seq, limit - len(events)
            yield separator + b",".join(encode_json(line(each)) for each in events)
            separator = b","
            try:
                events = await self._look(after, min(limit, BATCH)) if limit else ()
            except StoreError:
                break  # the reader asks for what comes after `next`, and is told then
        yield b'],"next":%d}\n' % after

    async def _look(self, after: int, limit: int) -> Sequence[JournalEvent]:
        async with self._reading:
            return await self._journal.read(after, limit)

    def _stream(self, after: int) -> Response:
        headers = {"X-Accel-Buffering": "no"}
        return Response(self._messages(after), STREAM, headers=headers)

    async def _messages(self, after: int) -> AsyncIterator[bytes]:
        self.streams += 1
        try:
            yield _OPENING
            highest = await self._journal.grown(-1)
            after = _resumed(after, highest)
            while True:
                events = await self._look(after, BATCH)
                if events:
                    after = events[-1].seq
                    yield b"".join(map(_message, events))
                if len(events) == BATCH:
                    continue
                for pulse in count(1):
                    with anyio.move_on_after(self._pulse) as waiting:
                        highest = await self._journal.grown(highest)
                    yield b"" if pulse % PULSES_A_HEARTBEAT else _HEARTBEAT
                    if not waiting.cancelled_caught:
                        break
        except StoreError:
            return  # the reader comes back where it was
        finally:
            self.streams -= 1


def _resumed(after: int, highest: int) -> int:
    """Return where to go on; a number not given yet is of an older store."""
    return after if after <= highest else 0


def _message(event: JournalEvent) -> bytes:
    name, data = event.transition.event.encode(), encode_json(line(event))
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.seq, name, data)


def _number(name: str, text: str | None, default: int, least: int, most: int) -> int:
    if text is None:
        return default
    if text.isascii() and text.isdecimal() and len(text) <= len(str(most)):
        number = int(text)
        if least <= number <= most:
            return number
    raise ValueError(f"{name}: must be a number from {least} to {most}")
