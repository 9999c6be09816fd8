"""`/api/v1/watcher`: how fresh what is shown is, and how the watcher's own work goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from watcher.core.model import JobRecord, Phase
from watcher.core.transitions import rfc3339
from watcher.pages.api.answers import answer
from watcher.pages.api.rows import Clock
from watcher.pages.api.views import Shown
from watcher.ports import Board, Request, Response

KEPT = 1.0
"""Seconds for which an answer holds: whoever asks meanwhile is given the same."""

Figures = Mapping[tuple[str, str], float]
"""Values of the watcher's own metrics by sample name and target or sink."""


@dataclass(slots=True)
class _Freshness:
    """How the jobs of one target have been answered.

    Attributes:
        oldest: The earliest last good answer among the jobs that are not finished.
        unanswered: Jobs that never had one.
        failing: By reason, how many jobs fail, and the newest message.
    """

    jobs: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(Phase, 0))
    oldest: float | None = None
    unanswered: int = 0
    failing: dict[str, tuple[int, str | None]] = field(default_factory=dict)

    def add(self, record: JobRecord) -> None:
        self.jobs[record.phase] += 1
        if record.phase.finished:
            return
        answered = record.last_success_at
        if answered is None:
            self.unanswered += 1
        elif self.oldest is None or answered < self.oldest:
            self.oldest = answered
        if record.failure is not None:
            reason = record.failure.reason
            count, _ = self.failing.get(reason, (0, None))
            self.failing[reason] = count + 1, record.failure.error_msg

    def shown_failing(self) -> list[Shown]:
        return [
            {"reason": reason, "jobs": count, "message": message}
            for reason, (count, message) in self.failing.items()
        ]


class WatcherPage:
    """The watcher itself: targets, store, sinks."""

    path = "/api/v1/watcher"
    parameters: Collection[str] = ()

    def __init__(
        self,
        board: Board,
        collect: Callable[[], Iterable[Metric]],
        manners: Callable[[], Mapping[str, Mapping[str, object]]],
        facts: Mapping[str, object],
        now: Clock,
        replica: Callable[[], Mapping[str, object] | None] = lambda: None,
    ) -> None:
        """Make the page.

        Args:
            board: What is known of the jobs, those of other replicas too.
            collect: The watcher's own metrics.
            manners: By target in force, how it is asked.
            facts: What does not change while it runs.
            now: Wall clock, Unix seconds.
            replica: This replica and whose each unit is; None where one daemon has all.
        """
        self._board = board
        self._replica = replica
        self._collect = collect
        self._manners = manners
        self._facts = facts
        self._now = now
        self._made: tuple[float, Response] | None = None

    async def respond(self, _: Request) -> Response:
        """Show it as it is now, or was a moment ago."""
        now = self._now()
        if self._made is None or not 0 <= now - self._made[0] < KEPT:
            self._made = now, answer(self._shown(now))
        return self._made[1]

    def _shown(self, now: float) -> Shown:
        figures, manners = _figures(self._collect()), self._manners()
        fresh = {name: _Freshness() for name in manners}
        others: defaultdict[str, _Freshness] = defaultdict(_Freshness)
        for key, record in self._board.records.items():
            (fresh if key.target in fresh else others)[key.target].add(record)
        return {
            **self._facts,
            "now": rfc3339(now),
            "targets": [
                _target(name, manner, fresh[name], figures)
                for name, manner in manners.items()
            ],
            "store": {
                "pending_jobs": figures.get(("watcher_store_pending_jobs", ""), 0),
                "commit_age_seconds": figures.get(
                    ("watcher_store_commit_age_seconds", ""), 0
                ),
            },
            "sinks": _sinks(figures),
            "replica": _replica(self._replica(), others),
            "configuration": {
                "valid": figures.get(("watcher_config_last_reload_successful", "")) == 1
            },
        }


def _target(
    name: str, manner: Mapping[str, object], fresh: _Freshness, figures: Figures
) -> Shown:
    def figure(sample: str) -> float:
        return figures.get((sample, name), 0)

    return {
        "name": name,
        **manner,
        "jobs": fresh.jobs,
        "oldest_answer_at": rfc3339(fresh.oldest),
        "unanswered": fresh.unanswered,
        "failing": fresh.shown_failing(),
        "key_locked": figure("watcher_credentials_locked") == 1,
        "clock_skew_seconds": round(figure("watcher_clock_skew_seconds"), 1),
        "polls": figure("watcher_polls_total"),
        "poll_failures": figure("watcher_poll_failures_total"),
        "lag_seconds": _mean(figures, "watcher_poll_lag_seconds", name),
        "request_seconds": _mean(figures, "watcher_poll_duration_seconds", name),
    }


def _replica(
    replica: Mapping[str, object] | None, others: Mapping[str, _Freshness]
) -> Shown | None:
    if replica is None:
        return None
    failing = [
        {"target": name, **each}
        for name, fresh in sorted(others.items())
        for each in fresh.shown_failing()
    ]
    return {**replica, "failing": failing}


def _sinks(figures: Figures) -> list[Shown]:
    names = [whose for sample, whose in figures if sample == "watcher_sink_backlog"]
    samples = {
        "backlog": "watcher_sink_backlog",
        "delivered": "watcher_sink_delivered_total",
        "failures": "watcher_sink_failures_total",
        "undeliverable": "watcher_sink_undeliverable_total",
        "dead_letters": "watcher_sink_dead_letters_total",
    }
    return [
        {"name": name}
        | {word: figures.get((sample, name), 0) for word, sample in samples.items()}
        for name in names
    ]


def _mean(figures: Figures, sample: str, target: str) -> float | None:
    count = figures.get((f"{sample}_count", target), 0)
    return round(figures[f"{sample}_sum", target] / count, 4) if count else None


def _figures(metrics: Iterable[Metric]) -> Figures:
    figures: dict[tuple[str, str], float] = {}
    for metric in metrics:
        for sample in metric.samples:
            if sample.name.endswith("_bucket"):
                continue
            labels = sample.labels
            place = sample.name, labels.get("target") or labels.get("sink") or ""
            figures[place] = figures.get(place, 0) + sample.value
    return figures
