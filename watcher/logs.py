"""Where log lines go: one stream, one thread that writes to it, one form for all.

The thread stands between the daemon and a reader that stalls: a full pipe holds back
the lines, never the loop.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import select
from collections.abc import Callable, MutableMapping
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO, Literal, TextIO, cast

import msgspec
import structlog
from structlog.typing import Processor

from watcher.console import render
from watcher.core.transitions import rfc3339
from watcher.encoding import steady

Format = Literal["json", "console", "auto"]

_ENCODER = msgspec.json.Encoder(enc_hook=str)


class LineWriter:
    """Writes whole lines to one stream, in order, from a thread of its own.

    Attributes:
        dropped: Lines that found the queue full and were given up.
        for_people: Whether its lines are read as they run, and bursts told as one.

    Args:
        stream: Written to through its file descriptor where it has one.
        limit: Ordinary lines that may wait at once.
        for_people: See above.
    """

    def __init__(
        self, stream: TextIO, *, limit: int = 10_000, for_people: bool = False
    ) -> None:
        self.dropped = 0
        self.for_people = for_people
        self._stream = stream
        self._limit = limit
        self._torn = False
        self._queue: SimpleQueue[tuple[bytes, Future[None] | None] | None] = (
            SimpleQueue()
        )
        self._thread = Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue an ordinary line; never blocks and never fails."""
        if self._queue.qsize() < self._limit:
            self._queue.put((line, None))
        else:
            self.dropped += 1

    def flush(self) -> None:
        """Do nothing: there is no buffer. structlog's loggers call it."""

    async def send(self, lines: bytes) -> None:
        """Write lines and return once the stream took them.

        Lines still queued when the call is cancelled are not written.

        Raises:
            OSError: The stream did not take them.
        """
        done: Future[None] = Future()
        self._queue.put((lines, done))
        await asyncio.wrap_future(done)

    def close(self, timeout: float = 1.0) -> None:
        """Write what is queued, for at most `timeout` seconds, and stop."""
        self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            data, done = item
            if done is not None and not done.set_running_or_notify_cancel():
                continue
            try:
                self._put(data)
            except (OSError, ValueError) as error:  # ValueError: a closed stream
                if done is not None:
                    done.set_exception(OSError(str(error)))
            else:
                if done is not None:
                    done.set_result(None)

    def _put(self, data: bytes) -> None:
        try:
            descriptor = self._stream.fileno()
        except OSError:  # a stream in memory
            self._stream.write(data.decode())
            return
        # Not through the stream's own buffer: its lock would hang the interpreter's
        # exit for as long as a reader stalls.
        view = memoryview(b"\n" + data if self._torn else data)
        while view:
            try:
                written = os.write(descriptor, view)
            except BlockingIOError:  # a pipe that another process made non-blocking
                select.select([], [descriptor], [])
                continue
            view = view[written:]
            self._torn = bool(view)


class _Relay(logging.Handler):
    """Lines of libraries that use the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            min(max(record.levelno // 10, 1), 5)
            * 10,  # levels of one's own have no name
            record.getMessage(),
            logger=record.name,
            exc_info=record.exc_info,
        )


def configure_logging(
    level: str, form: Format, stream: TextIO, now: Callable[[], float]
) -> LineWriter:
    """Send every line of the process to one stream.

    Args:
        level: Lowest level shown: debug, info, warning, error or critical.
        form: `auto` means console on a terminal and JSON elsewhere.
        stream: Standard output, as a rule.
        now: Wall clock, Unix seconds.

    Returns:
        The writer; its `send` is what the log sink needs, and `close` belongs at the
        end of the process.
    """
    terminal = stream.isatty()
    console = form == "console" or (form == "auto" and terminal)
    colours = terminal and "NO_COLOR" not in os.environ
    writer = LineWriter(stream, for_people=console)
    atexit.register(writer.close)
    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            _stamp(now),
            _console(colours=colours) if console else _json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", writer)),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Relay()], level=logging.WARNING, force=True)
    return writer


def _stamp(now: Callable[[], float]) -> Processor:
    """Open each line with `timestamp`, `level` and `event`, in this order."""

    def stamp(
        _logger: object, level: str, line: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event = line.pop("event")
        return {"timestamp": rfc3339(now()), "level": level, "event": event, **line}

    return stamp


def _json(_logger: object, _level: str, line: MutableMapping[str, Any]) -> bytes:
    try:
        return steady(_ENCODER.encode(line))
    except (TypeError, ValueError, OverflowError):  # text or keys that JSON cannot hold
        text = json.dumps(line, default=str, skipkeys=True)
        line = json.loads(text, parse_constant=lambda _: None)
        return steady(json.dumps(line).encode())


def _console(*, colours: bool) -> Processor:
    def show(_logger: object, _level: str, line: MutableMapping[str, Any]) -> bytes:
        return render(line, colours=colours).encode("utf-8", "replace")

    return show
