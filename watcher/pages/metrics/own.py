"""What the watcher tells of its own work: counters, histograms and a few gauges."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from watcher import __version__
from watcher.core.errors import Reason
from watcher.core.model import EventName, Transition
from watcher.core.trust import Trust
from watcher.pages.metrics.families import status_word
from watcher.pages.metrics.leases import LeaseCollector
from watcher.ports import JobApi, LeaseState, SinkState

CALLS = ("detail", "list", "token")
_REQUEST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_COMMIT_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
_LATENCY_SECONDS = (0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 900, 3600)


class _Bound(dict[tuple[str, ...], tuple[Any, ...]]):
    """The series of some families by their labels' values, each looked up once."""

    def __init__(self, *families: MetricWrapperBase) -> None:
        self._families = families

    def __missing__(self, values: tuple[str, ...]) -> tuple[Any, ...]:
        found = tuple(family.labels(*values) for family in self._families)
        self[values] = found
        return found


class OwnMetrics:
    """A registry of the watcher's own metrics, and the ways to move them."""

    def __init__(self) -> None:
        """Begin at zero, without targets."""
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        prometheus.GCCollector(registry=self.registry)
        self._targets: frozenset[str] = frozenset()
        self._reload_worked = False
        self._sources_read: Callable[[], bool] = lambda: True
        self._count_requests()
        self._time_requests()
        self._show_doors()
        self._show_reloads()
        self._show_store()
        self._count_logins()
        self._of_polls = _Bound(self._polls, self._durations, self._lags)
        self._of_requests = _Bound(self._requests)
        self._gauge(
            "watcher_build_info", "What runs.", "version", "python_version"
        ).labels(__version__, platform.python_version()).set(1)

    def _count_requests(self) -> None:
        self._polls = self._counter("watcher_polls", "Polls of jobs.")
        self._poll_failures = self._counter(
            "watcher_poll_failures", "Polls without a good answer.", "reason"
        )
        self._list_failures = self._counter(
            "watcher_list_failures", "List calls without a good answer.", "reason"
        )
        self._transitions = self._counter(
            "watcher_transitions", "Task transitions that were told.", "to"
        )
        self._requests = self._counter(
            "watcher_api_requests", "Requests sent to the cloud.", "call"
        )

    def _time_requests(self) -> None:
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

    def _show_doors(self) -> None:
        self._locked = self._gauge(
            "watcher_credentials_locked",
            "Whether requests are held back because the access key was refused.",
            "target",
        )
        self._skew = self._gauge(
            "watcher_clock_skew_seconds",
            "This machine's clock minus the server's.",
            "target",
        )

    def _show_reloads(self) -> None:
        self._gauge(
            "watcher_config_last_reload_successful",
            "Whether the configuration that was last read is in force, job files too.",
        ).set_function(lambda: self._reload_worked and self._sources_read())
        self._reload_success = self._gauge(
            "watcher_config_last_reload_success_timestamp_seconds",
            "When a configuration was last put in force.",
        )

    def _show_store(self) -> None:
        self._commits = prometheus.Histogram(
            "watcher_store_commit_seconds",
            "Time of one commit.",
            buckets=_COMMIT_SECONDS,
            registry=self.registry,
        )
        self._commit_age = self._gauge(
            "watcher_store_commit_age_seconds",
            "For how long the present commit has lasted; 0 without one.",
        )
        self._pending = self._gauge(
            "watcher_store_pending_jobs",
            "Jobs with transitions that the store has not taken yet.",
        )

    def _count_logins(self) -> None:
        self._login_failures = prometheus.Counter(
            "watcher_login_failures",
            "Wrong passwords for the pages.",
            registry=self.registry,
        )

    def _counter(self, name: str, what: str, *labels: str) -> prometheus.Counter:
        return prometheus.Counter(
            name, what, ["target", *labels], registry=self.registry
        )

    def _gauge(self, name: str, what: str, *labels: str) -> prometheus.Gauge:
        return prometheus.Gauge(name, what, labels, registry=self.registry)

    def _histogram(
        self, name: str, what: str, buckets: Sequence[float]
    ) -> prometheus.Histogram:
        return prometheus.Histogram(
            name, what, ["target"], buckets=buckets, registry=self.registry
        )

    def polled(
        self, target: str, seconds: float, lag: float, failure: Reason | None
    ) -> None:
        """Count one poll."""
        polls, durations, lags = self._of_polls[target,]
        polls.inc()
        durations.observe(seconds)
        lags.observe(max(0.0, lag))
        if failure is not None:
            self._poll_failures.labels(target, failure).inc()

    def listed(self, target: str, failure: Reason | None) -> None:
        """Count a page of the list call that did not come."""
        if failure is not None:
            self._list_failures.labels(target, failure).inc()

    def requested(self, target: str, call: str) -> None:
        """Count one request that was sent."""
        (requests,) = self._of_requests[target, call]
        requests.inc()

    def committed(self, seconds: float) -> None:
        """Count one commit."""
        self._commits.observe(seconds)

    def told(self, transitions: Iterable[Transition]) -> None:
        """Count what was told."""
        for transition in transitions:
            self._count(transition)

    def _count(self, transition: Transition) -> None:
        """Count a transition of a task; one first seen has no latency of detection."""
        if transition.event != EventName.TASK_TRANSITION:
            return
        target, fields = transition.key.target, transition.fields
        self._transitions.labels(target, status_word(fields["to"])).inc()
        latency = fields["detection_latency_seconds"]
        if latency is not None and fields["from"] is not None:
            self._latencies.labels(target).observe(latency)

    def reloaded(self, at: float | None) -> None:
        """Note when a configuration was put in force; None: it was refused."""
        self._reload_worked = at is not None
        if at is not None:
            self._reload_success.set(at)

    def show_sources(self, read: Callable[[], bool]) -> None:
        """Show whether all sources of jobs could be read, asked for at every scrape."""
        self._sources_read = read

    def show_apis(self, apis: Mapping[str, JobApi]) -> None:
        """Show exactly these targets; their state is read at every scrape."""
        for name in self._targets - apis.keys():
            self._skew.remove(name)
            self._locked.remove(name)
        for name in apis.keys() - self._targets:
            self._begin_counting(name)
        self._targets = frozenset(apis)
        for name, api in apis.items():
            self._skew.labels(name).set_function(partial(_skew_of, api))
            self._locked.labels(name).set_function(partial(_lock_of, api))

    def show_addresses(self, addresses: Callable[[], tuple[str, str]]) -> None:
        """Show where people find the pages and the runbooks, asked for at every scrape."""
        self.registry.register(_AddressCollector(addresses))

    def login_failed(self) -> None:
        """Count a wrong password."""
        self._login_failures.inc()

    def show_store(
        self, pending: Callable[[], float], commit_age: Callable[[], float]
    ) -> None:
        """Show the store's work, read at every scrape.

        Args:
            pending: Jobs that wait for it.
            commit_age: Seconds for which the present commit has lasted.
        """
        self._pending.set_function(pending)
        self._commit_age.set_function(commit_age)

    def show_leases(self, leases: LeaseState) -> None:
        """Show whose the units of lease are, read at every scrape."""
        self.registry.register(LeaseCollector(leases))

    def show_trust(self, targets: Mapping[str, ListedTarget]) -> None:
        """Show what the list call of each target has earned, read at every scrape."""
        self.registry.register(_TrustCollector(targets))

    def show_sinks(self, sinks: Sequence[SinkState]) -> None:
        """Show the delivery state of these sinks, read at every scrape."""
        self.registry.register(_SinkCollector(sinks))

    def _begin_counting(self, name: str) -> None:
        for metric in (self._polls, self._durations, self._lags, self._latencies):
            metric.labels(name)
        for call in CALLS:
            self._requests.labels(name, call)
        for reason in Reason:
            self._poll_failures.labels(name, reason)
            self._list_failures.labels(name, reason)
        for word in ("PROCESSING", "SUCCESS", "FAILED"):
            self._transitions.labels(name, word)


def _skew_of(api: JobApi) -> float:
    return api.clock_skew


def _lock_of(api: JobApi) -> float:
    return float(api.locked)


class ListedTarget(Protocol):
    """A target whose list call earns trust."""

    @property
    def trust(self) -> Trust:
        """What it has earned."""


class _TrustCollector(Collector):
    def __init__(self, targets: Mapping[str, ListedTarget]) -> None:
        self._targets = targets

    def collect(self) -> Iterable[Metric]:
        interval = GaugeMetricFamily(
            "watcher_list_task_interval_seconds",
            "Time between two looks at single tasks while the list call is relied on.",
            labels=["target"],
        )
        misses = CounterMetricFamily(
            "watcher_list_misses",
            "Looks at a job that found a task moved and its row in the list not.",
            labels=["target"],
        )
        for name, target in self._targets.items():
            interval.add_metric([name], target.trust.interval)
            misses.add_metric([name], target.trust.misses)
        return [interval, misses]


class _SinkCollector(Collector):
    def __init__(self, sinks: Sequence[SinkState]) -> None:
        self._sinks = sinks

    def collect(self) -> Iterable[Metric]:
        backlog = GaugeMetricFamily(
            "watcher_sink_backlog",
            "Events that the sink has not taken yet.",
            labels=["sink"],
        )
        delivered = CounterMetricFamily(
            "watcher_sink_delivered", "Events that the sink took.", labels=["sink"]
        )
        failed = CounterMetricFamily(
            "watcher_sink_failures", "Attempts that it refused.", labels=["sink"]
        )
        dead = CounterMetricFamily(
            "watcher_sink_dead_letters",
            "Events that went past retention without being taken.",
            labels=["sink"],
        )
        undeliverable = CounterMetricFamily(
            "watcher_sink_undeliverable",
            "Events that it refused for ever.",
            labels=["sink"],
        )
        for sink in self._sinks:
            backlog.add_metric([sink.name], sink.backlog)
            delivered.add_metric([sink.name], sink.delivered)
            failed.add_metric([sink.name], sink.failed)
            dead.add_metric([sink.name], sink.dead_lettered)
            undeliverable.add_metric([sink.name], sink.undeliverable)
        return [backlog, delivered, failed, dead, undeliverable]


class _AddressCollector(Collector):
    def __init__(self, addresses: Callable[[], tuple[str, str]]) -> None:
        self._addresses = addresses

    def collect(self) -> Iterable[Metric]:
        info = GaugeMetricFamily(
            "watcher_page_info",
            "Where people find the pages, and the runbooks of alerts.",
            labels=["public_url", "runbook_url"],
        )
        info.add_metric(self._addresses(), 1)
        return [info]
