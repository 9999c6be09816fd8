"""How far a journal has grown: waited for by everybody who reads it."""

from __future__ import annotations

import anyio


class Growth:
    """The highest number that a journal has given, and a wait for the next."""

    def __init__(self) -> None:
        self._highest = 0
        self._more = anyio.Event()

    def reach(self, seq: int) -> None:
        """Say which number is the highest now."""
        if seq > self._highest:
            self._highest = seq
            self._more.set()
            self._more = anyio.Event()

    async def beyond(self, after: int) -> int:
        """Wait until the highest number is another than `after`; return it."""
        while self._highest == after:
            await self._more.wait()
        return self._highest
