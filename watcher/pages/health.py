"""`/healthz` and `/readyz`: about this process only, never about the cloud."""

from __future__ import annotations

from collections.abc import Callable, Collection

from watcher.ports import Request, Response

STUCK_AFTER = 10.0
"""Seconds without a turn of the poll loop; it turns every second, due or not."""


class LivenessPage:
    """200 while the poll loop turns."""

    path = "/healthz"
    parameters: Collection[str] = ()

    def __init__(
        self, turned_at: Callable[[], float], now: Callable[[], float]
    ) -> None:
        """Make the page.

        Args:
            turned_at: Monotonic time of the loop's last turn.
            now: The monotonic clock.
        """
        self._turned_at = turned_at
        self._now = now

    async def respond(self, _: Request) -> Response:
        """Say whether the loop turns on time."""
        age = self._now() - self._turned_at()
        if age > STUCK_AFTER:
            return Response([f"poll loop stuck for {age:.0f} s\n".encode()], status=503)
        return Response([b"ok\n"])


class ReadinessPage:
    """200 once the first round of polls was attempted."""

    path = "/readyz"
    parameters: Collection[str] = ()

    def __init__(self, ready: Callable[[], bool]) -> None:
        """Make the page; `ready` says whether the first round was attempted."""
        self._ready = ready
        self._was_ready = False

    async def respond(self, _: Request) -> Response:
        """Say whether the daemon is up; once it is, it stays so."""
        self._was_ready = self._was_ready or self._ready()
        if not self._was_ready:
            return Response([b"first round of polls is under way\n"], status=503)
        return Response([b"ready\n"])
