"""The log: one line an event, in the contract's order, and what happens to the stream."""

from __future__ import annotations

import io
import json
import logging
import os
import threading

import anyio
import pytest
import structlog

from watcher.core.errors import SinkError
from watcher.core.model import JobKey, JournalEvent, Level, Transition
from watcher.logs import LineWriter, configure_logging
from watcher.sinks.log import LogSink

NOW = 1_700_000_000.25


class Screen(io.StringIO):
    """A stream in memory that may pretend to be a terminal."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def configured():
    """Configure logging on a stream; undone at the end."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    writers = []

    def configure(stream, level="info", form="json"):
        writers.append(configure_logging(level, form, stream, lambda: NOW))
        return writers[-1]

    yield configure
    for writer in writers:
        writer.close()
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


class StalledPipe:
    """A pipe whose reader reads nothing until told to go on."""

    def __init__(self) -> None:
        self._reading, writing = os.pipe()
        self.stream = os.fdopen(writing, "w")
        self._received: list[bytes] = []
        self._thread = threading.Thread(target=self._drain)

    def _drain(self) -> None:
        while piece := os.read(self._reading, 65536):
            self._received.append(piece)

    def go_on(self) -> None:
        self._thread.start()

    def read(self) -> bytes:
        self.stream.close()
        if self._thread.ident is not None:
            self._thread.join(5)
        return b"".join(self._received)

    def close(self) -> None:
        self.read()
        os.close(self._reading)


@pytest.fixture
def stalled():
    pipe = StalledPipe()
    yield pipe
    pipe.close()


def event(
    seq: int = 7, *, level: Level = Level.INFO, replayed: bool = False, **fields: object
) -> JournalEvent:
    shown = {
        "project_id": "p",
        "job_id": "j",
        "job_name": "n",
        "job_type": None,
        "observed_at": "2023-11-14T22:13:20.000000Z",
        "not_before": None,
        **fields,
    }
    transition = Transition("job.finished", f"id{seq}", level, JobKey("t", "j"), shown)
    return JournalEvent(seq, transition, replayed=replayed)


async def test_the_keys_come_in_the_order_of_the_contract(configured):
    stream = Screen()
    writer = configured(stream)
    await LogSink(writer.send).deliver([event(phase="failed", replayed=True)])
    (line,) = stream.getvalue().splitlines()
    assert list(json.loads(line)) == [
        "timestamp",
        "level",
        "event",
        "event_id",
        "seq",
        "target",
        "project_id",
        "job_id",
        "job_name",
        "job_type",
        "observed_at",
        "not_before",
        "phase",
        "replayed",
    ]
    assert json.loads(line)["timestamp"] == "2023-11-14T22:13:20.250000Z"
    assert json.loads(line)["replayed"] is True


async def test_a_batch_is_one_line_an_event_and_only_repeats_say_so(configured):
    stream = Screen()
    sink = LogSink(configured(stream).send)
    await sink.deliver([event(1), event(2, level=Level.WARNING, text="a\nb")])
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["seq"], line["level"]) for line in lines] == [
        (1, "info"),
        (2, "warning"),
    ]
    assert all("replayed" not in line for line in lines)


async def test_the_level_filters_events_too(configured):
    stream = Screen()
    sink = LogSink(configured(stream, level="warning").send)
    await sink.deliver([event(1), event(2, level=Level.WARNING)])
    assert '"seq":1' not in stream.getvalue()
    assert '"seq":2' in stream.getvalue()


async def test_a_reader_that_left_is_a_sink_error_and_never_a_crash(configured):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        writer = configured(stream)
        structlog.get_logger().info("ordinary")
        with pytest.raises(SinkError, match="Broken pipe"):
            await LogSink(writer.send).deliver([event()])


async def test_a_closed_stream_is_a_sink_error(configured):
    stream = Screen()
    writer = configured(stream)
    stream.close()
    with pytest.raises(SinkError, match="closed file"):
        await LogSink(writer.send).deliver([event()])


async def test_a_reader_that_stalls_holds_back_the_sink_and_not_the_loop(
    configured, stalled
):
    writer = configured(stalled.stream)
    sink = LogSink(writer.send)
    with anyio.move_on_after(0.2) as waited:
        await sink.deliver([event(1, text="x" * 200_000)])  # more than a pipe holds
    assert waited.cancelled_caught
    for _ in range(writer._limit + 5):
        structlog.get_logger().info("ordinary")
    assert writer.dropped >= 5
    stalled.go_on()
    await sink.deliver([event(2)])


async def test_what_was_cancelled_in_the_queue_is_not_written(stalled):
    writer = LineWriter(stalled.stream)
    writer.write(b"x" * 200_000 + b"\n")
    with anyio.move_on_after(0.1):
        await writer.send(b"cancelled\n")
    stalled.go_on()
    await writer.send(b"kept\n")
    writer.close()
    assert stalled.read().endswith(b"x\nkept\n")


async def test_a_torn_line_does_not_spoil_the_next(tmp_path):
    """A file system that fills up takes half a line; the next one starts afresh."""
    written: list[bytes] = []

    class Device:
        room = 3

        def write(self, _descriptor: int, data: memoryview) -> int:
            if self.room == 0:
                raise OSError(28, "No space left on device")
            piece = bytes(data[: self.room])
            self.room -= len(piece)
            written.append(piece)
            return len(piece)

    device = Device()
    with (tmp_path / "log").open("w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr("watcher.logs.os.write", device.write)
        writer = LineWriter(stream)
        with pytest.raises(OSError, match="No space"):
            await writer.send(b"first\n")
        device.room = 100
        await writer.send(b"second\n")
        await writer.send(b"third\n")
        writer.close()
    assert b"".join(written) == b"fir\nsecond\nthird\n"


async def test_a_non_blocking_pipe_is_waited_for(stalled):
    os.set_blocking(stalled.stream.fileno(), False)
    writer = LineWriter(stalled.stream)
    writer.write(b"x" * 300_000 + b"\n")
    stalled.go_on()
    await writer.send(b"kept\n")
    writer.close()
    assert stalled.read() == b"x" * 300_000 + b"\nkept\n"


def test_ordinary_lines_and_library_lines_have_the_same_form(configured):
    stream = Screen()
    writer = configured(stream)
    structlog.get_logger().info("daemon.started", jobs=2)
    logging.getLogger("aiohttp.client").warning("odd %s", "thing\n")
    logging.getLogger("aiohttp.client").info("chatter")
    writer.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("daemon.started", "info"),
        ("odd thing\n", "warning"),
    ]
    assert lines[1]["logger"] == "aiohttp.client"


@pytest.mark.parametrize(
    ("number", "name"), [(35, "warning"), (60, "critical"), (1, None)]
)
def test_a_librarys_own_level_becomes_the_next_lower_one(configured, number, name):
    stream = Screen()
    writer = configured(stream)
    library = logging.getLogger("library")
    library.setLevel(1)
    library.log(number, "odd")
    writer.close()
    levels = [json.loads(line)["level"] for line in stream.getvalue().splitlines()]
    assert levels == ([name] if name else [])


def test_an_exception_is_one_line_of_json(configured):
    stream = Screen()
    writer = configured(stream)
    structlog.get_logger().error("crashed", exc_info=RuntimeError("boom"))
    writer.close()
    (line,) = stream.getvalue().splitlines()
    assert "RuntimeError: boom" in json.loads(line)["exception"]


@pytest.mark.parametrize(
    "value", ["\ud800", float("nan"), {1: 2}, {(1, 2): 3}, 2**70, object(), b"\xff"]
)
def test_no_value_breaks_a_line(configured, value):
    stream = Screen()
    writer = configured(stream)
    structlog.get_logger().info("odd", value=value, more="\ud800")
    writer.close()
    (line,) = stream.getvalue().splitlines()
    parsed = json.loads(line, parse_constant=pytest.fail)
    assert parsed["event"] == "odd"


@pytest.mark.parametrize("terminal", [True, False])
def test_auto_means_console_on_a_terminal_only(configured, terminal):
    stream = Screen(terminal=terminal)
    writer = configured(stream, form="auto")
    structlog.get_logger().info("hello")
    writer.close()
    assert stream.getvalue().startswith("{") is not terminal
    assert ("\x1b[" in stream.getvalue()) is terminal


def test_numbers_look_plain_and_nothing_is_left_out_on_a_console(configured):
    stream = Screen()
    writer = configured(stream, form="console")
    structlog.get_logger().info("x", number=1, share=0.5, flag=True, nothing=None)
    writer.close()
    assert "number=1 share=0.5 flag=True\n" in stream.getvalue()


@pytest.mark.parametrize("place", ["event", "value", "nested", "exception"])
def test_text_from_outside_cannot_steer_a_terminal(configured, monkeypatch, place):
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Screen(terminal=True)
    writer = configured(stream, form="console")
    evil = "\x1b]0;owned\x07\r\u202eabc\x9b31m"
    log = structlog.get_logger()
    if place == "event":
        log.info(evil)
    elif place == "exception":
        try:
            json.loads(evil)
        except ValueError as error:
            error.add_note(evil)
            log.exception("crashed")
    else:
        log.info("x", value=evil if place == "value" else {"spec": [evil]})
    writer.close()
    assert all(line.isprintable() for line in stream.getvalue().split("\n"))
    assert "abc" in stream.getvalue()
    assert (stream.getvalue().count("\n") > 3) is (place == "exception")
