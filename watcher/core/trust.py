"""How far the look at single tasks is stretched, by what the list has proven.

Each look at a job on which a task had moved is evidence about the list: had the job's
row moved too, it told of the task. What is stretched is earned by many of these running
and lost by a single lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from watcher.core.model import Level, Notice

FIRST_NEEDED = 50
MOST_NEEDED = 1000


@dataclass(frozen=True, slots=True)
class Trust:
    """What the list of one target has earned; kept over restarts.

    Attributes:
        interval: Seconds between two looks at one job that the list covers.
        hits: Looks running that found the row moved where a task had.
        misses: Looks, since the beginning, that found it had not.
        needed: Hits running for each doubling of the interval.
    """

    interval: float
    hits: int = 0
    misses: int = 0
    needed: int = FIRST_NEEDED

    def within(self, least: float, most: float) -> Trust:
        """Return the trust under these bounds of the interval, in seconds.

        What was kept may be of other settings, or damaged.
        """
        return Trust(
            interval=max(least, min(self.interval, most)),
            hits=max(self.hits, 0),
            misses=max(self.misses, 0),
            needed=max(FIRST_NEEDED, min(self.needed, MOST_NEEDED)),
        )

    def looked(
        self, *, moved: bool, row_moved: bool, least: float, most: float
    ) -> Trust:
        """Take in a look at a job.

        Args:
            moved: Whether a task had moved since the look before.
            row_moved: Whether the job's row in the list had.
            least: Seconds between two looks where nothing is earned.
            most: How far they may be stretched.
        """
        if not moved:
            return self
        if not row_moved:
            needed = min(2 * self.needed, MOST_NEEDED)
            return Trust(least, misses=self.misses + 1, needed=needed)
        earned = replace(self, hits=self.hits + 1)
        if earned.hits % earned.needed:
            return earned
        return replace(earned, interval=min(2 * self.interval, most))


def changed(target: str, before: Trust, after: Trust) -> Iterator[Notice]:
    """Yield what there is to say where the interval is another one."""
    if before.interval == after.interval:
        return
    fields = {
        "target": target,
        "interval": after.interval,
        "hits": after.hits,
        "misses": after.misses,
    }
    falls = after.interval < before.interval
    yield Notice("poll.trust", Level.WARNING if falls else Level.INFO, fields)
