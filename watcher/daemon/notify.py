"""Tells systemd how the daemon is: ready, reloading, stopping, alive.

The watchdog is fed by the poll loop itself and by nothing else: a loop that hangs is
killed, while a cloud that does not answer changes nothing. Without systemd, and so
without `$NOTIFY_SOCKET`, every call does nothing.

Source: systemd, sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_MICROSECONDS = 1_000_000


@contextmanager
def open_notifier(environ: Mapping[str, str] = os.environ) -> Iterator[Notifier]:
    """Open the door to the service manager that the environment names, if any.

    Args:
        environ: `NOTIFY_SOCKET` is the address, `@` at its start stands for the
            abstract name space; `WATCHDOG_USEC` and `WATCHDOG_PID` say whether and how
            often this process must show that it is alive.

    Yields:
        The notifier; it works until the context ends.
    """
    address = _address(environ.get("NOTIFY_SOCKET", ""))
    if address is None:
        yield Notifier(None, "", math.inf)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.setblocking(False)
        yield Notifier(door, address, _watchdog_seconds(environ))


def _address(name: str) -> str | None:
    """Return what a socket can send to; None where nothing or no Unix socket is named."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """Return how long this process may be silent, in seconds."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    owner = environ.get("WATCHDOG_PID") or str(os.getpid())
    if not (microseconds.isascii() and microseconds.isdecimal()):
        return math.inf
    if owner != str(os.getpid()) or int(microseconds) == 0:
        return math.inf
    return int(microseconds) / _MICROSECONDS


class Notifier:
    """One-way messages to the service manager; never blocks and never fails.

    Args:
        door: A non-blocking datagram socket; None says nothing to nobody.
        address: Where messages go.
        silence: Seconds without a sign of life after which the manager kills.
    """

    def __init__(
        self, door: socket.socket | None, address: str, silence: float
    ) -> None:
        self._door = door
        self._address = address
        # A third, so that a sign of life is there by half even where a turn comes late.
        self._interval = silence / 3
        self._due = -math.inf if math.isfinite(silence) else math.inf
        self._text: str | None = None

    def ready(self) -> None:
        """Say that the daemon is up, or that a reload is over, well or not."""
        self._send("READY=1")

    def reloading(self, now: float) -> None:
        """Say that a reload begins; `ready` must follow.

        Args:
            now: CLOCK_MONOTONIC in seconds. It goes in the same datagram: systemd
                takes it to tell this reload from an earlier one.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(now * _MICROSECONDS)}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`; the same text again is not sent."""
        line = " ".join(text.split())
        if line != self._text and self._send(f"STATUS={line}"):
            self._text = line

    def turned(self, now: float) -> None:
        """Take note that the poll loop turned, and feed the watchdog where it is time.

        Args:
            now: Monotonic seconds.
        """
        if now >= self._due and self._send("WATCHDOG=1"):
            self._due = now + self._interval

    def _send(self, *lines: str) -> bool:
        """Send one datagram; False where it was not taken."""
        if self._door is None:
            return False
        try:
            self._door.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # a full or vanished socket: the next turn tries again
            return False
        return True
