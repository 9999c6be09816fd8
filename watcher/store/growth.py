"""How far a journal has grown: waited for by everybody who reads it."""

from __future__ import annotations

import anyio


class Growth:
    """The highest number that a journal has given, and a wait for the next.

    Attributes:
        highest: That number; 0 before the first.
    """

    def __init__(self) -> None:
        self.highest = 0
        self._more = anyio.Event()

    def reach(self, seq: int) -> None:
        """Say which number is the highest now."""
        if seq > self.highest:
            self.highest = seq
            self._more.set()
            self._more = anyio.Event()

    async def beyond(self, after: int) -> int:
        """Wait until the highest number is another than `after`; return it."""
        while self.highest == after:
            await self._more.wait()
        return self.highest
