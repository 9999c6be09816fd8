"""`/metrics`: each job rendered to bytes when it changes, joined when it is asked for.

Source: Prometheus, "Writing exporters"; OpenMetrics 1.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import (
    AsyncIterator,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Literal

import anyio.lowlevel
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,
)

from watcher.core.errors import Reason
from watcher.core.model import JobKey, JobRecord, Phase, Step
from watcher.pages.metrics.families import (
    ALL_TASKS,
    FAILED_TASKS,
    JOB_FAMILIES,
    LAST_SUCCESS,
    Family,
    escape,
)
from watcher.pages.metrics.own import OwnMetrics
from watcher.ports import JobApi, Request, Response

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CHUNK = 2**18


class MetricsPage:
    """The series of all jobs and of the watcher itself.

    Attributes:
        path: Where it is served.
        own: The watcher's own metrics.
    """

    path = "/metrics"

    def __init__(self) -> None:
        """Make a page without targets and jobs."""
        self._unserved: set[JobKey] = set()
        self._tasks: Literal["all", "failed", "none"] = "all"
        self._max_task_series = 100_000
        self._records: dict[JobKey, JobRecord] = {}
        self._chunks: dict[Family, dict[JobKey, bytes]] = {
            family: {}
            for family in (*JOB_FAMILIES, LAST_SUCCESS, ALL_TASKS, FAILED_TASKS)
        }
        self._phases: Counter[tuple[str, Phase]] = Counter()
        self._targets: tuple[str, ...] = ()
        self._task_series = 0
        self.own = OwnMetrics()

    def configure(
        self, tasks: Literal["all", "failed", "none"], max_task_series: int
    ) -> None:
        """Choose which tasks get a series of their own.

        Args:
            tasks: All, the failed, or none.
            max_task_series: Above it, only the failed ones do.
        """
        self._tasks = tasks
        self._max_task_series = max_task_series

    def show_apis(self, apis: Mapping[str, JobApi]) -> None:
        """Show exactly these targets."""
        self._targets = tuple(apis)
        self.own.show_apis(apis)

    def polled(
        self, target: str, seconds: float, lag: float, failure: Reason | None
    ) -> None:
        """Count one poll."""
        self.own.polled(target, seconds, lag, failure)

    def published(self, steps: Iterable[Step]) -> None:
        """Render what changed, and count the transitions."""
        for step in steps:
            self._render(step.record)
            for each in step.transitions:
                self.own.told(each)

    def _render(self, record: JobRecord) -> None:
        key = record.key
        known = self._records.get(key)
        self._records[key] = record
        self._chunks[LAST_SUCCESS][key] = LAST_SUCCESS.render(record)
        if known is not None and _looks_the_same(known, record):
            return
        for family in JOB_FAMILIES:
            self._chunks[family][key] = family.render(record)
        self._render_tasks(record)
        self._unserved.add(key)
        if known is not None:
            self._phases[key.target, known.phase] -= 1
        self._phases[key.target, record.phase] += 1

    def _render_tasks(self, record: JobRecord) -> None:
        self._task_series -= self._lines(ALL_TASKS, record.key)
        for family in (ALL_TASKS, FAILED_TASKS):
            self._chunks[family][record.key] = family.render(record)
        self._task_series += self._lines(ALL_TASKS, record.key)

    def _lines(self, family: Family, key: JobKey) -> int:
        return self._chunks[family].get(key, b"").count(b"\n")

    def forgotten(self, keys: Collection[JobKey]) -> None:
        """Drop all series of jobs that are no longer watched, at once."""
        for key in keys:
            record = self._records.pop(key, None)
            if record is None:
                continue
            self._task_series -= self._lines(ALL_TASKS, key)
            for chunks in self._chunks.values():
                chunks.pop(key, None)
            self._unserved.discard(key)
            self._phases[key.target, record.phase] -= 1

    def served(self, key: JobKey) -> bool:
        """Whether a scrape has shown a job as it is now."""
        return key not in self._unserved

    @property
    def degraded(self) -> bool:
        """Whether the ceiling of task series holds some back."""
        return self._tasks == "all" and self._task_series > self._max_task_series

    async def respond(self, request: Request) -> Response:
        """Render everything in the format that the scraper prefers."""
        self._unserved.clear()
        modern = "application/openmetrics-text" in request.headers.get("accept", "")
        own = (generate_openmetrics if modern else generate_latest)(self.own.registry)
        parts = [part for family in self._exposed() for part in self._family(family)]
        parts += [self._summary(), own]
        return Response(
            _in_chunks(parts), OPENMETRICS if modern else CONTENT_TYPE_LATEST
        )

    def _exposed(self) -> list[Family]:
        families = [*JOB_FAMILIES, LAST_SUCCESS]
        if self._tasks == "failed" or self.degraded:
            families.append(FAILED_TASKS)
        elif self._tasks == "all":
            families.append(ALL_TASKS)
        return families

    def _family(self, family: Family) -> list[bytes]:
        return [family.header(), *self._chunks[family].values()]

    def _summary(self) -> bytes:
        jobs = Family("watcher_jobs", "Watched jobs by phase.", lambda _: ())
        degraded = Family(
            "watcher_metrics_degraded",
            "Whether metrics.max_task_series holds task series back.",
            lambda _: (),
        )
        lines = "".join(
            f'watcher_jobs{{target="{escape(target)}",phase="{phase}"}} '
            f"{self._phases[target, phase]}\n"
            for target in self._targets
            for phase in Phase
        )
        flag = f"watcher_metrics_degraded {int(self.degraded)}\n"
        return jobs.header() + lines.encode() + degraded.header() + flag.encode()


def _looks_the_same(known: JobRecord, record: JobRecord) -> bool:
    return (
        known.job is record.job
        and known.tasks is record.tasks
        and known.phase is record.phase
        and known.finished_at == record.finished_at
        and known.absences == record.absences
        and known.project_id == record.project_id
    )


async def _in_chunks(parts: Sequence[bytes]) -> AsyncIterator[bytes]:
    chunk: list[bytes] = []
    size = 0
    for part in parts:
        chunk.append(part)
        size += len(part)
        if size >= CHUNK:
            yield b"".join(chunk)
            await anyio.lowlevel.checkpoint()
            chunk, size = [], 0
    yield b"".join(chunk)
