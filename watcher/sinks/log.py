"""Tells the log of each transition: one line an event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from io import BytesIO

import structlog

from watcher.core.errors import SinkError
from watcher.core.journal import envelope
from watcher.core.model import JournalEvent, Level


class LogSink:
    """Writes events to the stream that all log lines go to.

    Unlike ordinary lines, which may be lost, these count as delivered only once the
    stream took them.

    Args:
        send: Writes bytes and returns once they are taken; raises OSError if not.
    """

    name = "log"
    per_job = False

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send

    async def deliver(self, events: Sequence[JournalEvent]) -> None:
        """Write one line for each event; all of them in one go.

        Raises:
            SinkError: The stream did not take them, such as a pipe whose reader left.
        """
        lines = BytesIO()
        log = structlog.wrap_logger(structlog.BytesLogger(lines)).bind()
        for event in events:
            fields = envelope(event)
            name = fields.pop("event")
            warn = event.transition.level is Level.WARNING
            (log.warning if warn else log.info)(name, **fields)
        try:
            await self._send(lines.getvalue())
        except OSError as error:
            raise SinkError(f"cannot write the log: {error}") from error
