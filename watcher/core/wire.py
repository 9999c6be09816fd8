"""Bytes of the API to values; the only place that knows the API's field names.

The API's pages contradict one another about types, so what decides a job (ids, status
words, `abnormal_count`, the task list) is read strictly, and what only describes it is
read for what it is worth: a strange description must not hide a result.

Source: "Obtaining Details About a DevServer Job" and "Listing DevServer Jobs",
ModelArts API reference.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from watcher.core.errors import Malformed
from watcher.core.model import Item, Job, ListPage, Snapshot, Task

LONGEST_NAME = 512
LONGEST_MESSAGE = 16_384
LONGEST_NUMBER = 32
_MILLISECONDS = 1e11  # from here on; as seconds it would be the year 5138
_LATEST = 253_402_300_800.0  # the year 10000
_NO_STATUS = "UNKNOWN"
_NOT_ENDED = "PROCESSING"

_Shape = TypeVar("_Shape", bound=msgspec.Struct)


class _WireTask(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    server_id: object = None
    server_name: object = None
    cloud_server: object = None
    message: object = None
    create_at: object = None
    update_at: object = None


class _WireItem(msgspec.Struct):
    type: object = None
    spec: object = None


class _WireJob(msgspec.Struct):
    id: str
    status: str | None = None
    abnormal_count: int | float | str | None = None
    name: object = None
    type: object = None
    description: object = None
    template_id: object = None
    user_name: object = None
    create_at: object = None
    update_at: object = None
    items: object = None


class _WireDetail(_WireJob):
    tasks: list[_WireTask] | None = None


class _WirePage(msgspec.Struct):
    data: list[_WireJob]
    total: int | None = None
    pages: int | None = None
    current: int | None = None
    size: int | None = None


_DETAIL = msgspec.json.Decoder(_WireDetail)
_PAGE = msgspec.json.Decoder(_WirePage)


def decode_job(body: bytes, job_id: str) -> Snapshot:
    """Read an answer of the detail call.

    Args:
        body: The whole body, any bytes.
        job_id: The job that was asked for.

    Raises:
        Malformed: It is not a job, or it is another one.
    """
    wire = _decode(_DETAIL, body)
    if wire.id != job_id:
        raise Malformed("the answer is about another job")
    tasks = None if wire.tasks is None else _tasks(wire.tasks)
    return Snapshot(_job(wire), tasks)


def decode_page(body: bytes) -> ListPage:
    """Read an answer of the list call.

    Raises:
        Malformed: It is not a page of jobs.
    """
    wire = _decode(_PAGE, body)
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


def _decode(decoder: msgspec.json.Decoder[_Shape], body: bytes) -> _Shape:
    try:
        try:
            return decoder.decode(body)
        except UnicodeDecodeError:
            return decoder.decode(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as exc:
        raise Malformed(f"not the shape of a job: {exc}") from exc


def _job(wire: _WireJob) -> Job:
    return Job(
        id=wire.id,
        status=wire.status or None,
        abnormal_count=_count(wire.abnormal_count),
        name=_text(wire.name),
        type=_text(wire.type),
        description=_text(wire.description, LONGEST_MESSAGE),
        template_id=_text(wire.template_id),
        user_name=_text(wire.user_name),
        created_at=parse_time(wire.create_at),
        updated_at=parse_time(wire.update_at),
        items=_items(wire.items),
    )


def _tasks(wires: list[_WireTask]) -> tuple[Task, ...]:
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


def _task(wire: _WireTask) -> Task:
    task_id = wire.id or _text(wire.server_id)
    if not task_id:
        raise Malformed("a task has neither an id nor a server_id")
    server = wire.cloud_server if isinstance(wire.cloud_server, dict) else {}
    return Task(
        id=task_id,
        status=wire.status or _NO_STATUS,
        server_id=_text(wire.server_id),
        server_name=_text(wire.server_name),
        cloud_server_id=_text(server.get("id")),
        cloud_server_type=_text(server.get("type")),
        message=_text(wire.message, LONGEST_MESSAGE),
        created_at=parse_time(wire.create_at),
        updated_at=parse_time(wire.update_at),
    )


def _items(value: object) -> tuple[Item, ...]:
    try:
        wires = msgspec.convert(value, list[_WireItem] | None) or []
    except (ValueError, RecursionError):
        return ()
    return tuple(Item(_text(wire.type), _spec(wire.spec)) for wire in wires)


def _spec(value: object) -> dict[str, str]:
    pairs = value.items() if isinstance(value, dict) else ()
    return {str(name): _text(entry, LONGEST_MESSAGE) or "" for name, entry in pairs}


def _count(value: float | str | None) -> int | None:
    if value is None or value == "":
        return None
    try:
        count = int(value)
    except (ValueError, OverflowError):
        count = -1
    if count < 0 or (isinstance(value, float) and value != count):
        raise Malformed("abnormal_count is not a count")
    return count


def _text(value: object, longest: int = LONGEST_NAME) -> str | None:
    match value:
        case str():
            text = value
        case bool() | int() | float():
            text = str(value)
        case _:
            return None
    return text if len(text) <= longest else text[: longest - 1] + "…"
