"""`/metrics`: made once for each change, joined when asked for.

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
from watcher.core.tracker import listed
from watcher.encoding import accepts_gzip, gzip_member
from watcher.pages.metrics.blocks import Blocks, Pauses
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
        self._blocks = Blocks()
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

    async def _catch_up(self, pauses: Pauses) -> None:
        """Take in what changed since the last scrape."""
        version = self._board.version
        changed = self._board.changed_since(self._version)
        if changed is None:
            changed = [*self._blocks, *self._board.records]
        for key in changed:
            self._take_in(key)
            await pauses.rest()
        self._version = version  # only now, as the scraper may have left in between

    def _take_in(self, key: JobKey) -> None:
        known, record = self._blocks.get(key), self._board.records.get(key)
        if record is None:
            self._blocks.drop(key)
        else:
            self._blocks.put(record)
        if not (known and record and shows_the_same(known, record)):
            self._count(known, -1)
            self._count(record, 1)

    def _count(self, record: JobRecord | None, by: int) -> None:
        if record is not None:
            self._phases[record.key.target, record.phase] += by
            self._task_series += by * sum(1 for _ in listed(record))

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
        packed = accepts_gzip(request.headers.get("accept-encoding", ""))
        own = (generate_openmetrics if modern else generate_latest)(self.own.registry)
        async with self._turn:
            pauses = Pauses()
            await self._catch_up(pauses)
            parts = [
                part
                for family in self._exposed()
                async for part in self._blocks.parts(family, pauses, packed=packed)
            ]
            version, rest = self._version, self._summary() + own
        return Response(
            _in_chunks([*parts, gzip_member(rest) if packed else rest]),
            OPENMETRICS if modern else CONTENT_TYPE_LATEST,
            headers={"Content-Encoding": "gzip"} if packed else {},
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
