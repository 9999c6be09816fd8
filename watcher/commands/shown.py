"""How jobs look in a few lines: pure, the same in `wait` and `status`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from watcher.commands.terminal import Line, Span, cells, padded
from watcher.core.insight import Folded
from watcher.core.model import Phase, TaskPhase
from watcher.core.transitions import OPEN, task_phase
from watcher.fields import UNITS

AWAITED = "awaited"
"""The phase of a job that is not there yet."""
NO_MESSAGE = "no message"
MOST_FOLDED = 3
"""Groups of failures that are shown of one job."""
FIRST_OF_ID = 8
BAR = 10
_LOOKS: Mapping[str, tuple[str, str]] = {
    Phase.FAILED: ("✗", "red"),
    Phase.GONE: ("✗", "red"),
    Phase.DELETED: ("✗", "red"),
    Phase.ACTIVE: ("●", "cyan"),
    Phase.SUCCEEDED: ("✓", "green"),
}
_WIDE, _WIDEST = 60, 100
"""Columns from which on there is a bar, and a whole id."""


@dataclass(frozen=True, slots=True)
class ShownJob:
    """What is shown of a job.

    Attributes:
        phase: A phase's name, or `AWAITED`.
        statuses: Tasks by status word.
        failures: What the failed ones said, folded.
        age: Seconds since it was created, or first seen.
    """

    target: str
    job_id: str
    name: str | None = None
    phase: str = Phase.UNKNOWN
    statuses: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[Folded] = ()
    age: float | None = None

    @property
    def total(self) -> int:
        """How many tasks it has."""
        return sum(self.statuses.values())

    @property
    def done(self) -> int:
        """How many of them are over."""
        return sum(
            count
            for word, count in self.statuses.items()
            if task_phase(word) not in OPEN
        )

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return sum(
            count
            for word, count in self.statuses.items()
            if task_phase(word) is TaskPhase.FAILED
        )

    def without_failures(self) -> ShownJob:
        """Return the same, for who shows each failed server."""
        return replace(self, failures=())

    @property
    def rank(self) -> int:
        """Its place: failed, active with failures, active, unknown, then the rest."""
        if self.phase in {Phase.FAILED, Phase.GONE, Phase.DELETED}:
            return 0
        if self.phase == Phase.ACTIVE:
            return 2 - bool(self.failed)
        return 4 if self.phase == Phase.SUCCEEDED else 3


def job_lines(jobs: Iterable[ShownJob], columns: int | None) -> Iterator[Line]:
    """Yield the lines of jobs, in the order of their rank."""
    for job in sorted(jobs, key=lambda job: job.rank):
        yield _job_line(job, columns)
        for group in job.failures[:MOST_FOLDED]:
            yield from _folded_lines(group, columns)
        more = job.failures[MOST_FOLDED:]
        if more:
            tasks = sum(each.count for each in more)
            yield [Span(f"    {tasks} more for {len(more)} other reasons", "dim")]


def _job_line(job: ShownJob, columns: int | None) -> Line:
    width = columns or _WIDEST
    mark, colour = _LOOKS.get(job.phase, ("?", "yellow"))
    spans = [
        Span(f"{mark} {padded(job.phase, 9)} ", colour),
        Span(padded(f"{job.done}/{job.total}", 8)),
    ]
    if width >= _WIDE:
        spans.append(Span(f"{bar(job.done, job.total)} ", colour))
    if job.failed:
        spans.append(Span(f"{job.failed} failed ", "red"))
    spans.append(Span(f"{job.name} " if job.name else "", "bold"))
    short = width < _WIDEST and job.name
    spans.append(Span(job.job_id[:FIRST_OF_ID] if short else job.job_id))
    if job.age is not None and width >= _WIDE:
        spans.append(Span(f" {lasted(job.age)}", "dim"))
    return spans


def _folded_lines(group: Folded, columns: int | None) -> Iterator[Line]:
    named = ", ".join(group.servers)
    more = group.count - len(group.servers)
    if group.servers and more > 0:
        named += f" and {more} more"
    servers = Span(named, "dim")
    line = [Span(f"    {group.count}x ", "red"), Span(group.message or NO_MESSAGE)]
    if columns is not None and columns < _WIDE:
        yield line
        yield [Span("       "), servers]
    else:
        yield [*line, Span("  "), servers]


def failed_lines(tasks: Iterable[tuple[str, str | None]]) -> Iterator[Line]:
    """Yield a line for each failed task, given its server and its message."""
    rows = [(server, message or NO_MESSAGE) for server, message in tasks]
    width = max((cells(server) for server, _ in rows), default=0)
    for server, message in rows:
        yield [Span(f"    {padded(server, width)}  ", "bold"), Span(message)]


def bar(done: int, total: int) -> str:
    """Draw how much is done."""
    filled = BAR * done // total if total else 0
    return "█" * filled + "░" * (BAR - filled)


def lasted(seconds: float) -> str:
    """Write seconds in their two largest units, such as `3m12s`."""
    left, parts = max(0, int(seconds)), list[str]()
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(UNITS[unit]))
        if count or parts:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"
