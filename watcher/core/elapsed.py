"""How long something has lasted, whatever is done to the wall clock meanwhile."""

from __future__ import annotations

from watcher.core.model import Lasted, Tick


def lasting(before: Lasted | None, now: float, tick: Tick) -> Lasted:
    """Say for how long something has been seen to last that is seen again now.

    Within one life of the process the clock that nobody sets decides. Between two
    lives there is only the wall clock, which may have been set: such a gap counts for
    at most as long as was seen, and never for less than nothing.

    Args:
        before: What was said at the last look; None where this is the first.
        now: Unix seconds.
        tick: The same moment on the clock that nobody sets.
    """
    if before is None:
        return Lasted(0.0, now, tick)
    if tick.life == before.tick.life:
        gap = tick.seconds - before.tick.seconds
    else:
        gap = min(now - before.wall, before.seconds)
    return Lasted(before.seconds + max(0.0, gap), now, tick)
