"""What the list call tells about many jobs at once, and whether it is worth asking.

A list row has no tasks, so a job whose row changed is asked for by itself at once, and
every job is asked now and then all the same. Paging is undocumented: what a sweep over
the pages brings is measured against what is watched, and a list that is refused, short
or silent about the watched jobs is given up for a while. A job that is absent from a
list is asked for; absence proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from watcher.core.errors import Reason
from watcher.core.model import (
    Job,
    JobRecord,
    Level,
    ListPage,
    Notice,
    PollFailed,
    is_job_id,
)
from watcher.core.rows import Rows
from watcher.core.schedule import backoff, retry_after
from watcher.core.transitions import PROCESSING
from watcher.core.trust import Trust, changed

PAGE_LIMIT = 1000
MOST_PAGES = 1000
MOST_ROWS = 100_000
MOST_JOBS = 10_000
GIVEN_UP_FOR = 600.0
PASSING = frozenset({Reason.THROTTLED, Reason.UNREACHABLE, Reason.SERVER_ERROR})
"""Failures that come to an end by themselves: the list is tried again after each pause."""
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

    def take(self, page: ListPage, most: int = MOST_ROWS) -> None:
        """Add a page; one that brings nothing new, or so many rows, ends the sweep."""
        before = len(self.rows)
        self.rows.update((row.id, row) for row in page.rows)
        self.pages += 1
        stuck = len(self.rows) == before
        full = page.total is not None and len(self.rows) >= page.total
        self.complete = full or (page.total is None and not page.rows)
        many = len(self.rows) >= most or self.pages >= MOST_PAGES
        self.over = self.complete or stuck or many


class Listing:
    """The list call of one target: when it is due, and what it has told.

    Attributes:
        active: Whether jobs are asked for at the slow cadence, relying on the list.
        due_at: Monotonic time of the next page.
        found: Rows of the last sweep that was not cut short by a failure, by job id.
            Where they are to be watched, never more than there is room for.
        reason: Why `active` is what it is, for the log.
        discovers: Whether what it lists is to be watched.
        trust: What it has earned: how far apart the looks at single tasks are.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        target: str = "",
        interval: float,
        task_interval: float,
        task_interval_max: float = 0.0,
        discover: Mapping[str, str] | None = None,
        max_jobs: int = MOST_JOBS,
    ) -> None:
        """Make a listing that has told nothing yet.

        Args:
            mode: What the operator wants.
            target: Its name, for the log.
            interval: Seconds between two sweeps.
            task_interval: Seconds between two looks at one job that the list covers.
            task_interval_max: How far these may be stretched by earned trust; never
                where it is not above `task_interval`.
            discover: Filters of the jobs to find; None to list the running ones.
            max_jobs: Jobs of the target that may be watched where it discovers.
        """
        self.mode = mode
        self._target = target
        self.active = False
        self.due_at = 0.0
        self.found: Mapping[str, Job] = {}
        self.reason = ""
        self.filters = dict(discover or {"status": PROCESSING})
        self.discovers = discover is not None
        self.trust = Trust(max(task_interval, interval))
        self._interval = interval
        self._bounds = self.trust.interval, max(self.trust.interval, task_interval_max)
        self._max_jobs = max_jobs
        self._full = False
        self._notices: list[Notice] = []
        self._sweep = Sweep()
        self._began = 0.0
        self._rows = Rows()
        self._useless = 0
        self._failures = 0
        self._given_up_until = -math.inf

    def is_asked(self, watched: int) -> bool:
        """Whether pages are asked for at all, with so many jobs still running."""
        if self.discovers or self._sweep.pages:
            return True
        if self.mode is Mode.DETAIL or watched == 0:
            return False
        # While it is relied on it is asked, until a sweep has shown that it is no use.
        return self.active or self.mode is Mode.LIST or self._worth(watched, 1)

    def wanted(self, watched: int, now: float) -> bool:
        """Whether a page is to be asked for now, with so many jobs still running."""
        if now < self.due_at or not self.is_asked(watched):
            return False
        under_way = self.discovers or self._sweep.pages > 0
        return under_way or now >= self._given_up_until

    @property
    def is_failing(self) -> bool:
        """Whether a page did not come since the last whole sweep."""
        return self._failures > 0

    @property
    def page(self) -> tuple[int, int]:
        """Limit and offset of the next page."""
        return PAGE_LIMIT, self._sweep.offset

    def take(
        self,
        page: ListPage,
        running: Mapping[str, Job | None],
        now: float,
        *,
        sent_at: float | None = None,
        watched: Callable[[], Collection[str]] | None = None,
    ) -> Collection[str]:
        """Take in a page.

        Args:
            page: The answer.
            running: The unfinished watched jobs as last known, by id.
            now: Monotonic seconds.
            sent_at: When the page was asked for, likewise; None is `now`.
            watched: Gives the ids of all watched jobs of the target, the finished ones
                too; None where there are no others.

        Returns:
            Ids of watched jobs to ask for at once; empty until the sweep is over.
        """
        if not self._sweep.pages:
            self._began = now if sent_at is None else sent_at
        most = self._max_jobs if self.discovers else MOST_ROWS
        self._sweep.take(page, max(most, len(running)))
        if not self._sweep.over:
            return ()
        sweep, self._sweep = self._sweep, Sweep()
        self._failures = 0
        self.due_at = max(now, self._began + self._interval)
        self.found = self._admitted(sweep, watched or running.keys)
        news = self._rows.swept(sweep.rows, running, now)
        self._weigh(self._rows.settle(self._began))
        self._judge(sweep, running, now)
        return news

    def looked(self, record: JobRecord, sent_at: float, now: float) -> None:
        """Take in a good answer of the detail call, as evidence about the list.

        Args:
            record: What is known of the job since.
            sent_at: When the request was sent, monotonic seconds.
            now: When the answer was taken in.
        """
        if self.active:
            verdict = self._rows.looked(record, sent_at, now)
            self._weigh([] if verdict is None else [verdict])

    def failed(self, failure: PollFailed, now: float) -> None:
        """Take note of a page that did not come; the second one running gives up.

        The list waits by itself: the looks at single jobs go on meanwhile.
        """
        self._sweep = Sweep()
        self._failures += 1
        longest = max(2 * self._interval, GIVEN_UP_FOR)
        pause = backoff(self._failures, 2 * self._interval, longest, 0.0)
        self.due_at = now + max(pause, retry_after(failure))
        if self._failures >= USELESS_SWEEPS:
            passes = failure.reason in PASSING
            until = self.due_at if passes else now + GIVEN_UP_FOR
            why = f"{failure.reason}: {failure.error_msg}"
            self._give_up(f"the list call fails: {why}", until)

    def resume(self, trust: Trust) -> None:
        """Go on with what was earned before a restart, or under other settings."""
        self.trust = trust.within(*self._bounds)

    def notices(self) -> list[Notice]:
        """Return what there is to say since this was last asked."""
        said, self._notices = self._notices, []
        return said

    def begin_afresh(self, now: float) -> None:
        """Forget what went wrong: the list is another one from now on."""
        self._sweep, self._rows = Sweep(), Rows()
        self._useless = self._failures = 0
        self._given_up_until = -math.inf
        self.due_at = now
        before, self.trust = self.trust, Trust(self._bounds[0])
        self._notices.extend(changed(self._target, before, self.trust))

    def _admitted(
        self, sweep: Sweep, watched: Callable[[], Collection[str]]
    ) -> Mapping[str, Job]:
        rows = {each: row for each, row in sweep.rows.items() if is_job_id(each)}
        if not self.discovers:
            return rows
        known = watched()
        room = max(0, self._max_jobs - len(known))
        fresh = [each for each in rows if each not in known]
        cut = not sweep.complete and len(sweep.rows) >= self._max_jobs
        full = cut or len(fresh) > room
        if full and not self._full:
            fields = {"target": self._target, "max_jobs": self._max_jobs}
            self._notices.append(Notice("jobs.full", Level.WARNING, fields))
        self._full = full
        for each in fresh[room:]:
            del rows[each]
        return rows

    def _weigh(self, verdicts: Iterable[bool]) -> None:
        before, (least, most) = self.trust, self._bounds
        for row_moved in verdicts:
            self.trust = self.trust.looked(
                moved=True, row_moved=row_moved, least=least, most=most
            )
        self._notices.extend(changed(self._target, before, self.trust))

    def _judge(self, sweep: Sweep, running: Mapping[str, object], now: float) -> None:
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
        self._useless = 0
        self._given_up_until = until
        self._rows = Rows()

    def _worth(self, watched: int, pages: int) -> bool:
        """Whether the list saves at least half of the calls."""
        looks = watched * self._interval / self.trust.interval
        return 2 * (pages + looks) <= watched
