"""What the API shows of a record: pure functions of it, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TypeAlias

from watcher.core.insight import MOST_TEXT, Folded, fold
from watcher.core.model import Item, Job, JobRecord, PollFailed, Task, TaskPhase
from watcher.core.tracker import listed
from watcher.core.transitions import count_by_status, rfc3339, task_phase

Shown: TypeAlias = dict[str, object]

MOST_GROUPS = 10
"""Groups of failures that a row names, the largest first; a job alone names all."""

_NO_JOB = Job("")
_ERROR_FIELDS = tuple(
    field.name for field in fields(PollFailed) if field.name != "retry_after"
)


@dataclass(frozen=True, slots=True)
class Digest:
    """What a row says of a job's tasks: costly to make, and kept while it holds.

    Attributes:
        tasks: How many in each status.
        failures: Those that failed, folded.
    """

    tasks: Mapping[str, int]
    failures: Sequence[Folded]


def digest(record: JobRecord) -> Digest:
    """Sum up the tasks of a job; those that vanished left out."""
    said = (
        (one.server_name or one.server_id or one.id, one.message)
        for one in listed(record)
        if task_phase(one.status) is TaskPhase.FAILED
    )
    return Digest(count_by_status(listed(record)), fold(said))


def moment(now: float, delay: float | None) -> float | None:
    """Return when a delay is over, Unix seconds; None where it never is."""
    return None if delay is None or not math.isfinite(delay) else now + max(0.0, delay)


def row(
    record: JobRecord,
    tasks: Digest,
    next_poll_at: float | None,
    replica: str | None = None,
) -> Shown:
    """Lay out what a list of jobs shows of one.

    Args:
        record: What is known of it.
        tasks: Likewise, of its tasks.
        next_poll_at: When it is asked next, Unix seconds; None: not before something
            else happens, or never again.
        replica: Who watches it; None: nobody, or no store is shared.
    """
    return {
        **_summary(record, tasks.tasks, next_poll_at, replica),
        "last_error": _error(record.failure),
        "tasks": tasks.tasks,
        "failures": [_failures(group) for group in tasks.failures[:MOST_GROUPS]],
    }


def _summary(
    record: JobRecord,
    tasks: Mapping[str, int],
    next_poll_at: float | None,
    replica: str | None,
) -> Shown:
    job = record.job or _NO_JOB
    return {
        "target": record.key.target,
        "job_id": record.key.job_id,
        "project_id": record.project_id,
        "name": job.name,
        "type": job.type,
        "status": job.status,
        "phase": record.phase,
        "abnormal_count": job.abnormal_count,
        "task_counts": tasks,
        "created_at": rfc3339(job.created_at),
        "updated_at": rfc3339(job.updated_at),
        "first_seen_at": rfc3339(record.first_seen_at),
        "last_poll_at": rfc3339(record.last_poll_at),
        "last_success_at": rfc3339(record.last_success_at),
        "next_poll_at": rfc3339(next_poll_at),
        "finished_at": rfc3339(record.finished_at),
        "replica": replica,
    }


def detail(
    record: JobRecord,
    tasks: Digest,
    next_poll_at: float | None,
    replica: str | None = None,
) -> Shown:
    """Lay out all that is known of a job but its tasks."""
    job = record.job or _NO_JOB
    return {
        **_summary(record, tasks.tasks, next_poll_at, replica),
        "description": job.description,
        "template_id": job.template_id,
        "user_name": job.user_name,
        "items": [_item(item) for item in job.items],
        "failures": record.failures,
        "last_error": _error(record.failure),
        "folded_failures": [_failures(group) for group in tasks.failures],
    }


def task(record: JobRecord, one: Task) -> Shown:
    """Lay out one task of a job."""
    absence = record.absences.get(one.id)
    return {
        "id": one.id,
        "status": one.status,
        "phase": task_phase(one.status),
        "missing_answers": absence.answers if absence else 0,
        "server_id": one.server_id,
        "server_name": one.server_name,
        "cloud_server": {"id": one.cloud_server_id, "type": one.cloud_server_type},
        "message": one.message,
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
    }


def _failures(group: Folded) -> Shown:
    return {**asdict(group), "message": group.message[:MOST_TEXT]}


def _item(item: Item) -> Shown:
    return asdict(item)


def _error(failure: PollFailed | None) -> Shown | None:
    if failure is None:
        return None
    return {name: getattr(failure, name) for name in _ERROR_FIELDS}
