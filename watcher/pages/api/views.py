"""What the API shows of a record: pure functions of it, ready for JSON."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TypeAlias

from watcher.core.model import Item, Job, JobRecord, PollFailed, Task
from watcher.core.tracker import listed
from watcher.core.transitions import count_by_status, rfc3339, task_phase

Shown: TypeAlias = dict[str, object]

_NO_JOB = Job("")
_ERROR_FIELDS = tuple(
    field.name for field in fields(PollFailed) if field.name != "retry_after"
)


def summary(record: JobRecord, next_poll_at: float | None) -> Shown:
    """Lay out what a list of jobs shows of one.

    Args:
        record: What is known of it.
        next_poll_at: When it is asked next, Unix seconds; None: not before something
            else happens, or never again.
    """
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
        "task_counts": count_by_status(listed(record)),
        "created_at": rfc3339(job.created_at),
        "updated_at": rfc3339(job.updated_at),
        "first_seen_at": rfc3339(record.first_seen_at),
        "last_poll_at": rfc3339(record.last_poll_at),
        "last_success_at": rfc3339(record.last_success_at),
        "next_poll_at": rfc3339(next_poll_at),
        "finished_at": rfc3339(record.finished_at),
    }


def detail(record: JobRecord, next_poll_at: float | None) -> Shown:
    """Lay out all that is known of a job but its tasks."""
    job = record.job or _NO_JOB
    return {
        **summary(record, next_poll_at),
        "description": job.description,
        "template_id": job.template_id,
        "user_name": job.user_name,
        "items": [_item(item) for item in job.items],
        "failures": record.failures,
        "last_error": _error(record.failure),
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


def _item(item: Item) -> Shown:
    return asdict(item)


def _error(failure: PollFailed | None) -> Shown | None:
    if failure is None:
        return None
    return {name: getattr(failure, name) for name in _ERROR_FIELDS}
