"""Steps for the tests of the stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.doors.store.postgres import postgres  # noqa: F401 - a fixture
from watcher.core.model import JobKey, JobRecord, Level, Step, Transition
from watcher.store import SqliteStore


def transition(event_id: str, job_id: str = "a", target: str = "prod") -> Transition:
    fields = {"project_id": "p", "job_id": job_id, "from": None, "tasks": {"X": 1}}
    key = JobKey(target, job_id)
    return Transition("task.transition", event_id, Level.INFO, key, fields)


def step(job_id: str, *event_ids: str, polls: float = 0.0) -> Step:
    record = JobRecord(JobKey("prod", job_id), last_poll_at=polls)
    return Step(record, tuple(transition(one, job_id) for one in event_ids))


def ids(events) -> list[str]:
    return [event.transition.event_id for event in events]


class Clock:
    """A wall clock set by hand."""

    def __init__(self, at: float = 1_700_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@asynccontextmanager
async def opened(
    path: Path, *, now: Callable[[], float] | None = None, **options
) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, now=now or Clock(), **{"sinks": ["log"], **options})
    try:
        await store.open()
        yield store
    finally:
        await store.close()
