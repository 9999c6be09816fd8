"""The simulator's two times: scenario seconds and the server's wall clock.

Scenario seconds run from the start, `speed` times as fast as real ones, and order
everything that happens to the jobs. Every moment that the API shows is translated to
wall time, so a client that measures delays measures real ones at any speed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Clock:
    """Where real time comes from.

    Attributes:
        wall: Returns Unix seconds.
        monotonic: Returns seconds that never jump.
    """

    wall: Callable[[], float]
    monotonic: Callable[[], float]


# The only place of the simulator that names a real clock.
REAL_CLOCK = Clock(wall=time.time, monotonic=time.monotonic)  # noqa: TID251


class _Stretch(NamedTuple):
    """From here on, scenario time runs at this speed."""

    scenario: float
    elapsed: float
    speed: float


class ScenarioClock:
    """Translates between real, scenario and server time.

    Attributes:
        skew: Seconds that the server's wall clock is ahead of the real one.
    """

    def __init__(self, clock: Clock, *, speed: float = 1.0, skew: float = 0.0) -> None:
        """Start at scenario second 0."""
        self.skew = skew
        self._clock = clock
        self._wall_start = clock.wall()
        self._monotonic_start = clock.monotonic()
        self._stretches = [_Stretch(0.0, 0.0, _checked_speed(speed))]

    @property
    def speed(self) -> float:
        """Scenario seconds per real second; 0 while paused."""
        return self._stretches[-1].speed

    def monotonic(self) -> float:
        """Return the real monotonic clock, in seconds."""
        return self._clock.monotonic()

    def elapsed(self) -> float:
        """Return real seconds since the start."""
        return self._clock.monotonic() - self._monotonic_start

    def wall(self) -> float:
        """Return the server's wall clock, in Unix seconds."""
        return self._clock.wall() + self.skew

    def now(self) -> float:
        """Return scenario seconds since the start."""
        stretch = self._stretches[-1]
        return stretch.scenario + (self.elapsed() - stretch.elapsed) * stretch.speed

    def stamp(self, scenario: float) -> float:
        """Return the server's wall time of a scenario moment.

        A moment before the start lies as far back as the first speed puts it; one that
        was jumped over has the time of the jump; one that a pause keeps from coming
        is `inf`.
        """
        return self._wall_start + self.skew + self._elapsed_at(scenario)

    def set(self, *, speed: float | None = None, advance: float = 0.0) -> None:
        """Change the speed (0 pauses), or jump ahead by scenario seconds.

        Raises:
            ValueError: A speed or a jump below zero, or not finite.
        """
        if not 0 <= advance < math.inf:
            raise ValueError(f"clock: cannot advance by {advance}")
        wanted = self.speed if speed is None else _checked_speed(speed)
        stretch = _Stretch(self.now() + advance, self.elapsed(), wanted)
        self._stretches.append(stretch)

    def _elapsed_at(self, scenario: float) -> float:
        ceiling = math.inf
        for stretch in reversed(self._stretches):
            ahead = scenario - stretch.scenario
            if ahead >= 0:
                return min(stretch.elapsed + _duration(ahead, stretch.speed), ceiling)
            ceiling = stretch.elapsed
        return scenario / (self._stretches[0].speed or 1.0)


def _duration(distance: float, speed: float) -> float:
    if distance == 0:
        return 0.0
    return distance / speed if speed else math.inf


def _checked_speed(speed: float) -> float:
    if not 0 <= speed < math.inf:
        raise ValueError(f"clock: speed is a number from 0 up, not {speed}")
    return speed
