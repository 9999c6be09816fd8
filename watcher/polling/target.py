"""One target: its door, what is due on it, and how fast it may be asked."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from watcher.core.listing import Listing
from watcher.core.model import JobKey, Level, Notice
from watcher.core.outages import Outages
from watcher.core.schedule import Cadence, DueQueue, Gate, Pace
from watcher.ports import JobApi

LARGE_SKEW = 60.0
"""Seconds between two clocks that somebody should hear of."""


@dataclass(slots=True)
class Lane:
    """A target as the poller sees it.

    Attributes:
        cadence: How often one job is asked where the list call is not relied on.
        task_interval: Seconds between two looks at one job where it is.
        running: Watched jobs that are not finished.
        unattempted: Those of them that were never asked.
        skewed: Whether this machine's clock was last said to be wrong.
    """

    name: str
    api: JobApi
    pace: Pace
    cadence: Cadence
    task_interval: float
    listing: Listing
    max_in_flight: int
    outages: Outages
    queue: DueQueue = field(default_factory=DueQueue)
    gate: Gate = field(default_factory=Gate)
    in_flight: int = 0
    listing_in_flight: bool = False
    running: set[JobKey] = field(default_factory=set)
    unattempted: set[JobKey] = field(default_factory=set)
    skewed: bool = False

    @property
    def present_cadence(self) -> Cadence:
        """How often one job is asked now."""
        if not self.listing.active:
            return self.cadence
        look = max(self.cadence.interval, self.task_interval)
        return replace(self.cadence, look=look)

    @property
    def due(self) -> float:
        """When the next job or page is due; infinity where none is."""
        job, page = self.queue.next_due(), self.listing.due_at
        due = math.inf if job is None else job
        if not self.listing_in_flight and self.listing.wanted(len(self.running), page):
            due = min(due, page)
        return due

    def next_send(self, now: float) -> float:
        """Return when the next request may go out; infinity: not before an answer."""
        due = self.due
        if due == math.inf or not self.gate.admits(self.gate.opens_at, self.in_flight):
            return math.inf
        if self.in_flight >= self.max_in_flight:
            return math.inf
        return max(due, self.gate.opens_at, self.pace.ready_at(), now)

    def release_page(self, now: float) -> bool:
        """Whether the lane, whose turn it is, asks for a page; it counts as in flight."""
        if self.listing_in_flight or not self.listing.wanted(len(self.running), now):
            return False
        self.listing_in_flight = True
        self._send(now)
        return True

    def release(self, now: float) -> tuple[JobKey, float] | None:
        """Return the job that the lane, whose turn it is, asks now, with its deadline."""
        if due := self.queue.pop_due(now):
            self._send(now)
        return due

    def _send(self, now: float) -> None:
        self.pace.take(now)
        self.in_flight += 1

    def crowded(self, lanes: Iterable[Lane]) -> bool:
        """Whether the key lets nothing more go before an answer is there.

        Among lanes that share a key, none takes the last place from the others.
        """
        width, account = self.api.key_limit, self.api.account
        if width is None:
            return False
        sharing = [self] if account is None else _of_account(account, lanes)
        own = width if len(sharing) == 1 else max(width - 1, 1)
        together = sum(lane.in_flight for lane in sharing)
        return self.in_flight >= own or together >= width

    def compare_clocks(self) -> Iterator[Notice]:
        """Yield what there is to say of this machine's clock, on the edges only."""
        skew = self.api.clock_skew
        # Half the distance back, so that a clock at the limit is told once.
        skewed = abs(skew) > (LARGE_SKEW / 2 if self.skewed else LARGE_SKEW)
        if skewed is not self.skewed:
            self.skewed = skewed
            fields = {"target": self.name, "skew_seconds": round(skew, 1)}
            event = "clock.skewed" if skewed else "clock.agreed"
            yield Notice(event, Level.WARNING if skewed else Level.INFO, fields)

    def reopen(self, api: JobApi, now: float) -> None:
        """Ask through another door; what failed at the earlier one is due at once."""
        self.api, self.gate = api, Gate()
        self.listing.begin_afresh(now)
        for key in self.outages:
            self.queue.hasten(key, now)

    def retry(self, key: JobKey, now: float) -> None:
        """Ask again for a job whose earlier door was closed while it was asked."""
        if key in self.running:
            self.queue.put(key, now)

    def forget(self, key: JobKey) -> None:
        """Ask no more for a job."""
        self.queue.discard(key)
        self.running.discard(key)
        self.unattempted.discard(key)
        self.outages.forget(key)


def in_turn(lanes: Collection[Lane], now: float) -> Iterator[Lane]:
    """Yield those that may send one request now, that with the least in flight first."""
    ready = [lane for lane in lanes if lane.next_send(now) <= now]
    for lane in sorted(ready, key=lambda lane: (lane.in_flight, lane.due)):
        if not lane.crowded(lanes):
            yield lane


def next_turn(lanes: Collection[Lane], now: float) -> float:
    """Return when the first of them may send; infinity: not before an answer."""
    turns = [(lane.next_send(now), lane) for lane in lanes]
    free = (at for at, lane in turns if at > now or not lane.crowded(lanes))
    return min(free, default=math.inf)


def _of_account(account: str, lanes: Iterable[Lane]) -> list[Lane]:
    return [lane for lane in lanes if lane.api.account == account]
