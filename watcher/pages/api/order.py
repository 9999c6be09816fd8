"""In which order jobs are listed; an order is kept up by change, not made when asked."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from watcher.core.model import JobKey, JobRecord, Phase, TaskPhase
from watcher.core.tracker import listed
from watcher.core.transitions import task_phase

Place: TypeAlias = tuple[float | bool, float | str, str, str]
"""Compares as the jobs are listed; ends with target and job id, so that no two are alike."""

BY_NAME = "name"


def has_failures(record: JobRecord) -> bool:
    """Whether something failed on a server, as far as is known."""
    if record.job is not None and (record.job.abnormal_count or 0) > 0:
        return True
    return any(task_phase(t.status) is TaskPhase.FAILED for t in listed(record))


def _attention(record: JobRecord) -> Place:
    """What somebody should look at first: failed, then about to, then the rest."""
    match record.phase:
        case Phase.FAILED:
            rank = 0.0
        case Phase.ACTIVE:
            rank = 1.0 if has_failures(record) else 2.0
        case Phase.UNKNOWN:
            rank = 3.0
        case _:
            rank = 4.0
    return rank, -_began(record), *record.key


def _newest(record: JobRecord) -> Place:
    return 0.0, -_began(record), *record.key


def _name(record: JobRecord) -> Place:
    name = record.job.name if record.job else None
    text = (name or "").casefold().encode("utf-8", "replace").decode()
    return not text, text, *record.key


def _began(record: JobRecord) -> float:
    began = record.job.created_at if record.job else None
    return began or record.first_seen_at or 0.0


SORTS: Mapping[str, Callable[[JobRecord], Place]] = {
    "attention": _attention,
    "newest": _newest,
    BY_NAME: _name,
}


class Order:
    """Jobs in one order."""

    def __init__(self, sort: str, records: Iterable[JobRecord]) -> None:
        """Sort these."""
        self._place = SORTS[sort]
        self._places = sorted(map(self._place, records))

    def move(self, before: JobRecord | None, after: JobRecord | None) -> None:
        """Put a job where it belongs now, or take it away; nothing where it is there."""
        old = self._place(before) if before else None
        new = self._place(after) if after else None
        if old == new:
            return
        if old is not None and self._has(index := bisect_left(self._places, old), old):
            del self._places[index]
        if new is not None:
            index = bisect_left(self._places, new)
            if not self._has(index, new):
                self._places.insert(index, new)

    def _has(self, index: int, place: Place) -> bool:
        return index < len(self._places) and self._places[index] == place

    def after(self, place: Place | None) -> Sequence[Place]:
        """Return the places that follow one, whether or not it is still there."""
        start = 0 if place is None else bisect_right(self._places, place)
        return self._places[start:]


def key_at(place: Place) -> JobKey:
    """Return the job that stands there."""
    return JobKey(place[2], place[3])
