"""Drives each sink from the journal: in order, at least once, at its own pace.

One courier a sink, and all that must not be lost is in the store, so a slow or dead
sink holds back nobody else and a restart goes on where the last life ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio
import structlog

from watcher.core.errors import SinkError, StoreError
from watcher.core.model import JobKey, JournalEvent
from watcher.core.schedule import backoff
from watcher.ports import (
    Journal,
    JournalReader,
    Mendable,
    Outbox,
    Postponed,
    Sink,
    Undeliverable,
)
from watcher.sinks.given_up import GivenUp

COUNT_EVERY = 1.0
"""Seconds between two counts of what a sink is owed, for who asks for it."""
RETRY_JITTER = 0.5
REST_PER_HELD = 1e-4  # seconds; some thirty times what a look costs for each

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a courier works and retries; times in seconds.

    Attributes:
        first_retry: Wait after the first failure; doubled with each further one.
        longest_retry: Ceiling of that wait.
        parallel_jobs: Jobs served side by side, and how many of them may fail running before
            the sink itself counts as down.
        batch: Events read from the journal at once.
        drain: Time for what is left when the daemon stops.
    """

    first_retry: float = 1.0
    longest_retry: float = 300.0
    parallel_jobs: int = 8
    batch: int = 256
    drain: float = 3.0


@dataclass(frozen=True, slots=True)
class _Held:
    """A job whose next event the sink did not take."""

    failures: int
    due: float


class Courier:
    """Delivers the journal to one sink.

    A job whose event fails is held back alone, with a back-off of its own, and an event
    that can never be taken is given up and holds back nothing; when
    `parallel_jobs` jobs fail without a success between, or the sink asks for a pause, all rest.

    Attributes:
        delivered: Events taken by the sink.
        failed: Attempts that failed; the event waits for the next one.
        dead_lettered: Events that went past retention untaken.
        failing: Whether something waits for a retry.
        backlog: Events that the sink has not taken yet, a second ago.

    Args:
        sink: Told of each event.
        outbox: Where undelivered events are; one of its sinks must have this name.
        journal: Tells when there are more.
        jitter: Draws from [0, 1); spreads the retries.
        policy: How it works.
        own: The targets whose events it delivers now; None: all.
        fault_point: Called with the name of each step; for tests that end the process.
    """

    def __init__(
        self,
        sink: Sink,
        outbox: Outbox,
        journal: JournalReader,
        *,
        jitter: Callable[[], float],
        policy: RetryPolicy | None = None,
        own: Callable[[], Collection[str] | None] = lambda: None,
        fault_point: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.delivered = 0
        self.failed = 0
        self.dead_lettered = 0
        self.failing = False
        self.backlog = 0
        self._sink = sink
        self._outbox = outbox
        self._journal = journal
        self._jitter = jitter
        self._policy = policy or RetryPolicy()
        self._own = own
        self._offered: list[Sequence[JournalEvent]] = []
        self._returned = anyio.Event()
        self._fault_point = fault_point
        self._held: dict[JobKey, _Held] = {}
        self._given_up = GivenUp(sink.name)
        self._suspects: set[JobKey] = set()
        self._pauses = 0
        self._paused_until = 0.0
        self._unmarked: set[int] = set()
        self._news = anyio.Event()
        self._stop = anyio.Event()

    @property
    def name(self) -> str:
        """Name of the sink."""
        return self._sink.name

    @property
    def undeliverable(self) -> int:
        """Events that it refused for ever."""
        return self._given_up.count

    def wake(self) -> None:
        """Look at once for what it may deliver."""
        self._news.set()

    def stop(self) -> None:
        """Let `run` return once nothing more can be delivered now."""
        self._stop.set()
        self._news.set()

    async def run(self) -> None:
        """Deliver until stopped, then for at most `drain` seconds more."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._end, tasks.cancel_scope)
            tasks.start_soon(self._hear)
            tasks.start_soon(self._count)
            while True:
                self._news = anyio.Event()
                if await self._round():
                    continue
                if self._stop.is_set():
                    break
                await self._rest()
            tasks.cancel_scope.cancel()
        self._given_up.tell(math.inf)

    async def _hear(self) -> None:
        highest = -1
        while True:
            highest = await self._journal.grown(highest)
            self._news.set()

    async def _count(self) -> None:
        while True:
            with suppress(StoreError):
                self.backlog = await self._outbox.backlog(self.name, self._own())
            await anyio.sleep(COUNT_EVERY)

    async def _end(self, scope: anyio.CancelScope) -> None:
        await self._stop.wait()
        await anyio.sleep(self._policy.drain)
        scope.cancel()

    async def _rest(self) -> None:
        """Wait for news or for the next retry."""
        now = anyio.current_time()
        due = self._paused_until
        if due <= now:
            due = min((held.due for held in self._held.values()), default=now + 3600.0)
            # A look at the journal costs the more, the more jobs it has to leave out.
            due = max(due, now + REST_PER_HELD * len(self._held))
        with anyio.move_on_after(min(due, self._given_up.due) - now):
            await self._news.wait()

    async def _round(self) -> bool:
        """Offer what is due; return whether there may be more to offer at once."""
        self._given_up.tell(anyio.current_time())
        if self._paused:
            return False
        try:
            await self._mark()
            events = await self._fetch()
        except StoreError as error:
            self._pause(error)
            return False
        if self._sink.per_job:
            await self._offer_by_job(events)
        elif events:
            await self._offer(events)
        self._look_recovered()
        return bool(events) and not self._paused

    @property
    def _paused(self) -> bool:
        return anyio.current_time() < self._paused_until

    async def _fetch(self) -> Sequence[JournalEvent]:
        now = anyio.current_time()
        held = [key for key, job in self._held.items() if job.due > now]
        batch = self._policy.batch
        events = await self._outbox.undelivered(self.name, batch, held, self._own())
        if len(events) < batch:  # all there is: what is missing went past retention
            kept = {event.transition.key for event in events}.union(held)
            self._held = {k: job for k, job in self._held.items() if k in kept}
            self._pauses = self._pauses if kept else 0
        return events

    async def _offer_by_job(self, events: Sequence[JournalEvent]) -> None:
        lanes: dict[JobKey, list[JournalEvent]] = {}
        for event in events:
            lanes.setdefault(event.transition.key, []).append(event)
        if self._pauses:  # one attempt tells whether it is back
            lanes = dict(list(lanes.items())[:1])
        free = anyio.CapacityLimiter(self._policy.parallel_jobs)
        async with anyio.create_task_group() as tasks:
            for lane in lanes.values():
                tasks.start_soon(self._serve, lane, free)

    async def _serve(
        self, lane: Sequence[JournalEvent], free: anyio.CapacityLimiter
    ) -> None:
        async with free:
            for event in lane:
                if self._paused or not await self._offer([event]):
                    return

    async def _offer(self, events: Sequence[JournalEvent]) -> bool:
        """Hand events over and mark them; return whether the next may follow."""
        if not self._may_offer(events):
            return False
        self._offered.append(events)
        try:
            return await self._hand_over(events)
        finally:
            self._offered.remove(events)
            self._returned.set()
            self._returned = anyio.Event()

    def _may_offer(self, events: Sequence[JournalEvent]) -> bool:
        """Whether all of them are still of targets that are one's own."""
        own = self._own()
        return own is None or all(e.transition.key.target in own for e in events)

    async def finish(self, targets: Collection[str]) -> None:
        """Wait until no event of these targets is being handed over."""
        while any(
            event.transition.key.target in targets
            for events in self._offered
            for event in events
        ):
            await self._returned.wait()

    async def _hand_over(self, events: Sequence[JournalEvent]) -> bool:
        self._fault_point("deliver.before")
        try:
            await self._sink.deliver(events)
            self.delivered += len(events)
        except Undeliverable as error:
            self._given_up.note(events, error, anyio.current_time())
        except SinkError as error:
            self._refused(events[0], error)
            return False
        self._fault_point("deliver.after")
        self._settle(events)
        try:
            await self._mark()
        except StoreError as error:
            self._pause(error)
            return False
        return True

    async def _mark(self) -> None:
        """Tell the store what was taken; what it could not note is told again."""
        if seqs := frozenset(self._unmarked):
            await self._outbox.delivered(self.name, seqs)
            self._unmarked -= seqs

    def _settle(self, events: Sequence[JournalEvent]) -> None:
        """Owe these no longer: the sink took them, or said that it never will."""
        self._unmarked.update(event.seq for event in events)
        self._held.pop(events[0].transition.key, None)
        self._suspects.clear()
        if self._pauses and not self._paused:
            self._held.clear()  # it was the sink that was down, not these jobs
            self._pauses = 0

    def _refused(self, event: JournalEvent, error: SinkError) -> None:
        self.failed += 1
        key = event.transition.key
        if not isinstance(error, Mendable):
            self._suspects.add(key)
        postponed = error.retry_after if isinstance(error, Postponed) else 0.0
        if self._sink.per_job:
            failures = self._held[key].failures + 1 if key in self._held else 1
            self._held[key] = _Held(failures, self._after(failures))
        down = (
            not self._sink.per_job or len(self._suspects) >= self._policy.parallel_jobs
        )
        self._look_failing(error, at_seq=event.seq)
        if postponed or down:
            self._pause(error, postponed)

    def _pause(self, error: Exception, at_least: float = 0.0) -> None:
        if not self._paused:  # attempts side by side count as one
            self._pauses += 1
            self._paused_until = self._after(self._pauses)
        self._paused_until = max(self._paused_until, anyio.current_time() + at_least)
        self._look_failing(error)

    def _after(self, failures: int) -> float:
        """Return the time of the next attempt: exponential, half of it by chance."""
        first, longest = self._policy.first_retry, self._policy.longest_retry
        wait = backoff(failures, first, longest, self._jitter(), RETRY_JITTER)
        return anyio.current_time() + wait

    def _look_failing(self, error: Exception, **fields: int) -> None:
        if not self.failing:
            self.failing = True
            log.warning("sink.failing", sink=self.name, error=str(error), **fields)

    def _look_recovered(self) -> None:
        if self.failing and not self._held and not self._pauses:
            self.failing = False
            log.info("sink.recovered", sink=self.name)


async def prune_regularly(
    journal: Journal,
    couriers: Collection[Courier],
    *,
    now: Callable[[], float],
    interval: float = 600.0,
) -> None:
    """Keep the journal within its retention, for as long as the task lives.

    Args:
        journal: What to keep short.
        couriers: Told of the events that their sink will never get.
        now: Wall clock, Unix seconds.
        interval: Seconds between two rounds.
    """
    while True:
        await _prune(journal, couriers, now())
        await anyio.sleep(interval)


async def _prune(journal: Journal, couriers: Iterable[Courier], now: float) -> None:
    try:
        pruned = await journal.prune(now)
    except StoreError as error:
        log.warning("journal.prune_failed", error=str(error))
        return
    for courier in couriers:
        courier.dead_lettered += pruned.dead_letters.get(courier.name, 0)
    for sink, count in pruned.dead_letters.items():
        log.warning("sink.dead_lettered", sink=sink, events=count)
