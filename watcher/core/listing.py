"""What the list call tells about many jobs at once, and whether it is worth asking.

A list row has no tasks, so a job whose row changed is asked for by itself at once, and
every job is asked now and then all the same. Paging is undocumented: what a sweep over
the pages brings is measured against what is watched, and a list that is refused, short
or silent about the watched jobs is given up for a while. A job that is absent from a
list is asked for; absence proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from watcher.core.model import Job, ListPage
from watcher.core.schedule import backoff
from watcher.core.transitions import PROCESSING

PAGE_LIMIT = 1000
MOST_PAGES = 1000
GIVEN_UP_FOR = 600.0
LONGEST_PAUSE = 32  # intervals
USELESS_SWEEPS = 2
USEFUL_SHARE = 0.5


class Mode(StrEnum):
    """How the jobs of a target are asked for."""

    AUTO = "auto"
    DETAIL = "detail"
    LIST = "list"


@dataclass(slots=True)
class Sweep:
    """One pass over the pages of a list.

    Attributes:
        rows: What came, by job id.
        pages: Pages read.
        over: Whether there is no further page to ask for.
        complete: Whether all that the server counts has come.
    """

    rows: dict[str, Job] = field(default_factory=dict)
    pages: int = 0
    over: bool = False
    complete: bool = False

    @property
    def offset(self) -> int:
        """Rows to pass over at the next page."""
        return len(self.rows)

    def take(self, page: ListPage) -> None:
        """Add a page; one that brings nothing new ends the sweep."""
        before = len(self.rows)
        self.rows.update((row.id, row) for row in page.rows)
        self.pages += 1
        stuck = len(self.rows) == before
        full = page.total is not None and len(self.rows) >= page.total
        self.complete = full or (page.total is None and not page.rows)
        self.over = self.complete or stuck or self.pages >= MOST_PAGES


class Listing:
    """The list call of one target: when it is due, and what it has told.

    Attributes:
        active: Whether jobs are asked for at the slow cadence, relying on the list.
        due_at: Monotonic time of the next page.
        found: Rows of the last sweep that was not cut short by a failure.
        reason: Why `active` is what it is, for the log.
        discovers: Whether what it lists is to be watched.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        interval: float,
        task_interval: float,
        discover: Mapping[str, str] | None = None,
    ) -> None:
        """Make a listing that has told nothing yet.

        Args:
            mode: What the operator wants.
            interval: Seconds between two sweeps.
            task_interval: Seconds between two looks at one job that the list covers.
            discover: Filters of the jobs to find; None to list the running ones.
        """
        self.mode = mode
        self.active = False
        self.due_at = 0.0
        self.found: Mapping[str, Job] = {}
        self.reason = ""
        self.filters = dict(discover or {"status": PROCESSING})
        self.discovers = discover is not None
        self._interval = interval
        self._share = interval / max(task_interval, interval)
        self._sweep = Sweep()
        self._began = 0.0
        self._marks: dict[str, tuple[object, ...]] = {}
        self._useless = 0
        self._failures = 0
        self._given_up_until = -math.inf

    def wanted(self, watched: int, now: float) -> bool:
        """Whether a page is to be asked for, with so many jobs still running."""
        if now < self.due_at:
            return False
        if self.discovers or self._sweep.pages:
            return True
        if self.mode is Mode.DETAIL or watched == 0:
            return False
        # While it is relied on it is asked, until a sweep has shown that it is no use.
        return now >= self._given_up_until and (
            self.active or self.mode is Mode.LIST or self._worth(watched, 1)
        )

    @property
    def page(self) -> tuple[int, int]:
        """Limit and offset of the next page."""
        return PAGE_LIMIT, self._sweep.offset

    def take(
        self, page: ListPage, running: Mapping[str, Job | None], now: float
    ) -> Collection[str]:
        """Take in a page.

        Args:
            page: The answer.
            running: The unfinished watched jobs as last known, by id.
            now: Monotonic seconds.

        Returns:
            Ids of watched jobs to ask for at once; empty until the sweep is over.
        """
        self._failures = 0
        if not self._sweep.pages:
            self._began = now
        self._sweep.take(page)
        if not self._sweep.over:
            return ()
        sweep, self._sweep = self._sweep, Sweep()
        self.due_at = max(now, self._began + self._interval)
        self.found = sweep.rows
        self._judge(sweep, running, now)
        return [
            each for each in running if self._moved(sweep.rows.get(each), running[each])
        ]

    def failed(self, why: str, now: float) -> None:
        """Take note of a page that was refused; the second one running gives up."""
        self._sweep = Sweep()
        self._failures += 1
        longest = LONGEST_PAUSE * self._interval
        self.due_at = now + backoff(self._failures, 2 * self._interval, longest, 0.0)
        if self._failures >= USELESS_SWEEPS:
            self._give_up(f"the list call fails: {why}", now + GIVEN_UP_FOR)

    def postponed(self, until: float) -> None:
        """Ask no page before this time."""
        self.due_at = max(self.due_at, until)

    def begin_afresh(self, now: float) -> None:
        """Forget what went wrong: the list is another one from now on."""
        self._sweep = Sweep()
        self._useless = self._failures = 0
        self._given_up_until = -math.inf
        self.due_at = now

    def _moved(self, row: Job | None, known: Job | None) -> bool:
        if row is None:
            return True
        mark = (row.status, row.abnormal_count, row.updated_at)
        before = self._marks.get(row.id)
        self._marks[row.id] = mark
        if row.status != PROCESSING:
            return True
        if before is None:
            return (
                known is None
                or known.abnormal_count != row.abnormal_count
                or known.updated_at not in {None, row.updated_at}
            )
        return before != mark

    def _judge(self, sweep: Sweep, running: Mapping[str, object], now: float) -> None:
        self._marks = {
            each: mark for each, mark in self._marks.items() if each in running
        }
        if self.mode is Mode.DETAIL or not running or now < self._given_up_until:
            return
        covered = sum(each in sweep.rows for each in running)
        if covered < USEFUL_SHARE * len(running):
            self._useless += 1
            if self._useless >= USELESS_SWEEPS or not sweep.complete:
                shown = f"{covered} of {len(running)} watched jobs"
                self._give_up(f"the list shows {shown}", now + GIVEN_UP_FOR)
            return
        self._useless = 0
        shown = f"{sweep.pages} pages for {len(running)} jobs"
        if self.mode is Mode.LIST or self._worth(len(running), sweep.pages):
            self.active = True
            self.reason = shown
        else:
            # Too many pages stay so for long; too few jobs may be more at any time.
            too_long = self._worth(len(running), 1)
            self._give_up(shown, now + GIVEN_UP_FOR if too_long else now)

    def _give_up(self, why: str, until: float) -> None:
        self.active = False
        self.reason = why
        self._useless = self._failures = 0
        self._given_up_until = until
        self._marks.clear()

    def _worth(self, watched: int, pages: int) -> bool:
        """Whether the list saves at least half of the calls."""
        return 2 * (pages + watched * self._share) <= watched
