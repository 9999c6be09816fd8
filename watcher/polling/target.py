"""One target: what is due on it, how fast it may be asked, and how it has answered.

Every rule that moves this state is here, and nothing here waits: time and chance are
arguments, so that the rules can be tested as the tables that they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from watcher.core.errors import Reason
from watcher.core.listing import MOST_JOBS, Listing, Mode
from watcher.core.model import (
    JobKey,
    JobRecord,
    Level,
    ListPage,
    Notice,
    PollFailed,
    Snapshot,
)
from watcher.core.outages import Outages
from watcher.core.schedule import (
    Cadence,
    DueQueue,
    Gate,
    RateLimit,
    next_delay,
    retry_after,
    tick_before,
)
from watcher.core.tracker import as_concluded, is_running_again
from watcher.core.transitions import PROCESSING
from watcher.core.trust import Trust
from watcher.ports import JobApi

LARGE_SKEW = 60.0
"""Seconds between two clocks that somebody should hear of."""
REAL_OUTAGE = 3
"""Failed pauses running, after whose end the jobs that failed are asked afresh."""
SOONEST_SECOND_LOOK = 0.1
"""Share of an interval after which the second look at a job may come."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a target is to be asked; times in seconds.

    Attributes:
        interval: Between two looks at one job.
        backoff_max: Ceiling of every back-off that the server did not ask for.
        task_interval: Between two looks at one job where the list call is relied on.
        task_interval_max: How far that is stretched by what the list has earned.
        requests_per_second: Ceiling, jobs and pages together.
        max_in_flight: Likewise.
        mode: Whether the list call is relied on.
        discover: Filters of the jobs to find; None finds none.
        max_jobs: How many may be watched where jobs are found.
    """

    interval: float = 10.0
    backoff_max: float = 300.0
    task_interval: float = 30.0
    task_interval_max: float = 600.0
    requests_per_second: float = 20.0
    max_in_flight: int = 16
    mode: Mode = Mode.AUTO
    discover: Mapping[str, str] | None = None
    max_jobs: int = MOST_JOBS


@dataclass(frozen=True, slots=True)
class Look:
    """A request for one job that is on its way.

    Attributes:
        api: Through which door it went.
        due: When it was due, monotonic seconds.
        sent_at: When it was sent, likewise.
        watch: For which of the times that the job was watched.
        known: The last answer that was taken in, where one was.
    """

    api: JobApi
    key: JobKey
    due: float
    sent_at: float
    watch: int
    known: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class PageLook:
    """A request for one page of the list that is on its way."""

    api: JobApi
    listing: Listing
    sent_at: float


@dataclass(slots=True)
class _Watched:
    """A job that is not finished.

    Attributes:
        number: Which of the watches of this target; a job watched again has another.
        attempted: Whether it was asked since.
        known: The last answer that was taken in since.
    """

    number: int
    attempted: bool = False
    known: Snapshot | None = None


@dataclass(slots=True, eq=False)
class Target:
    """A target as the poller sees it.

    Attributes:
        name: The operator's name for it.
        api: The door through which it is asked.
        manner: How it is asked.
        held_until: When its lease ends, monotonic seconds; from then on nothing is sent
            and no answer counts.
    """

    name: str
    api: JobApi
    manner: Manner
    held_until: float = math.inf
    _rate: RateLimit = field(init=False)
    _listing: Listing = field(init=False)
    _outages: Outages = field(init=False)
    _queue: DueQueue = field(default_factory=DueQueue)
    _gate: Gate = field(default_factory=Gate)
    _running: dict[JobKey, _Watched] = field(default_factory=dict)
    _unattempted: int = 0
    _asked: dict[JobKey, Look] = field(default_factory=dict)
    _page: PageLook | None = None
    _numbers: Iterator[int] = field(default_factory=count)
    _skewed: bool = False

    def __post_init__(self) -> None:
        """Begin with a rate, a listing and no outage."""
        self._rate = RateLimit(self.manner.requests_per_second)
        self._listing = _listing(self.name, self.manner)
        self._outages = Outages(self.name)

    # What others may know of it.

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return len(self._asked) + (self._page is not None)

    @property
    def running(self) -> int:
        """Watched jobs that are not finished."""
        return len(self._running)

    @property
    def failing(self) -> bool:
        """Whether jobs fail for a reason that concerns the whole target."""
        return self._outages.failing

    @property
    def attempted(self) -> bool:
        """Whether every job was asked once or is held back by the target's state."""
        return not self._unattempted or self._gate.failures > 0

    @property
    def discovered(self) -> frozenset[JobKey]:
        """What the list call found, where it is to find jobs."""
        if not self._listing.discovers:
            return frozenset()
        return frozenset(JobKey(self.name, job_id) for job_id in self._listing.found)

    @property
    def trust(self) -> Trust:
        """What the list call has earned."""
        return self._listing.trust

    def resume(self, trust: Trust) -> None:
        """Go on with what the list call had earned in an earlier life."""
        self._listing.resume(trust)

    @property
    def listed_running(self) -> frozenset[JobKey]:
        """Jobs that the last sweep of the list showed as running."""
        rows = self._listing.found.items()
        running = (job_id for job_id, row in rows if row.status == PROCESSING)
        return frozenset(JobKey(self.name, job_id) for job_id in running)

    def asks(self, key: JobKey) -> bool:
        """Whether a job is asked for: it is not finished, or said to run again."""
        return key in self._running

    def due_at(self, key: JobKey) -> float | None:
        """Return when a job is asked next; None where no time is set."""
        return self._queue.due_at(key)

    # Which jobs are asked, and how.

    def watch(self, record: JobRecord, now: float) -> None:
        """Ask for a job from now on, until it is finished; at once for the first time."""
        if not record.phase.finished:
            self._run(record.key, now)

    def take_over(self, records: Iterable[JobRecord], now: float) -> None:
        """Ask for jobs from now on that another replica asked until a moment ago.

        Their first looks are spread over one interval, or over what the rate needs where
        that is longer, and nobody waits for them; one never asked yet is due at once.
        """
        running = [one for one in records if not one.phase.finished]
        pace = len(running) / self.manner.requests_per_second
        over = max(self.manner.interval, pace)
        for place, record in enumerate(running):
            if record.last_poll_at is None:
                self._run(record.key, now)
                continue
            self._run(record.key, now + over * place / len(running))
            self._running[record.key].attempted = True
            self._unattempted -= 1

    def forget(self, key: JobKey) -> None:
        """Ask no more for a job; what is on its way no longer counts."""
        watched = self._running.pop(key, None)
        if watched is not None and not watched.attempted:
            self._unattempted -= 1
        self._queue.discard(key)
        self._outages.forget(key)

    def reopen(self, api: JobApi, now: float) -> None:
        """Ask through another door; what failed at the earlier one is due at once."""
        self.api, self._gate = api, Gate()
        for watched in self._running.values():
            watched.known = None  # another door may read it otherwise
        self._listing.begin_afresh(now)
        for key in self._outages:
            self._queue.bring_forward(key, now)

    def change(self, manner: Manner) -> None:
        """Ask in another manner; what is queued keeps its time."""
        if manner == self.manner:
            return
        self.manner = manner
        trust, self._listing = self.trust, _listing(self.name, manner)
        self._listing.resume(trust)
        self._rate.limit(manner.requests_per_second)

    def _run(self, key: JobKey, now: float) -> None:
        earlier = self._running.get(key)
        if earlier is None or earlier.attempted:
            self._unattempted += 1
        self._running[key] = _Watched(next(self._numbers))
        self._queue.put(key, now)

    # When it is asked.

    def next_send(self, now: float) -> float:
        """Return when something may next be sent, if there is room; infinity: never."""
        due = self._due
        if due == math.inf or now >= self.held_until:
            return math.inf
        return max(due, self._gate.opens_at, self._rate.ready_at(), now)

    @property
    def has_room(self) -> bool:
        """Whether one more request may be on its way."""
        # Half open: after the pause one probe, and what it finds decides for all.
        limit = 1 if self._gate.failures else self.manner.max_in_flight
        return self.in_flight < limit

    def send(self, now: float) -> Look | PageLook | None:
        """Take what is to be sent now by a target that may; it counts as in flight.

        Returns:
            None where the job that was due is still being asked.
        """
        if self._page is None and self._listing.wanted(self.running, now):
            self._rate.take(now)
            self._page = PageLook(self.api, self._listing, now)
            return self._page
        due = self._queue.pop_due(now)
        if due is None or due[0] in self._asked:
            return None  # `landed` puts it back
        self._rate.take(now)
        key, since = due
        watched = self._running[key]
        look = Look(self.api, key, since, now, watched.number, watched.known)
        self._asked[key] = look
        return look

    @property
    def _due(self) -> float:
        job, page = self._queue.next_due(), self._listing.due_at
        due = math.inf if job is None else job
        if self._page is None and self._listing.wanted(self.running, page):
            due = min(due, page)
        return due

    # How it has answered.

    def landed(
        self, look: Look, outcome: Snapshot | PollFailed, now: float, chance: float
    ) -> bool:
        """Take note that a request for a job is over.

        Returns:
            Whether its outcome counts: not where the job is watched no more or was
            watched anew meanwhile, where it failed at a door that is closed now, nor
            where the target's lease has ended.
        """
        del self._asked[look.key]
        if now >= self.held_until:
            return False
        failed = isinstance(outcome, PollFailed)
        void = failed and look.api is not self.api
        if not void:
            self._note_answer(outcome, look.sent_at, now, chance)
        watched = self._running.get(look.key)
        if watched is None:
            return False
        if void or watched.number != look.watch:
            self._queue.put(look.key, now)
            return False
        return True

    def settle(
        self,
        look: Look,
        outcome: Snapshot | PollFailed,
        record: JobRecord,
        now: float,
        chance: float,
    ) -> Iterator[Notice]:
        """Set when a job is asked next, and yield what there is to say of the target.

        Args:
            look: The request.
            outcome: How it ended.
            record: What is now known of the job.
            now: Monotonic seconds.
            chance: In [0, 1).
        """
        key, failure = look.key, record.failure
        if isinstance(outcome, Snapshot) and outcome is not look.known:
            self._running[key].known = as_concluded(record, outcome)
        if failure is None:
            yield from self._outages.succeeded(key)
            before = self.trust.interval
            self._listing.looked(record, look.sent_at, now)
            yield from self._believed(before, now, chance)
        else:
            yield from self._outages.failed(key, failure, self.running)
        yield from self._compare_clocks()
        delay = next_delay(record, self._cadence, chance)
        if delay is None:
            self.forget(key)
        else:
            self._put_back(look, delay, 0.0 if failure else chance)
        if not self._listing.is_asked(self.running):
            yield from self._outages.list_succeeded()

    def _put_back(self, look: Look, delay: float, earlier: float) -> None:
        watched = self._running[look.key]
        if not watched.attempted:
            watched.attempted = True
            self._unattempted -= 1
            delay *= 1 - (1 - SOONEST_SECOND_LOOK) * earlier
        # On a grid, so that what is due within one tick is sent together.
        self._queue.put(look.key, tick_before(look.sent_at + delay))

    def take_page(
        self,
        asked: PageLook,
        page: ListPage | PollFailed,
        records: Mapping[JobKey, JobRecord],
        now: float,
        chance: float,
    ) -> Iterator[Notice]:
        """Take in a page, or that there was none.

        Args:
            asked: The request.
            page: How it ended.
            records: What is known of the jobs.
            now: Monotonic seconds.
            chance: In [0, 1).
        """
        self._page = None
        listing, was_active = asked.listing, asked.listing.active
        before = listing.trust.interval
        if listing is not self._listing or asked.api is not self.api:
            return
        if now >= self.held_until:
            return
        if isinstance(page, PollFailed):
            # The list waits by itself, and the looks at single jobs go on.
            listing.failed(page, now)
            yield from self._outages.list_failed(page)
        else:
            self._follow(asked, page, records, now)
            if not listing.is_failing:
                yield from self._outages.list_succeeded()
        yield from self._believed(before, now, chance)
        if listing.active != was_active:
            yield self._mode_changed(now, chance)

    @property
    def _cadence(self) -> Cadence:
        manner = self.manner
        look = None
        if self._listing.active:
            look = max(manner.interval, self.trust.interval)
        return Cadence(manner.interval, manner.backoff_max, look)

    def _follow(
        self,
        asked: PageLook,
        page: ListPage,
        records: Mapping[JobKey, JobRecord],
        now: float,
    ) -> None:
        running = {k.job_id: records[k].job for k in self._running if k in records}
        news = self._listing.take(
            page,
            running,
            now,
            sent_at=asked.sent_at,
            watched=lambda: {k.job_id for k in records if k.target == self.name},
        )
        for job_id in news:
            self._queue.bring_forward(JobKey(self.name, job_id), now)
        for job_id, row in self._listing.found.items():
            record = records.get(key := JobKey(self.name, job_id))
            if record and key not in self._running and is_running_again(record, row):
                self._run(key, now)

    def _mode_changed(self, now: float, chance: float) -> Notice:
        active, manner = self._listing.active, self.manner
        if not active:
            self._spread_out(self._running, now, chance, manner.interval)
        fields = {
            "target": self.name,
            "mode": Mode.LIST if active else Mode.DETAIL,
            "reason": self._listing.reason,
        }
        return Notice("poll.mode", Level.INFO, fields)

    def _note_answer(
        self,
        outcome: Snapshot | PollFailed,
        sent_at: float,
        now: float,
        chance: float,
    ) -> None:
        """Close the gate after a failure of the target, open it after an answer."""
        before = self._gate
        if isinstance(outcome, Snapshot) or not outcome.reason.concerns_target:
            self._gate = before.succeeded(sent_at)
            if before.failures >= REAL_OUTAGE and not self._gate.failures:
                failed = self._outages.of_target()
                self._spread_out(failed, now, chance, self.manner.interval)
            return
        ceiling, wait = self._cadence.ceiling, retry_after(outcome)
        self._gate = before.failed(sent_at, now, ceiling, chance, wait)
        counted = self._gate.failures > before.failures
        if counted and outcome.reason is Reason.THROTTLED:
            self._rate.slow_down(now)

    def _believed(self, before: float, now: float, chance: float) -> Iterator[Notice]:
        """Look at all jobs sooner where the list was believed more `before`."""
        after = self.trust.interval
        if after < before:
            self._spread_out(self._running, now, chance, after)
        yield from self._listing.notices()

    def _spread_out(
        self, keys: Iterable[JobKey], now: float, chance: float, over: float
    ) -> None:
        """Make jobs due within so many seconds from now, one after the other.

        Args:
            keys: Those of them that are queued.
            now: Monotonic seconds.
            chance: Where in these the round begins, so that targets drift apart.
            over: Seconds.
        """
        these = list(keys)
        for place, key in enumerate(these):
            share = (place / len(these) + chance) % 1
            self._queue.bring_forward(key, now + over * share)

    def _compare_clocks(self) -> Iterator[Notice]:
        skew = self.api.clock_skew
        # Half the distance back, so that a clock at the limit is told once.
        skewed = abs(skew) > (LARGE_SKEW / 2 if self._skewed else LARGE_SKEW)
        if skewed is not self._skewed:
            self._skewed = skewed
            fields = {"target": self.name, "skew_seconds": round(skew, 1)}
            event = "clock.skewed" if skewed else "clock.agreed"
            yield Notice(event, Level.WARNING if skewed else Level.INFO, fields)


def _listing(name: str, manner: Manner) -> Listing:
    return Listing(
        manner.mode,
        target=name,
        interval=manner.interval,
        task_interval=manner.task_interval,
        task_interval_max=manner.task_interval_max,
        discover=manner.discover,
        max_jobs=manner.max_jobs,
    )
