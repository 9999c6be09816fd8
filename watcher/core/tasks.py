"""Which tasks of a job are known: those listed, and for a while those that vanished."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from watcher.core.model import Absence, JobRecord, Snapshot, Task

VANISHED_ANSWERS = 2
"""Task lists running without a task, after which it counts as vanished."""
VANISHED_KEPT = 360
"""Task lists running without it, after which it is forgotten."""
MOST_VANISHED = 5000
"""Vanished tasks kept for one job."""


def has_vanished(absence: Absence | None) -> bool:
    """Whether a task is missing from enough lists to count as vanished."""
    return absence is not None and absence.answers >= VANISHED_ANSWERS


def merge_tasks(record: JobRecord, snapshot: Snapshot) -> JobRecord:
    """Add what an answer's task list says to what is known of the tasks."""
    if snapshot.tasks is None:
        return record
    if snapshot.tasks == record.tasks:
        return replace(record, absences={}) if record.absences else record
    answer = {task.id: task for task in snapshot.tasks}
    absences = {
        task.id: _absence(record, task)
        for task in record.tasks
        if task.id not in answer
    }
    known = [answer.pop(task.id, task) for task in record.tasks]
    merged = replace(record, tasks=(*known, *answer.values()), absences=absences)
    return _without(merged, _long_gone(absences))


def _absence(record: JobRecord, task: Task) -> Absence:
    known = record.absences.get(task.id)
    if known is None:
        return Absence(1, record.tasks_seen_at or 0.0)
    return replace(known, answers=known.answers + 1)


def _long_gone(absences: Mapping[str, Absence]) -> frozenset[str]:
    # Not those that vanish now: that is still to be told.
    told = [each for each, one in absences.items() if one.answers > VANISHED_ANSWERS]
    told.sort(key=lambda each: -absences[each].answers)
    excess = max(0, len(told) - MOST_VANISHED)
    old = (each for each in told if absences[each].answers >= VANISHED_KEPT)
    return frozenset([*told[:excess], *old])


def _without(record: JobRecord, gone: Collection[str]) -> JobRecord:
    if not gone:
        return record
    subjects = [s for s in record.ordinals if s.partition(" ")[2] in gone]
    return replace(
        record,
        tasks=tuple(task for task in record.tasks if task.id not in gone),
        absences={k: one for k, one in record.absences.items() if k not in gone},
        ordinals=_joined(record.ordinals, subjects),
    )


def _joined(ordinals: Mapping[str, int], subjects: Collection[str]) -> dict[str, int]:
    joined = dict(ordinals)
    for subject in subjects:
        number = joined.pop(subject)
        event = subject.partition(" ")[0]
        joined[event] = max(number, joined.get(event, 0))
    return joined
