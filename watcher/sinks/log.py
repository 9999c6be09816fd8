"""Tells the log of each transition: one line an event, or a burst where people read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from io import BytesIO
from typing import cast

import structlog

from watcher.core.bursts import folded
from watcher.core.errors import SinkError
from watcher.core.journal import envelope
from watcher.core.model import JournalEvent, Level


class LogSink:
    """Writes events to the stream that all log lines go to.

    Unlike ordinary lines, which may be lost, these count as delivered only once the
    stream took them.

    Args:
        send: Writes bytes and returns once they are taken; raises OSError if not.
        fold: Whether a burst of like transitions is told as one line.
    """

    name = "log"
    per_job = False

    def __init__(
        self, send: Callable[[bytes], Awaitable[None]], *, fold: bool = False
    ) -> None:
        self._send = send
        self._fold = fold

    async def deliver(self, events: Sequence[JournalEvent]) -> None:
        """Write the lines of events; all of them in one go.

        Raises:
            SinkError: The stream did not take them, such as a pipe whose reader left.
        """
        lines = BytesIO()
        log = structlog.wrap_logger(structlog.BytesLogger(lines)).bind()
        told = folded(events) if self._fold else map(envelope, events)
        levels = {event.seq: event.transition.level for event in events}
        for fields in told:
            warn = levels[cast("int", fields["seq"])] is Level.WARNING
            name = fields.pop("event")
            (log.warning if warn else log.info)(name, **fields)
        try:
            await self._send(lines.getvalue())
        except OSError as error:
            raise SinkError(f"cannot write the log: {error}") from error
