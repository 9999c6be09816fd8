"""Time by which a journal ages, whatever the wall clock does."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_GAP = 86_400.0
"""Seconds; by a larger step of the wall clock a journal does not age."""


@dataclass(slots=True)
class JournalTime:
    """A time that goes on with the wall clock, but neither back nor far at once.

    A clock that was wrong by years and is put right would else age an event by years:
    past retention before its sink was ever asked. So does a daemon that was down.

    Attributes:
        time: What it was at the last look.
        wall: The wall clock at the last look, Unix seconds.
    """

    time: float
    wall: float

    def at(self, wall: float) -> float:
        """Return what time it is, given the wall clock."""
        self.time += min(max(wall - self.wall, 0.0), LONGEST_GAP)
        self.wall = wall
        return self.time
