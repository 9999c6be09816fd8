"""`/metrics`: each job rendered to bytes when it changes, joined when it is asked for.

prometheus_client holds the watcher's own counters and histograms only.

Source: Prometheus, "Writing exporters"; OpenMetrics 1.0.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any, Literal

import anyio.lowlevel
import prometheus_client as prometheus
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,
)

from watcher import __version__
from watcher.core.errors import Reason
from watcher.core.model import JobKey, JobRecord, Phase, Step
from watcher.pages.metrics.families import (
    ALL_TASKS,
    FAILED_TASKS,
    JOB_FAMILIES,
    LAST_SUCCESS,
    Family,
    escape,
    status_word,
)
from watcher.ports import JobApi, Request, Response

TEXT = prometheus.CONTENT_TYPE_LATEST
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CHUNK = 2**18
_REQUEST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LATENCY_SECONDS = (0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 900, 3600)


class MetricsPage:
    """The series of all jobs and of the watcher itself."""

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
        self.registry = prometheus.CollectorRegistry()
        self._add_own_metrics()

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

    def _add_own_metrics(self) -> None:
        own = self.registry
        prometheus.ProcessCollector(registry=own)
        prometheus.GCCollector(registry=own)
        target = ["target"]
        self._polls = prometheus.Counter(
            "watcher_polls", "Polls of jobs.", target, registry=own
        )
        self._poll_failures = prometheus.Counter(
            "watcher_poll_failures",
            "Polls without a good answer.",
            ["target", "reason"],
            registry=own,
        )
        self._transitions = prometheus.Counter(
            "watcher_transitions",
            "Task transitions that were told.",
            ["target", "to"],
            registry=own,
        )
        self._durations = self._histogram(
            "watcher_poll_duration_seconds", "Time of one request.", _REQUEST_SECONDS
        )
        self._lags = self._histogram(
            "watcher_poll_lag_seconds",
            "How late a due poll was sent.",
            _LATENCY_SECONDS,
        )
        self._latencies = self._histogram(
            "watcher_detection_latency_seconds",
            "From the API's update_at to the observation, corrected for clock skew.",
            _LATENCY_SECONDS,
        )
        self._requests = prometheus.Counter(
            "watcher_api_requests",
            "Requests sent to the cloud.",
            ["target", "call"],
            registry=own,
        )
        self._locked = prometheus.Gauge(
            "watcher_credentials_locked",
            "Whether requests are held back because the access key was refused.",
            target,
            registry=own,
        )
        self._skew = prometheus.Gauge(
            "watcher_clock_skew_seconds",
            "This machine's clock minus the server's.",
            target,
            registry=own,
        )
        build = prometheus.Gauge(
            "watcher_build_info",
            "What runs.",
            ["version", "python_version"],
            registry=own,
        )
        build.labels(__version__, platform.python_version()).set(1)
        self._reload_worked = prometheus.Gauge(
            "watcher_config_last_reload_successful",
            "Whether the last reading of the configuration was put in force.",
            registry=own,
        )
        self._reload_success = prometheus.Gauge(
            "watcher_config_last_reload_success_timestamp_seconds",
            "When a configuration was last put in force.",
            registry=own,
        )

    def _histogram(
        self, name: str, what: str, buckets: Sequence[float]
    ) -> prometheus.Histogram:
        return prometheus.Histogram(
            name, what, ["target"], buckets=buckets, registry=self.registry
        )

    def reloaded(self, at: float | None) -> None:
        """Note when a configuration was put in force; None: it was refused."""
        self._reload_worked.set(at is not None)
        if at is not None:
            self._reload_success.set(at)

    def show_apis(self, apis: Mapping[str, JobApi]) -> None:
        """Show exactly these targets; their state is read at every scrape."""
        for name in set(self._targets) - set(apis):
            self._skew.remove(name)
            self._locked.remove(name)
        for name in set(apis) - set(self._targets):
            self._begin_counting(name)
        self._targets = tuple(apis)
        for name, api in apis.items():
            self._skew.labels(name).set_function(partial(_skew_of, api))
            self._locked.labels(name).set_function(partial(_lock_of, api))

    def _begin_counting(self, name: str) -> None:
        for metric in (self._polls, self._durations, self._lags, self._latencies):
            metric.labels(name)
        for call in ("detail", "list", "token"):
            self._requests.labels(name, call)
        for reason in Reason:
            self._poll_failures.labels(name, reason)
        for word in ("PROCESSING", "SUCCESS", "FAILED"):
            self._transitions.labels(name, word)

    def requested(self, target: str, call: str) -> None:
        """Count one request that was sent."""
        self._requests.labels(target, call).inc()

    def polled(
        self, target: str, seconds: float, lag: float, failure: Reason | None
    ) -> None:
        """Count one poll."""
        self._polls.labels(target).inc()
        self._durations.labels(target).observe(seconds)
        self._lags.labels(target).observe(max(0.0, lag))
        if failure is not None:
            self._poll_failures.labels(target, failure).inc()

    def published(self, steps: Iterable[Step]) -> None:
        """Render what changed, and count the transitions."""
        for step in steps:
            self._render(step.record)
            for each in step.transitions:
                if each.event == "task.transition":
                    self._count(each.key.target, each.fields)

    def _count(self, target: str, fields: Mapping[str, Any]) -> None:
        self._transitions.labels(target, status_word(fields["to"])).inc()
        latency = fields["detection_latency_seconds"]
        if latency is not None and fields["from"] is not None:
            self._latencies.labels(target).observe(latency)

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
        own = (generate_openmetrics if modern else generate_latest)(self.registry)
        parts = [part for family in self._exposed() for part in self._family(family)]
        parts += [self._summary(), own]
        return Response(_in_chunks(parts), OPENMETRICS if modern else TEXT)

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


def _skew_of(api: JobApi) -> float:
    return api.clock_skew


def _lock_of(api: JobApi) -> float:
    return float(api.locked)


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
