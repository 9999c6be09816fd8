"""`/api/v1/events`: the journal, page by page or as server-sent events.

A stream has no queue: each reads the journal at its own pace, so that a slow reader
costs one batch of memory and nothing else.

Source: WHATWG HTML, "Server-sent events".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

import anyio

from watcher.core.errors import StoreError
from watcher.core.journal import line
from watcher.core.model import JournalEvent, check_job_id
from watcher.encoding import encode_json
from watcher.pages.api.answers import JSON, problem
from watcher.pages.api.asking import number
from watcher.pages.api.sse import (
    OPENING,
    PULSE,
    STREAM,
    message,
    stream,
    until_news,
)
from watcher.ports import JournalReader, Request, Response

MOST_EVENTS = 1000
BATCH = 100
MOST_READS = 2
LARGEST_SEQ = 2**53


class EventsPage:
    """Committed events, oldest first."""

    path = "/api/v1/events"
    parameters: Collection[str] = ("after", "limit", "job")

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
            job_id = _job_id(request.query.get("job"))
            after = number("after", request.query.get("after"), 0, 0, LARGEST_SEQ)
            limit = number("limit", request.query.get("limit"), 100, 1, MOST_EVENTS)
            if streamed:
                last = request.headers.get("last-event-id")
                after = number("Last-Event-ID", last or None, after, 0, LARGEST_SEQ)
        except ValueError as exc:
            return problem(400, str(exc))
        if streamed:
            return stream(self._messages(after, job_id))
        return await self._page(after, limit, job_id)

    async def _page(self, after: int, limit: int, job_id: str | None) -> Response:
        after = _resumed(after, await self._journal.grown(-1))
        try:
            events = await self._look(after, min(limit, BATCH), job_id)
        except StoreError as exc:
            return problem(503, f"the journal cannot be read: {exc}")
        return Response(self._batches(events, after, limit, job_id), JSON)

    async def _batches(
        self,
        events: Sequence[JournalEvent],
        after: int,
        limit: int,
        job_id: str | None,
    ) -> AsyncIterator[bytes]:
        """Read on while it is sent, so that a slow reader costs one batch of memory."""
        yield b'{"events":['
        separator = b""
        while events:
            after, limit = events[-1].seq, limit - len(events)
            yield separator + b",".join(encode_json(line(each)) for each in events)
            separator = b","
            try:
                most = min(limit, BATCH)
                events = await self._look(after, most, job_id) if limit else ()
            except StoreError:
                break  # the reader asks for what comes after `next`, and is told then
        yield b'],"next":%d}\n' % after

    async def _look(
        self, after: int, limit: int, job_id: str | None
    ) -> Sequence[JournalEvent]:
        async with self._reading:
            return await self._journal.read(after, limit, job_id)

    async def _messages(self, after: int, job_id: str | None) -> AsyncIterator[bytes]:
        highest = 0

        async def grown() -> None:
            nonlocal highest
            highest = await self._journal.grown(highest)

        self.streams += 1
        try:
            yield OPENING
            highest = await self._journal.grown(-1)
            after = _resumed(after, highest)
            while True:
                events = await self._look(after, BATCH, job_id)
                if events:
                    after = events[-1].seq
                    yield b"".join(map(_message, events))
                if len(events) == BATCH:
                    continue
                async for beat in until_news(grown, self._pulse):
                    yield beat
        except StoreError:
            return  # the reader comes back where it was
        finally:
            self.streams -= 1


def _resumed(after: int, highest: int) -> int:
    """Return where to go on; a number not given yet is of an older store."""
    return after if after <= highest else 0


def _message(event: JournalEvent) -> bytes:
    return message(event.transition.event, line(event), event.seq)


def _job_id(text: str | None) -> str | None:
    """Read of which job alone events are wanted; raises ValueError for what is no id."""
    return None if text is None else check_job_id(text)
