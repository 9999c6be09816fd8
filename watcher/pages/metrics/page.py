"""`/metrics`: each job rendered to bytes once for each change, joined when asked for.

Source: Prometheus, "Writing exporters"; OpenMetrics 1.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import (
    AsyncIterator,
    Collection,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Literal

import anyio
import anyio.lowlevel
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,
)

from watcher.core.model import JobKey, JobRecord, Phase, shows_the_same
from watcher.pages.metrics.families import (
    ALL_TASKS,
    FAILED_TASKS,
    FAILURES,
    JOB_FAMILIES,
    LAST_SUCCESS,
    Family,
    escape,
)
from watcher.pages.metrics.own import OwnMetrics
from watcher.ports import Board, JobApi, Request, Response

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CHUNK = 2**18
SLICE = 50
"""Jobs that are rendered without a pause."""
_OF_TASKS = (FAILURES, ALL_TASKS, FAILED_TASKS)


class MetricsPage:
    """The series of all jobs and of the watcher itself.

    Attributes:
        path: Where it is served.
        own: The watcher's own metrics.
    """

    path = "/metrics"
    parameters: Collection[str] = ()

    def __init__(self, board: Board) -> None:
        """Make a page of a board, without targets."""
        self._board = board
        self._version = self._served = 0
        self._scraped = False
        self._turn = anyio.Lock()
        self._tasks: Literal["all", "failed", "none"] = "all"
        self._max_task_series = 100_000
        self._failure_reasons = True
        self._shown: dict[JobKey, JobRecord] = {}
        self._chunks: dict[Family, dict[JobKey, bytes]] = {
            family: {} for family in (*JOB_FAMILIES, LAST_SUCCESS, *_OF_TASKS)
        }
        self._phases: Counter[tuple[str, Phase]] = Counter()
        self._targets: tuple[str, ...] = ()
        self._task_series = 0
        self.own = OwnMetrics()

    def configure(
        self,
        tasks: Literal["all", "failed", "none"],
        max_task_series: int,
        *,
        failure_reasons: bool = True,
    ) -> None:
        """Choose what is told of tasks.

        Args:
            tasks: Which get a series of their own: all, the failed, or none.
            max_task_series: Above it, only the failed ones do.
            failure_reasons: Whether messages of failed tasks are told, folded.
        """
        self._failure_reasons = failure_reasons
        self._tasks = tasks
        self._max_task_series = max_task_series

    def show_apis(self, apis: Mapping[str, JobApi]) -> None:
        """Show exactly these targets."""
        self._targets = tuple(apis)
        self.own.show_apis(apis)

    async def _catch_up(self) -> None:
        """Render what changed since the last scrape, a slice at a time."""
        version = self._board.version
        changed = self._board.changed_since(self._version)
        if changed is None:
            changed = [*self._shown, *self._board.records]
        for number, key in enumerate(changed, 1):
            self._render(key)
            if number % SLICE == 0:
                await anyio.lowlevel.checkpoint()
        self._version = version  # only now, as the scraper may have left in between

    def _render(self, key: JobKey) -> None:
        known, record = self._shown.get(key), self._board.records.get(key)
        if record is None:
            self._drop(key)
            return
        self._shown[key] = record
        self._chunks[LAST_SUCCESS][key] = LAST_SUCCESS.render(record)
        if known is not None and shows_the_same(known, record):
            return
        for family in JOB_FAMILIES:
            self._chunks[family][key] = family.render(record)
        self._render_tasks(record)
        self._count(known, -1)
        self._count(record, 1)

    def _render_tasks(self, record: JobRecord) -> None:
        self._task_series -= self._lines(ALL_TASKS, record.key)
        for family in _OF_TASKS:
            self._chunks[family][record.key] = family.render(record)
        self._task_series += self._lines(ALL_TASKS, record.key)

    def _lines(self, family: Family, key: JobKey) -> int:
        return self._chunks[family].get(key, b"").count(b"\n")

    def _drop(self, key: JobKey) -> None:
        """Take away all series of a job at once."""
        self._count(self._shown.pop(key, None), -1)
        self._task_series -= self._lines(ALL_TASKS, key)
        for chunks in self._chunks.values():
            chunks.pop(key, None)

    def _count(self, record: JobRecord | None, by: int) -> None:
        if record is not None:
            self._phases[record.key.target, record.phase] += by

    def served(self, key: JobKey) -> bool:
        """Whether a scrape has sent a job as it is now."""
        return self._board.version_of(key) <= self._served

    @property
    def scraped(self) -> bool:
        """Whether anybody has scraped this process."""
        return self._scraped

    @property
    def degraded(self) -> bool:
        """Whether the ceiling of task series holds some back."""
        return self._tasks == "all" and self._task_series > self._max_task_series

    async def respond(self, request: Request) -> Response:
        """Render everything in the format that the scraper prefers."""
        modern = "application/openmetrics-text" in request.headers.get("accept", "")
        own = (generate_openmetrics if modern else generate_latest)(self.own.registry)
        async with self._turn:
            await self._catch_up()
            parts = [part for each in self._exposed() for part in self._family(each)]
            version = self._version
        return Response(
            _in_chunks([*parts, self._summary(), own]),
            OPENMETRICS if modern else CONTENT_TYPE_LATEST,
            sent=partial(self._note_sent, version),
        )

    def _note_sent(self, version: int) -> None:
        self._served, self._scraped = max(self._served, version), True

    def _exposed(self) -> list[Family]:
        families = [*JOB_FAMILIES, LAST_SUCCESS]
        if self._failure_reasons:
            families.append(FAILURES)
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
