"""Holds a proof that expires: had again in good time, by one caller for all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import copy
from typing import Generic, TypeVar

import anyio

from watcher.client.credentials.base import Token
from watcher.client.signing import Key
from watcher.core.errors import ApiError

MARGIN = 2400.0
PAUSE = 5.0
FORCED_EVERY = 60.0

_Kind = TypeVar("_Kind", bound=Key | Token)


class Renewal(Generic[_Kind]):
    """The newest proof of a source whose proofs expire.

    It is had again when 40 minutes are left, or a third of its life where that is less.
    While that fails the old one is used as long as it lasts. A failure is not provoked
    again for 5 seconds, and a proof that the API refused is exchanged at most once a
    minute.

    Args:
        obtain: Asks the source; raises `ApiError`.
        now: Unix seconds on the server's clock.
    """

    def __init__(
        self, obtain: Callable[[], Awaitable[_Kind]], now: Callable[[], float]
    ) -> None:
        self._obtain = obtain
        self._now = now
        self._proof: _Kind | None = None
        self._renew_at = 0.0
        self._failure: ApiError | None = None
        self._failed_at = 0.0
        self._forced_at: float | None = None
        self._obtaining = anyio.Lock()

    async def current(self) -> _Kind:
        """Return a proof that has not expired.

        Raises:
            ApiError: There is none, and none could be had.
        """
        ready = self._ready(busy=self._obtaining.locked())
        if ready is not None:
            return ready
        async with self._obtaining:
            ready = self._ready(busy=False)
            if ready is not None:
                return ready
            if self._failure is not None and self._paused():
                raise copy(self._failure)
            return await self._exchange(self._usable())

    async def renew(self, refused: _Kind) -> _Kind:
        """Return another proof than the refused one; the same if there is none yet.

        Raises:
            ApiError: None could be had.
        """
        async with self._obtaining:
            moment = anyio.current_time()
            if self._proof is not None and self._proof != refused:
                return self._proof
            if self._forced_at is not None and moment < self._forced_at + FORCED_EVERY:
                return refused
            self._forced_at = moment
            return await self._exchange(None)

    def _ready(self, *, busy: bool) -> _Kind | None:
        """Return a proof that is fresh, or valid while a fresh one is not to be had."""
        if self._now() < self._renew_at:
            return self._proof
        return self._usable() if busy or self._paused() else None

    def _usable(self) -> _Kind | None:
        expires_at = None if self._proof is None else self._proof.expires_at
        expired = expires_at is not None and self._now() >= expires_at
        return None if expired else self._proof

    def _paused(self) -> bool:
        failed = self._failure is not None
        return failed and anyio.current_time() < self._failed_at + PAUSE

    async def _exchange(self, usable: _Kind | None) -> _Kind:
        try:
            proof = await self._obtain()
        except ApiError as error:
            self._failure, self._failed_at = error, anyio.current_time()
            if usable is None:
                raise
            return usable
        self._failure = None
        self._proof = self._proof if self._proof == proof else proof
        self._renew_at = self._time_to_renew(proof)
        return self._proof

    def _time_to_renew(self, proof: _Kind) -> float:
        if proof.expires_at is None:
            return float("inf")
        now = self._now()
        margin = min(MARGIN, (proof.expires_at - now) / 3)
        # One that seems to have expired already is left to the API to judge: this
        # machine's clock may be wrong, and the API's answer will show it.
        return max(proof.expires_at - margin, now + PAUSE)
