"""In which order jobs are listed; an order is kept up by change, not made when asked."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

from watcher.core.model import JobRecord, Phase, TaskPhase
from watcher.core.tracker import listed
from watcher.core.transitions import task_phase

Place: TypeAlias = tuple[float | bool, float | str, str, str]
"""Compares as the jobs are listed; ends with target and job id, so that no two are alike.

Plain values in a plain tuple: the garbage collector does not look at those.
"""

BY_NAME = "name"
LONGEST_RUN = 1000


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
    """Jobs in one order, in runs so short that to put one in its place is no work."""

    def __init__(self, sort: str) -> None:
        """Begin without jobs."""
        self._place = SORTS[sort]
        self._runs: list[list[Place]] = []
        self._ends: list[Place] = []  # the last of each run

    def move(self, before: JobRecord | None, after: JobRecord | None) -> None:
        """Put a job where it belongs now, or take it away; nothing where it is there."""
        old = self._place(before) if before else None
        new = self._place(after) if after else None
        if old == new:
            return
        if old is not None:
            self._take_away(old)
        if new is not None:
            self._add(new)

    def put(self, record: JobRecord) -> None:
        """Put a job where it belongs."""
        self._add(self._place(record))

    def _add(self, place: Place) -> None:
        if not self._runs:
            self._runs, self._ends = [[place]], [place]
            return
        at = min(bisect_left(self._ends, place), len(self._ends) - 1)
        run = self._runs[at]
        index = bisect_left(run, place)
        if index < len(run) and run[index] == place:
            return
        run.insert(index, place)
        self._ends[at] = run[-1]
        if len(run) > LONGEST_RUN:
            half = len(run) // 2
            self._runs[at : at + 1] = [run[:half], run[half:]]
            self._ends[at : at + 1] = [run[half - 1], run[-1]]

    def _take_away(self, place: Place) -> None:
        at = bisect_left(self._ends, place)
        if at == len(self._ends):
            return
        run = self._runs[at]
        index = bisect_left(run, place)
        if run[index] != place:
            return
        del run[index]
        if run:
            self._ends[at] = run[-1]
        else:
            del self._runs[at], self._ends[at]

    def after(self, place: Place | None) -> Sequence[Place]:
        """Return the places that follow one, whether or not it is still there."""
        at = 0 if place is None else bisect_right(self._ends, place)
        found = list(chain.from_iterable(self._runs[at:]))
        return found if place is None else found[bisect_right(found, place) :]
