"""Spares the garbage collector what lives long: every record of every job.

Records hold no cycles and go as soon as nobody needs them. The collector goes through all
of them all the same, whenever enough were replaced: with 10,000 jobs it stops everything
for 80 ms every few seconds. What has lived for a moment is therefore put aside. Whatever
garbage gathers there is collected once there may be enough of it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

EVERY = 1.0
"""Seconds between two turns: as long as new objects pile up."""
COUNTED_EVERY = 60
"""Turns after which it is looked how much was put aside."""
SHARE, SOME = 1.25, 20_000
"""How far what was put aside may grow before all of it is gone through."""


@contextmanager
def not_while_beginning() -> Iterator[None]:
    """Let nothing be searched while all that the store knows is read, then put it aside.

    The collector would go through it again and again: of 100,000 records it takes three
    quarters of the time.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


async def spare_what_lives(every: float = EVERY) -> None:
    """Put aside what lives, again and again; at the end it is as it was."""
    turn, whole = 0, gc.get_freeze_count()
    try:
        while True:
            if turn % COUNTED_EVERY == 0 and _much_more_than(whole):
                gc.unfreeze()
                gc.collect()
                gc.freeze()
                whole = gc.get_freeze_count()
            gc.collect()  # what is new alone
            gc.freeze()
            turn += 1
            await anyio.sleep(every)
    finally:
        gc.unfreeze()


def _much_more_than(whole: int) -> bool:
    return gc.get_freeze_count() > SHARE * whole + SOME
