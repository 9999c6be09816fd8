"""What happens to a job, as values: who, what, and every change with its moment.

Moments are scenario seconds. A script is complete from the start, so its truth can be
told ahead; changing a job by hand replaces its script from that moment on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

PROCESSING, SUCCESS, FAILED = "PROCESSING", "SUCCESS", "FAILED"
FINISHED, DELETED = "FINISHED", "DELETED"

FINISH_LAG = 0.3
"""Scenario seconds from the last task's end to the job's own FINISHED."""


class Change(NamedTuple):
    """From this moment on, this status with this message."""

    at: float
    status: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """A bare-metal server that tasks run on."""

    id: str
    name: str
    cloud_id: str
    cloud_type: str
    software: str


@dataclass(frozen=True, slots=True)
class TaskScript:
    """One server's share of a job; its first change is its appearance."""

    id: str
    server: Server
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """A kind of work that a job does on each server."""

    type: str
    spec: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JobScript:
    """A job without its tasks; its first change is its creation."""

    id: str
    name: str
    type: str
    description: str
    items: tuple[Item, ...]
    template_id: str
    user_name: str
    changes: tuple[Change, ...]

    @property
    def created(self) -> float:
        """Scenario second of the creation."""
        return self.changes[0].at


@dataclass(frozen=True, slots=True)
class TrueTransition:
    """A change of a task's status.

    Attributes:
        at: Unix seconds on the server's clock; `inf` while a pause keeps it away.
    """

    task_id: str
    from_status: str
    to_status: str
    at: float
    message: str


@dataclass(frozen=True, slots=True)
class JobTruth:
    """Everything that happens to a job, told ahead.

    Attributes:
        status: The job's last word.
        phase: What that comes to, in the watcher's words.
        finished_at: When it says it, in Unix seconds on the server's clock; None for a
            job that never ends.
        abnormal_count: The last one.
        tasks: Last status by task id.
        transitions: In the order they happen; a task's appearance is none.
    """

    job_id: str
    status: str
    phase: str
    finished_at: float | None
    abnormal_count: int
    tasks: Mapping[str, str]
    transitions: tuple[TrueTransition, ...]


def latest(changes: Sequence[Change], now: float) -> Change | None:
    """Return the change in force, or None before the first one."""
    return next((change for change in reversed(changes) if change.at <= now), None)


def visible(tasks: Sequence[TaskScript], now: float) -> list[tuple[TaskScript, Change]]:
    """Return the tasks that exist, each with its change in force."""
    states = ((task, latest(task.changes, now)) for task in tasks)
    return [(task, state) for task, state in states if state is not None]


def job_changes(created: float, ended: float) -> tuple[Change, ...]:
    """Return what a job itself says whose last task ends at that moment."""
    return (Change(created, PROCESSING), Change(ended + FINISH_LAG, FINISHED))


def last_end(created: float, tasks: Sequence[TaskScript]) -> float | None:
    """Return when the last task ends; None where one never does."""
    last = [task.changes[-1] for task in tasks]
    if any(change.status == PROCESSING for change in last):
        return None
    return max((change.at for change in last), default=created)


def follow_tasks(
    changes: tuple[Change, ...], now: float, ended: float | None
) -> tuple[Change, ...]:
    """Return a job's changes after its tasks were changed by hand.

    Args:
        changes: What they were before.
        now: When that happened.
        ended: When the last task ends; None where one never does.
    """
    past = tuple(change for change in changes if change.at <= now)
    ended_already = ended is not None and ended <= now
    word = past[-1].status
    if word == DELETED or (word == FINISHED and ended_already):
        return past
    if word == FINISHED:
        past = (*past, Change(now, PROCESSING))
    return past if ended is None else (*past, Change(ended + FINISH_LAG, FINISHED))


def rewritten(
    changes: tuple[Change, ...], now: float, status: str, message: str | None
) -> tuple[Change, ...]:
    """Return changes whose future is replaced by one change now.

    Args:
        changes: What they were before.
        now: When the change happens.
        status: The new status.
        message: The new message; None keeps the one in force.
    """
    past = tuple(change for change in changes if change.at <= now)
    if message is None:
        message = past[-1].message if past else ""
    return (*past, Change(now, status, message))


def rewrite_task(
    task: TaskScript, now: float, status: str, message: str | None
) -> TaskScript:
    """Return the task with one change by hand."""
    return replace(task, changes=rewritten(task.changes, now, status, message))


def tell(
    job: JobScript, tasks: Sequence[TaskScript], stamp: Callable[[float], float]
) -> JobTruth:
    """Tell all that happens to a job.

    Args:
        job: The job.
        tasks: Its tasks.
        stamp: Turns scenario seconds into the server's Unix seconds.
    """
    moves = sorted(
        (after.at, task.id, before.status, after)
        for task in tasks
        for before, after in zip(task.changes, task.changes[1:], strict=False)
        if before.status != after.status
    )
    end = job.changes[-1]
    abnormal_count = sum(task.changes[-1].status == FAILED for task in tasks)
    return JobTruth(
        job_id=job.id,
        status=end.status,
        phase=phase(end.status, abnormal_count),
        finished_at=stamp(end.at) if end.status in {FINISHED, DELETED} else None,
        abnormal_count=abnormal_count,
        tasks={task.id: task.changes[-1].status for task in tasks},
        transitions=tuple(
            TrueTransition(task_id, before, after.status, stamp(at), after.message)
            for at, task_id, before, after in moves
        ),
    )


def phase(status: str, abnormal_count: int) -> str:
    """Return the watcher's word for a job that says this."""
    match status:
        case "FINISHED":
            return "failed" if abnormal_count else "succeeded"
        case "DELETED":
            return "deleted"
        case _:
            return "active"
