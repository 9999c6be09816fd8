"""The servers' time, learned from the Date header of their answers.

The gateway refuses a signature whose date is more than 15 minutes off, and a few of those
lock the key; so requests are dated by its clock and not by ours. A date that is more than
a day from ours is noted and not believed: what it says of us we would sign.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from statistics import median

import structlog

from watcher.core.retry_after import http_date

STEP = 60.0
MOST_SKEW = 86_400.0
"""Seconds between two clocks; beyond it one of them is not set at all."""
_SAMPLES = 5
_RESOLUTION = 1.0  # a Date header has whole seconds
_SLOW = 5.0  # an answer slower than that says little about the time

log = structlog.get_logger()

_seconds_of = lru_cache(maxsize=16)(http_date)


class ServerClock:
    """How far this machine's clock is ahead, by host; one for all targets.

    A host that has not answered yet is taken to agree with the last one that has, so
    that a wrong clock costs one refused request and not one for each target.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._samples: dict[str, deque[float]] = {}
        self._skews: dict[str, float] = {}
        self._last = 0.0  # skew of the host that answered last
        self._doubted: set[str] = set()
        self._astray: dict[str, float] = {}

    def note(self, host: str, date: str, sent: float, received: float) -> None:
        """Learn from one answer.

        Args:
            host: Who answered.
            date: The Date header; anything else is passed over.
            sent: When the request left, Unix seconds on this machine's clock.
            received: When the answer came, likewise.
        """
        shown = _seconds_of(date)
        if shown is None:
            return
        sample = (sent + received) / 2 - (shown + _RESOLUTION / 2)
        if not self._believes(host, sample):
            return
        samples = self._samples.setdefault(host, deque(maxlen=_SAMPLES))
        if samples and received - sent > _SLOW:
            return
        if samples and abs(sample - self._skews[host]) > STEP:
            samples.clear()  # a clock was set: what was known is void
            self._doubted.discard(host)
        samples.append(sample)
        self._last = self._skews[host] = median(samples)

    def _believes(self, host: str, sample: float) -> bool:
        if abs(sample) <= MOST_SKEW:
            self._astray.pop(host, None)
            return True
        if host not in self._astray:
            log.warning("clock.disbelieved", host=host, skew_seconds=round(sample))
        self._astray[host] = sample
        return False

    def astray(self, host: str) -> float:
        """Return the seconds by which a date is off that is not believed, else 0.0."""
        return self._astray.get(host, 0.0)

    def skew(self, host: str) -> float:
        """Return the seconds that this machine is ahead; 0.0 within one second."""
        seconds = self._skews.get(host, self._last)
        return seconds if abs(seconds) > _RESOLUTION else 0.0

    def offset(self, host: str) -> float:
        """Return the seconds by which requests are dated before this machine's time."""
        return 0.0 if host in self._doubted else self.skew(host)

    def doubt(self, host: str, offset: float) -> bool:
        """Judge the offset of a request that was refused as expired.

        The Date header may come from another machine than the one that checks
        signatures, so where following it is no help, this machine's time is tried, and
        the other way round.

        Returns:
            Whether there is another offset to try.
        """
        if abs(self.offset(host) - offset) <= STEP:
            self._doubted ^= {host}
        return abs(self.offset(host) - offset) > STEP

    def machine_time(self) -> float:
        """Return Unix seconds on this machine's clock."""
        return self._now()

    def server_time(self, host: str = "") -> float:
        """Return Unix seconds on the clock of a host, or of the last that answered."""
        return self._now() - self.skew(host)
