"""Records and transitions as JSON text; loading what was saved gives it back equal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from watcher.core.model import Job, JobRecord, Task, Transition

_Value = TypeVar("_Value")

EARLIEST, LATEST = -62_135_596_800, 253_402_300_799
"""The first and the last second that a date can tell, in Unix seconds."""
LARGEST = 2**53
"""Beyond it a number is damage, and no longer exact in JSON."""

_RECORD = msgspec.json.Decoder(JobRecord)
_TRANSITION = msgspec.json.Decoder(Transition)
_ENCODER = msgspec.json.Encoder()


class Unreadable(Exception):  # noqa: N818 - as it reads where it is raised
    """What is stored is not what was saved."""


def encode(value: JobRecord | Transition) -> str:
    """Write a value as JSON."""
    return _ENCODER.encode(value).decode()


def decode_record(text: object) -> JobRecord:
    """Read a record.

    Raises:
        Unreadable: It is none, or it has a time or a count that cannot be.
    """
    record = _decode(_RECORD, text)
    if not all(
        EARLIEST <= time <= LATEST for time in _times(record) if time is not None
    ):
        raise Unreadable("a time is no date")
    if max(record.ordinals.values(), default=0) > LARGEST:
        raise Unreadable("an event was told more often than can be")
    return record


def decode_transition(text: object) -> Transition:
    """Read a transition; raise `Unreadable` if it is none."""
    return _decode(_TRANSITION, text)


def _decode(decoder: msgspec.json.Decoder[_Value], text: object) -> _Value:
    if not isinstance(text, str):
        raise Unreadable("it is no text")
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from error


def _times(record: JobRecord) -> Iterator[float | None]:
    yield from (
        record.first_seen_at,
        record.last_poll_at,
        record.last_success_at,
        record.tasks_seen_at,
        record.finished_at,
    )
    yield from (each.wall for each in (record.lagging, record.missing) if each)
    yield from (absence.last_seen for absence in record.absences.values())
    dated: list[Job | Task] = [record.job] if record.job else []
    dated += record.tasks
    for each in dated:
        yield from (each.created_at, each.updated_at)
