"""Bytes of the API to values; the only place that knows the API's field names.

The API's pages contradict one another about types, so what decides a job (ids, status
words, `abnormal_count`, the task list) is read strictly, and what only describes it is
read for what it is worth: a strange description must not hide a result. Nothing is built
before it is known to be small: rows are counted while they are read, and where a
description is no plain value it stays a piece of the body until it is looked at.

Source: "Obtaining Details About a DevServer Job" and "Listing DevServer Jobs",
ModelArts API reference.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from watcher.core.errors import Malformed
from watcher.core.model import Item, Job, ListPage, Snapshot, Task

LONGEST_ID = 256
LONGEST_WORD = 64
LONGEST_NAME = 512
LONGEST_MESSAGE = 16_384
LONGEST_NUMBER = 32
LONGEST_CHAR = 12  # bytes: two \\u escapes
MOST_TASKS = 20_000
MOST_ROWS = 10_000
PARTS_A_ROW = 25  # objects and lists, those within a message too
MOST_ITEMS = 100
MOST_ENTRIES = 100
LARGEST_COUNT = 1_000_000_000
_LARGEST_PART = 256 * 1024
_MILLISECONDS = 1e11  # from here on; as seconds it would be the year 5138
_LATEST = 253_402_300_800.0  # the year 10000
_NO_STATUS = "UNKNOWN"
_NOT_ENDED = "PROCESSING"

_Shape = TypeVar("_Shape")
_Id = Annotated[str, msgspec.Meta(max_length=LONGEST_ID)]
_Scalar = str | int | float | bool | None
_Field = TypeVar("_Field")
"""A description: `_Scalar`, as it should be, or `Raw`, where it may be anything."""
_NULL: Any = msgspec.Raw(b"null")


class _Rows(threading.local):
    """How many rows the decoding of this thread may still make."""

    left = 0


_rows = _Rows()


class _Row(msgspec.Struct):
    def __post_init__(self) -> None:
        """Count it, while those after it are not made yet."""
        _rows.left -= 1
        if _rows.left < 0:
            raise Malformed("more tasks, or jobs, than an answer may have")


class _WireTask(_Row, Generic[_Field]):
    id: _Id | None = None
    status: str | None = None
    server_id: _Field = _NULL
    server_name: _Field = _NULL
    cloud_server: msgspec.Raw = _NULL
    message: _Field = _NULL
    create_at: _Field = _NULL
    update_at: _Field = _NULL


class _WireServer(msgspec.Struct):
    id: msgspec.Raw = _NULL
    type: msgspec.Raw = _NULL


class _WireItem(msgspec.Struct):
    type: msgspec.Raw = _NULL
    spec: msgspec.Raw = _NULL


class _WireJob(_Row, Generic[_Field]):
    id: _Id
    status: str | None = None
    abnormal_count: int | float | str | None = None
    name: _Field = _NULL
    type: _Field = _NULL
    description: _Field = _NULL
    template_id: _Field = _NULL
    user_name: _Field = _NULL
    create_at: _Field = _NULL
    update_at: _Field = _NULL
    items: msgspec.Raw = _NULL


class _WireDetail(_WireJob[_Field], Generic[_Field]):
    tasks: list[_WireTask[_Field]] | None = None


class _WirePage(msgspec.Struct, Generic[_Field]):
    data: list[_WireJob[_Field]]
    total: int | None = None
    pages: int | None = None
    current: int | None = None
    size: int | None = None


_DETAIL = (
    msgspec.json.Decoder(_WireDetail[_Scalar]),
    msgspec.json.Decoder(_WireDetail[msgspec.Raw]),
)
_PAGE = (
    msgspec.json.Decoder(_WirePage[_Scalar]),
    msgspec.json.Decoder(_WirePage[msgspec.Raw]),
)
_SCALAR: msgspec.json.Decoder[_Scalar] = msgspec.json.Decoder(_Scalar)
_SERVER = msgspec.json.Decoder(_WireServer)
_ITEMS = msgspec.json.Decoder(list[_WireItem])
_SPEC = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode_job(body: bytes, job_id: str, max_tasks: int = MOST_TASKS) -> Snapshot:
    """Read an answer of the detail call.

    Args:
        body: The whole body, any bytes.
        job_id: The job that was asked for.
        max_tasks: How many it may have.

    Raises:
        Malformed: It is not a job, or it is another one, or it is too large.
    """
    wire = _decode(_DETAIL, body, max_tasks + 1)
    if wire.id != job_id:
        raise Malformed("the answer is about another job")
    tasks = None if wire.tasks is None else _tasks(wire.tasks)
    return Snapshot(_job(wire), tasks)


def decode_page(body: bytes) -> ListPage:
    """Read an answer of the list call.

    Raises:
        Malformed: It is not a page of jobs.
    """
    wire = _decode(_PAGE, body, MOST_ROWS)
    rows = tuple(_job(row) for row in wire.data)
    return ListPage(rows, wire.total, wire.pages, wire.current, wire.size)


def parse_time(value: object) -> float | None:
    """Read any of the API's forms of a time as Unix seconds.

    Known forms: milliseconds or seconds as number or digit string, ISO 8601 (taken as
    UTC where it names no zone), null. Whatever else comes is None: unknown.
    """
    match value:
        case bool():
            return None
        case int() | float() if _MILLISECONDS <= value < _MILLISECONDS**2:
            return _plausible(value / 1000)
        case int() | float():
            return _plausible(value)
        case str() if value.strip().isdecimal() and len(value) < LONGEST_NUMBER:
            return parse_time(int(value))
        case str():
            return _parse_iso(value.strip())
        case _:
            return None


def _parse_iso(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return _plausible(moment.timestamp())
    except (ValueError, OverflowError):
        return None


def _plausible(seconds: float) -> float | None:
    return float(seconds) if 0 < seconds < _LATEST else None


def _decode(
    decoders: tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]],
    body: bytes,
    most: int,
) -> Any:
    """Read a body as it should be, else as anything that still tells what decides."""
    strict, lenient = decoders
    if body.count(b"{") + body.count(b"[") > PARTS_A_ROW * max(most, MOST_TASKS):
        raise Malformed("more objects and lists than an answer may have")
    try:
        return _decode_once(strict, body, most)
    except (msgspec.ValidationError, UnicodeDecodeError):
        pass
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"not JSON that can be read: {exc}") from exc
    try:
        return _decode_once(lenient, body, most)
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"not the shape of a job: {exc}") from exc


def _decode_once(
    decoder: msgspec.json.Decoder[_Shape], body: bytes, most: int
) -> _Shape:
    _rows.left = most
    return decoder.decode(body)


def _part(decoder: msgspec.json.Decoder[_Shape], raw: msgspec.Raw) -> _Shape | None:
    """Read what only describes; None where it is too large or of another shape."""
    if raw is _NULL:
        return None
    if len(memoryview(raw)) > _LARGEST_PART:
        return None
    try:
        try:
            return decoder.decode(raw)
        except UnicodeDecodeError:
            return decoder.decode(bytes(raw).decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _job(wire: _WireJob[Any]) -> Job:
    return Job(
        id=wire.id,
        status=_clip(wire.status or "", LONGEST_WORD) or None,
        abnormal_count=_count(wire.abnormal_count),
        name=_text(wire.name),
        type=_text(wire.type),
        description=_text(wire.description, LONGEST_MESSAGE),
        template_id=_text(wire.template_id),
        user_name=_text(wire.user_name),
        created_at=_time(wire.create_at),
        updated_at=_time(wire.update_at),
        items=_items(wire.items),
    )


def _tasks(wires: list[_WireTask[Any]]) -> tuple[Task, ...]:
    tasks: dict[str, Task] = {}
    for wire in wires:
        task = _task(wire)
        known = tasks.get(task.id)
        if known is None or _weight(known) <= _weight(task):
            tasks[task.id] = task
    return tuple(tasks.values())


def _weight(task: Task) -> tuple[float, bool]:
    """Rank rows that contradict one another: the younger counts, then the end."""
    return task.updated_at or 0.0, task.status != _NOT_ENDED


def _task(wire: _WireTask[Any]) -> Task:
    server_id = _text(wire.server_id)
    task_id = wire.id or server_id
    if not task_id:
        raise Malformed("a task has neither an id nor a server_id")
    server = _part(_SERVER, wire.cloud_server) or _WireServer()
    return Task(
        id=task_id,
        status=_clip(wire.status or _NO_STATUS, LONGEST_WORD),
        server_id=server_id,
        server_name=_text(wire.server_name),
        cloud_server_id=_text(server.id),
        cloud_server_type=_text(server.type),
        message=_text(wire.message, LONGEST_MESSAGE),
        created_at=_time(wire.create_at),
        updated_at=_time(wire.update_at),
    )


def _items(raw: msgspec.Raw) -> tuple[Item, ...]:
    wires = (_part(_ITEMS, raw) or [])[:MOST_ITEMS]
    return tuple(Item(_text(wire.type), dict(_spec(wire.spec))) for wire in wires)


def _spec(raw: msgspec.Raw) -> Iterable[tuple[str, str]]:
    pairs = (_part(_SPEC, raw) or {}).items()
    for name, entry in islice(pairs, MOST_ENTRIES):
        yield _clip(name, LONGEST_NAME), _text(entry, LONGEST_MESSAGE) or ""


def _count(value: float | str | None) -> int | None:
    if value is None or value == "":
        return None
    try:
        count = int(value)
    except (ValueError, OverflowError):
        count = -1
    exact = not isinstance(value, float) or value == count
    if not (exact and 0 <= count <= LARGEST_COUNT):
        raise Malformed("abnormal_count is not a count")
    return count


def _text(value: _Scalar | msgspec.Raw, longest: int = LONGEST_NAME) -> str | None:
    if type(value) is str and len(value) <= longest:
        return value  # as nearly all are
    if isinstance(value, msgspec.Raw):
        value = _read(value, longest)
    match value:
        case str() as text:
            return text if len(text) <= longest else _clip(text, longest)
        case bool() | int() | float():
            return _clip(str(value), longest)
        case _:
            return None


def _time(value: _Scalar | msgspec.Raw) -> float | None:
    if type(value) is int and _MILLISECONDS <= value < _LATEST * 1000:
        return value / 1000  # as nearly all are
    return parse_time(_read(value) if isinstance(value, msgspec.Raw) else value)


def _read(raw: msgspec.Raw, longest: int = LONGEST_NAME) -> _Scalar:
    if raw is _NULL:
        return None
    view = memoryview(raw)
    if len(view) > LONGEST_CHAR * longest + 2:
        return _beginning(bytes(view[: LONGEST_CHAR * longest]), longest)
    return _part(_SCALAR, raw)


def _beginning(raw: bytes, longest: int) -> str | None:
    """Return the beginning of a text that is much too long; None where it is no text.

    What was cut may end within an escape or a character, so a little more is cut.
    """
    if not raw.startswith(b'"'):
        return None
    wholes = (raw[: len(raw) - cut] + b'"' for cut in range(LONGEST_CHAR))
    texts = (_part(_SCALAR, msgspec.Raw(whole)) for whole in wholes)
    text = next((text for text in texts if isinstance(text, str)), "")
    return _clip(text + "…", longest)


def _clip(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
