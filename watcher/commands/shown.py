"""How jobs look in a few lines: pure, the same in `wait` and `status`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from watcher.commands.terminal import Line, Span, cells, clipped, padded
from watcher.core.insight import Folded
from watcher.core.model import Phase, TaskPhase
from watcher.core.transitions import OPEN, task_phase
from watcher.encoding import printable
from watcher.fields import lasted

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
_SHORT_NAME, _LONGEST_NAME = 20, 40
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
    """Yield the lines of jobs, one below the other.

    Args:
        jobs: In the order in which they are shown.
        columns: How wide it may be. None: any width, and then one line a job.
    """
    shown = list(jobs)
    widths = _Widths.of(shown, columns)
    for job in shown:
        line = _job_line(job, columns, widths)
        if columns is None:
            yield [*line, *_reasons(job)]
            continue
        yield line
        for group in job.failures[:MOST_FOLDED]:
            yield from _folded_lines(group, columns)
        if more := _more(job):
            yield [Span(f"    {more}", "dim")]


class _Widths(NamedTuple):
    """How wide columns are: of what failed, and of names; whether targets are named."""

    failed: int
    name: int
    targets: bool

    @classmethod
    def of(cls, jobs: Sequence[ShownJob], columns: int | None) -> _Widths:
        failed = max((len(_failed(job)) for job in jobs), default=0)
        longest = max((cells(printable(job.name or "")) for job in jobs), default=0)
        most = _LONGEST_NAME if (columns or _WIDEST) >= _WIDEST else _SHORT_NAME
        return cls(failed, min(longest, most), len({j.target for j in jobs}) > 1)


def _failed(job: ShownJob) -> str:
    return f"{job.failed} failed" if job.failed else ""


def _job_line(job: ShownJob, columns: int | None, widths: _Widths) -> Line:
    width = columns or _WIDEST
    mark, colour = _LOOKS.get(job.phase, ("?", "yellow"))
    spans = [
        Span(f"{mark} {padded(job.phase, 9)} ", colour),
        Span(padded(f"{job.done}/{job.total} ", 8)),
    ]
    if width >= _WIDE:
        spans.append(Span(f"{bar(job.done, job.total)} ", colour))
    if widths.failed:
        spans.append(Span(f"{padded(_failed(job), widths.failed)} ", "red"))
    if widths.name:
        name = clipped(printable(job.name or ""), widths.name)
        spans.append(Span(f"{padded(name, widths.name)} ", "bold"))
    short = width < _WIDEST and job.name
    shown_id = job.job_id[:FIRST_OF_ID] if short else job.job_id
    spans.append(Span(f"{job.target}/{shown_id}" if widths.targets else shown_id))
    if job.age is not None and width >= _WIDE:
        spans.append(Span(f" {lasted(job.age)}", "dim"))
    return spans


def _reasons(job: ShownJob) -> Iterator[Span]:
    """Yield the folded failures of a job for the end of its line."""
    for number, group in enumerate(job.failures[:MOST_FOLDED]):
        yield Span("; " if number else "  ")
        yield Span(f"{group.count}x {group.message or NO_MESSAGE} ({_named(group)})")
    if more := _more(job):
        yield Span(f"; {more}")


def _more(job: ShownJob) -> str:
    more = job.failures[MOST_FOLDED:]
    tasks = sum(each.count for each in more)
    return f"{tasks} more for {len(more)} other reasons" if more else ""


def _named(group: Folded) -> str:
    more = group.count - len(group.servers)
    named = ", ".join(group.servers)
    return f"{named} and {more} more" if group.servers and more > 0 else named


def _folded_lines(group: Folded, columns: int) -> Iterator[Line]:
    servers = Span(_named(group), "dim")
    line = [Span(f"    {group.count}x ", "red"), Span(group.message or NO_MESSAGE)]
    if columns < _WIDE:
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
