"""When a job is asked next, and how fast a target may be asked at all.

Everything here takes the time and the chance as arguments: `now` is monotonic seconds,
`chance` a number in [0, 1).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from itertools import count

from watcher.core.errors import Reason
from watcher.core.model import LAGGING_LIMIT, JobKey, JobRecord, Phase, PollFailed
from watcher.core.retry_after import LONGEST_RETRY_AFTER

TICK = 0.1
"""Seconds; polls that fall due within one are released together."""
_ROUNDING = 1e-6  # of a tick: how far off the grid a float may be
INTERVAL_JITTER = 0.1
BACKOFF_JITTER = 0.25
FIRST_PAUSE = 1.0
LONGEST_CONFIRMATION = 15.0
SLOWEST_SHARE = 1 / 64
RECOVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often one job is asked; seconds.

    Attributes:
        interval: Between two looks at a job in doubt; the base of every back-off.
        backoff_max: Ceiling of every back-off that the server did not ask for.
        look: Between two looks at a job that simply runs; None is `interval`.
    """

    interval: float
    backoff_max: float
    look: float | None = None

    @property
    def ceiling(self) -> float:
        """The longest delay without a Retry-After."""
        return max(self.interval, self.backoff_max)


def next_delay(record: JobRecord, cadence: Cadence, chance: float) -> float | None:
    """Say in how many seconds a job is due after the poll that made `record`.

    Returns:
        None where the job is finished: it is never due again.
    """
    if record.phase.finished:
        return None
    failure = record.failure
    if failure is not None and failure.reason is not Reason.NOT_FOUND:
        delay = backoff(record.failures, cadence.interval, cadence.ceiling, chance)
        return max(delay, retry_after(failure))
    if failure is not None:
        return spread(min(cadence.interval, LONGEST_CONFIRMATION), chance)
    if record.phase is Phase.UNKNOWN and record.job is not None:
        delay = spread(cadence.ceiling, chance)
        if record.lagging is None:
            return delay
        return min(delay, max(cadence.interval, LAGGING_LIMIT - record.lagging.seconds))
    doubtful = record.quiet_answers or record.lagging or record.absences
    look = cadence.interval if doubtful or record.job is None else cadence.look
    return spread(look or cadence.interval, chance)


def spread(seconds: float, chance: float) -> float:
    """Shorten by up to a tenth, so that jobs drift apart and none is ever late."""
    # The grid of ticks takes at most another tick off: early again, never late.
    return seconds * (1 - INTERVAL_JITTER * chance)


def backoff(
    failures: int,
    base: float,
    ceiling: float,
    chance: float,
    jitter: float = BACKOFF_JITTER,
) -> float:
    """Double with each failure running from `base` to `ceiling`, in seconds.

    Less at most the share `jitter`, by chance: so that what failed together is not
    tried again together.
    """
    doublings = min(max(failures - 1, 0), 32)
    return min(ceiling, base * 2.0**doublings) * (1 - jitter * chance)


def retry_after(failure: PollFailed) -> float:
    """Return the seconds that the server asked us to wait, at most an hour; or 0."""
    return min(failure.retry_after or 0.0, LONGEST_RETRY_AFTER)


def tick_before(moment: float) -> float:
    """Return the last tick that is not after a moment."""
    return math.floor(moment / TICK + _ROUNDING) * TICK


def tick_after(moment: float) -> float:
    """Return the first tick that is not before a moment."""
    return math.ceil(moment / TICK - _ROUNDING) * TICK


class DueQueue:
    """Which job is due when; one heap, earliest deadline first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, JobKey]] = []
        self._entries: dict[JobKey, tuple[float, int]] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: JobKey, due: float) -> None:
        """Set when a job is due, replacing what was set before."""
        entry = (due, next(self._numbers))
        self._entries[key] = entry
        heapq.heappush(self._heap, (*entry, key))

    def bring_forward(self, key: JobKey, at: float) -> None:
        """Make a job that is queued due by this time."""
        due = self.due_at(key)
        if due is not None and due > at:
            self.put(key, at)

    def discard(self, key: JobKey) -> None:
        """Forget a job; it need not be there."""
        self._entries.pop(key, None)

    def due_at(self, key: JobKey) -> float | None:
        """Return when a job is due, or None where it is not queued."""
        entry = self._entries.get(key)
        return entry and entry[0]

    def next_due(self) -> float | None:
        """Return the earliest deadline, or None where nothing is queued."""
        while self._heap and self._is_stale(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> tuple[JobKey, float] | None:
        """Take out the job with the earliest deadline that has passed, with it."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._entries[key]
        return key, due

    def _is_stale(self, item: tuple[float, int, JobKey]) -> bool:
        due, number, key = item
        return self._entries.get(key) != (due, number)


class RateLimit:
    """The request rate of one target: a bucket that holds what a tick may send, and one.

    So no second carries more than `rate`, a tenth of it and one request. A throttle
    halves the rate; it grows back to the ceiling evenly over a minute.

    Source: ATM Forum, generic cell rate algorithm, in its form of virtual scheduling.
    """

    def __init__(self, requests_per_second: float) -> None:
        self.ceiling = requests_per_second
        self.rate = requests_per_second
        self._recovered_at = -math.inf
        self._expected_at = -math.inf  # of the next request, if all kept to the rate

    def limit(self, requests_per_second: float) -> None:
        """Set another ceiling."""
        self.ceiling = requests_per_second
        self.rate = requests_per_second

    def ready_at(self) -> float:
        """Return when the next request may be sent."""
        return self._expected_at - TICK

    def take(self, now: float) -> None:
        """Count a request that is sent now."""
        self._recover_rate(now)
        self._expected_at = max(self._expected_at, now) + 1 / self.rate

    def slow_down(self, now: float) -> None:
        """Halve the rate."""
        self._recover_rate(now)
        self.rate = max(self.rate / 2, self.ceiling * SLOWEST_SHARE)
        self._recovered_at = now

    def _recover_rate(self, now: float) -> None:
        if self.rate < self.ceiling:
            grown = self.ceiling * (now - self._recovered_at) / RECOVERY_SECONDS
            self.rate = min(self.ceiling, self.rate + grown)
        self._recovered_at = now


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a target is asked at all.

    A failure that concerns the whole target closes it; after the pause one probe at a
    time goes through, until one succeeds. Failures of requests that were on their way
    when it closed count once.

    Attributes:
        failures: Pauses running.
        closed_at: When it last closed.
        opens_at: Until when nothing is sent.
    """

    failures: int = 0
    closed_at: float = -math.inf
    opens_at: float = -math.inf

    def failed(
        self, sent_at: float, now: float, pause_max: float, chance: float, wait: float
    ) -> Gate:
        """Close, or stay closed, after a failed request.

        Args:
            sent_at: When the failed request was sent.
            now: When it failed.
            pause_max: Ceiling of the pause, seconds.
            chance: For the jitter.
            wait: Seconds that the server asked for; outranks the ceiling.
        """
        # Sent before it closed, so it tells nothing new: many fall with one outage.
        if sent_at < self.closed_at:
            return replace(self, opens_at=max(self.opens_at, now + wait))
        failures = self.failures + 1
        pause = max(backoff(failures, FIRST_PAUSE, pause_max, chance), wait)
        return Gate(failures, now, now + pause)

    def succeeded(self, sent_at: float) -> Gate:
        """Open after a good answer to a request sent since it closed."""
        return Gate() if self.failures and sent_at >= self.closed_at else self
