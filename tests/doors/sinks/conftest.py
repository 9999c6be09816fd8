"""Steps, events and sinks for the tests of delivery."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import pytest
import structlog

from watcher.core.errors import SinkError
from watcher.core.model import (
    JobKey,
    JobRecord,
    JournalEvent,
    Level,
    Step,
    Transition,
)


def step(job_id: str, *event_ids: str, target: str = "prod") -> Step:
    key = JobKey(target, job_id)
    transitions = tuple(
        Transition(
            "task.transition",
            event_id,
            Level.INFO,
            key,
            {"project_id": "p", "job_id": job_id, "to": "SUCCESS"},
        )
        for event_id in event_ids
    )
    return Step(JobRecord(key), transitions)


class ScriptedSink:
    """Takes what the script lets it; remembers when it was asked for what."""

    def __init__(self, *, name: str = "hook", per_job: bool = True) -> None:
        self.name = name
        self.per_job = per_job
        self.attempts: list[tuple[float, str]] = []
        self.taken: list[str] = []
        self.refuse: Callable[[JournalEvent], Exception | None] = lambda _: None
        self.seconds: Callable[[JournalEvent], float] = lambda _: 0.0

    async def deliver(self, events: Sequence[JournalEvent]) -> None:
        assert not self.per_job or len(events) == 1
        for event in events:
            self.attempts.append((anyio.current_time(), event.transition.event_id))
            await anyio.sleep(self.seconds(event))
            if error := self.refuse(event):
                raise error
        self.taken += [event.transition.event_id for event in events]

    def times(self, event_id: str) -> list[float]:
        return [at for at, tried in self.attempts if tried == event_id]


def refusing(*event_ids: str) -> Callable[[JournalEvent], Exception | None]:
    """Refuse these events for ever."""
    return lambda event: (
        SinkError("no") if event.transition.event_id in event_ids else None
    )


@pytest.fixture
def lines():
    """What was logged, as dictionaries."""
    before = structlog.get_config()
    captured = structlog.testing.LogCapture()
    structlog.configure(processors=[captured])
    yield captured.entries
    structlog.configure(**before)
