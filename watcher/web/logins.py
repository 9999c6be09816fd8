"""Passwords: computed one at a time, for few who wait, and who fails is noted.

A password takes a tenth of a second of a processor: who guesses must neither take the
time of others nor make a queue of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import anyio.to_thread
import structlog

from watcher.web.http import Refused

MOST_WAITING = 16
MOST_OF_A_PEER = 4
BURST = 10
EVERY = 1.0
"""A peer may fail so often at once, and then once in so many seconds."""
MOST_PEERS = 1000
SAID_EVERY = 60.0
"""Seconds between two lines about those who fail."""

log = structlog.get_logger()


class Throttle:
    """How often each peer may still fail."""

    def __init__(self) -> None:
        self._free_at: dict[str, float] = {}

    def check(self, peer: str, now: float) -> None:
        """Let a peer try.

        Raises:
            Refused: It has failed too often.
        """
        late = self._free_at.get(peer, now) - now - (BURST - 1) * EVERY
        if late > 0:
            text = "too many wrong passwords"
            raise Refused(429, text, {"Retry-After": str(math.ceil(late))})

    def fail(self, peer: str, now: float) -> None:
        """Note that it failed."""
        self._free_at[peer] = max(self._free_at.pop(peer, now), now) + EVERY
        if len(self._free_at) > MOST_PEERS:
            del self._free_at[next(iter(self._free_at))]


class Logins:
    """The passwords that are tried."""

    def __init__(self, failed: Callable[[], None]) -> None:
        """Make it; `failed` counts a password that is wrong."""
        self._failed = failed
        self._throttle = Throttle()
        self._turn = anyio.Lock()
        self._waiting: list[str] = []
        self._untold = 0
        self._told_at = -math.inf

    async def compute(
        self, peer: str, here: Callable[[], bool], matches: Callable[[], bool]
    ) -> bool:
        """Find out whether a password is right.

        Args:
            peer: Who asks.
            here: Whether it still does, when its turn comes.
            matches: Computes it, in a thread.

        Raises:
            Refused: Too many wait already, or this one has failed too often.
        """
        with self._queued(peer):
            async with self._turn:
                # Looked at here, so that those who came together count each other.
                self._throttle.check(peer, anyio.current_time())
                if not here():
                    raise Refused(408, "gone")
                right = await anyio.to_thread.run_sync(matches, abandon_on_cancel=True)
                if not right:
                    self._note(peer, anyio.current_time())
                return right

    @contextmanager
    def _queued(self, peer: str) -> Iterator[None]:
        full = len(self._waiting) >= MOST_WAITING
        if full or self._waiting.count(peer) >= MOST_OF_A_PEER:
            text = "too many passwords wait to be looked at"
            raise Refused(429, text, {"Retry-After": "1"})
        self._waiting.append(peer)
        try:
            yield
        finally:
            self._waiting.remove(peer)

    def _note(self, peer: str, now: float) -> None:
        self._failed()
        self._throttle.fail(peer, now)
        self._untold += 1
        if now - self._told_at >= SAID_EVERY:
            log.warning("server.login_failed", peer=peer, failures=self._untold)
            self._told_at, self._untold = now, 0
