"""Which rows of a list moved, and whether they did where a task had.

A row that moves tells that a job is to be asked. Whether a row moves when a task does
is shown by the looks at the job: a task that had moved, while the row was the same at
the sweep before and is still the same at the sweep after, was not told of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from watcher.core.model import Job, JobRecord
from watcher.core.transitions import PROCESSING

Mark: TypeAlias = tuple[object, ...]
ABSENT: Mark = ()


class Rows:
    """The rows of the jobs of one target, as the last sweeps showed them."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._moved_at: dict[str, float] = {}
        self._looked: dict[str, tuple[float, int]] = {}
        self._owed: dict[str, tuple[float, float]] = {}

    def swept(
        self, rows: Mapping[str, Job], running: Mapping[str, Job | None], now: float
    ) -> list[str]:
        """Take in a sweep.

        Args:
            rows: What it brought, by job id.
            running: The unfinished watched jobs as last known, by id.
            now: When it ended, monotonic seconds.

        Returns:
            The jobs of which it tells something new, or that it leaves out.
        """
        for store in (self._marks, self._moved_at, self._looked, self._owed):
            for job_id in store.keys() - running.keys():
                del store[job_id]
        return [
            each
            for each, known in running.items()
            if self._is_news(each, rows.get(each), known, now)
        ]

    def looked(self, record: JobRecord, sent_at: float, now: float) -> bool | None:
        """Take in a look at a job.

        Args:
            record: What is known since.
            sent_at: When the request was sent, monotonic seconds.
            now: When the answer was there.

        Returns:
            Whether the row had moved where a task had; None where no task had, or where
            the next sweep will tell.
        """
        job_id = record.key.job_id
        before, moves = self._looked.get(job_id, (math.inf, record.moves))
        mark = self._marks.get(job_id)
        self._looked[job_id] = sent_at, record.moves
        if moves == record.moves or mark is None:
            return None
        if self._moved_at.get(job_id, -math.inf) > before:
            return True
        if mark == ABSENT:
            return None
        updated_at = record.job and record.job.updated_at
        if updated_at is not None and updated_at == mark[-1]:
            return False  # it does not move with tasks, in either answer
        self._owed.setdefault(job_id, (sent_at, now))
        return None

    def settle(self, began: float) -> Iterator[bool]:
        """Yield, for looks that waited for a sweep begun since, whether rows moved."""
        for job_id, (sent_at, taken_at) in tuple(self._owed.items()):
            if taken_at <= began:
                del self._owed[job_id]
                yield self._moved_at.get(job_id, -math.inf) >= sent_at

    def _is_news(
        self, job_id: str, row: Job | None, known: Job | None, now: float
    ) -> bool:
        mark = (row.status, row.abnormal_count, row.updated_at) if row else ABSENT
        before = self._marks.get(job_id)
        self._marks[job_id] = mark
        moved = row is not None and _differs(row, known)
        if before is not None:
            moved = before != mark
        if moved:
            self._moved_at[job_id] = now
        return moved or row is None or row.status != PROCESSING


def _differs(row: Job, known: Job | None) -> bool:
    return (
        known is None
        or known.abnormal_count != row.abnormal_count
        or known.updated_at not in {None, row.updated_at}
    )
