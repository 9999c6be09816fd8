"""What is asked of the process from outside, from its first moment to its last."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

HEEDED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
END_WITHIN = 4.5
"""Seconds from the wish to the end, whatever hangs; service managers are told 5."""


class Wishes:
    """What was asked for and is to be done.

    Attributes:
        end: Set once the daemon is to end.
        reload: Set once it is to reload; whoever does replaces it.
    """

    def __init__(self, in_time: Callable[[int], None] | None = None) -> None:
        """Nothing yet.

        Args:
            in_time: Sees to it that the end comes, with this exit code, whatever hangs;
                None ends the process after `END_WITHIN`.
        """
        self._in_time = in_time or _end_in_time
        self.end = anyio.Event()
        self.reload = anyio.Event()

    def ask_for_end(self, exit_code: int = 0) -> None:
        """Ask for the end, and see to it that it comes in time.

        What was not committed by then was not told either: the next start asks for it
        again.
        """
        if not self.end.is_set():
            self.end.set()
            self._in_time(exit_code)

    def ask_for_reload(self) -> None:
        """Ask for a reload; several that are asked for at once are one."""
        self.reload.set()


def _end_in_time(exit_code: int) -> None:
    signal.signal(signal.SIGALRM, lambda *_: os._exit(exit_code))
    signal.setitimer(signal.ITIMER_REAL, END_WITHIN)


@contextmanager
def heeding(wishes: Wishes) -> Iterator[None]:
    """Let signals become wishes; before and after, none of them has an effect.

    Before, they wait, as the entry point blocks them: the daemon may have begun something
    by the time at which it can answer. After, they are blocked until the process is gone.
    """
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, wishes.ask_for_end)
    loop.add_signal_handler(signal.SIGINT, wishes.ask_for_end)
    loop.add_signal_handler(signal.SIGHUP, wishes.ask_for_reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
        for number in HEEDED:
            loop.remove_signal_handler(number)
