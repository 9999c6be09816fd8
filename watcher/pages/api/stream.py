"""`/api/v1/stream`: the rows of the list that change, as server-sent events.

A stream holds the version that its reader has seen and no queue: for a slow reader,
what changed meanwhile is told once, as it is then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from functools import lru_cache, partial

import anyio

from watcher.core.model import JobKey
from watcher.pages.api.answers import problem
from watcher.pages.api.asking import Filter
from watcher.pages.api.rows import Rows
from watcher.pages.api.sse import OPENING, PULSE, message, stream, until_news
from watcher.ports import Request, Response

PACE = 0.25
"""Seconds between two looks at what changed."""
BATCH = 50
SHARED = 512
"""Rows that are kept as they were told, for the other streams that are to tell them."""


class StreamPage:
    """What changed in the list of jobs: `job`, `gone`, `counts`, or `reset`."""

    path = "/api/v1/stream"
    parameters: Collection[str] = ("target", "phase", "q", "since")

    def __init__(self, rows: Rows, *, pulse: float = PULSE, pace: float = PACE) -> None:
        """Make the page; see `PULSE` and `PACE`."""
        self._rows = rows
        self._pulse = pulse
        self._pace = pace
        self._job = lru_cache(maxsize=SHARED)(self._encode)
        self.streams = 0

    async def respond(self, request: Request) -> Response:
        """Tell what changes from now on, or has since the reader left."""
        try:
            which = Filter.of(request.query)
        except ValueError as exc:
            return problem(400, str(exc))
        since = request.headers.get("last-event-id") or request.query.get("since")
        return stream(self._messages(which, since))

    async def _messages(self, which: Filter, since: str | None) -> AsyncIterator[bytes]:
        self.streams += 1
        rows = self._rows
        try:
            yield OPENING
            version = await rows.catch_up()
            seen = version if since is None else rows.read_mark(since)
            counts = None
            while True:
                changed = None if seen is None else rows.changed_since(seen)
                if changed is None:
                    yield message("reset", {}, rows.mark(version))
                    changed = ()
                told = list(changed)
                for start in range(0, len(told), BATCH):
                    batch = told[start : start + BATCH]
                    yield b"".join(self._tell(which, *each) for each in batch)
                seen = version
                if counts != (counts := self._count(which.target)):
                    yield message("counts", counts)
                async for beat in until_news(
                    partial(rows.board.changed, seen), self._pulse
                ):
                    yield beat
                await anyio.sleep(self._pace)
                version = await rows.catch_up()
        finally:
            self.streams -= 1

    def _count(self, target: str | None) -> Mapping[str, object]:
        counts, failing = self._rows.counts(target), self._rows.failing(target)
        return {"counts": counts, "failing": failing, "total": sum(counts.values())}

    def _tell(self, which: Filter, key: JobKey, version: int) -> bytes:
        if self._rows.admitted(key, which):
            return self._job(key, version)
        return message("gone", key._asdict(), self._rows.mark(version))

    def _encode(self, key: JobKey, version: int) -> bytes:
        place, shown = self._rows.mark(version), self._rows.show(key)
        if shown is None:
            return message("gone", key._asdict(), place)
        return message("job", shown, place)
