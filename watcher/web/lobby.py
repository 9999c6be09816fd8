"""The lobby: connections that have said nothing whole yet.

Each costs a file here and nothing else: no transport, no parser, no memory for TLS. Who
has sent a whole header, or the whole of what a handshake begins with, is let in; what
was sent is looked at and stays where it is.
"""

from __future__ import annotations

import math
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass

HEADER_WITHIN = 10.0
"""Seconds until a header is whole, from the accept or from its first byte on."""
LARGEST_HEADER = 2**15
"""Bytes that may come before a request is whole; aiohttp alone would keep a megabyte."""
AT_ONCE = 128

_RECORD_HEADER = 5  # of TLS: type, version, and the length of the rest in two bytes
_HANDSHAKE = 0x16


@dataclass(frozen=True, slots=True)
class Guest:
    """One connection in the lobby.

    Attributes:
        peer: Where it comes from.
        since: Monotonic time at which it came.
    """

    connection: socket.socket
    peer: str
    since: float


class Lobby:
    """Those who wait, the longest waiting first."""

    def __init__(self, *, tls: bool) -> None:
        """Make an empty one; `tls` says whether a handshake comes first."""
        self._tls = tls
        self._guests: dict[int, Guest] = {}
        self._poll = select.epoll()

    def __len__(self) -> int:
        return len(self._guests)

    def fileno(self) -> int:
        """Return what can be read once somebody has said something."""
        return self._poll.fileno()

    def add(self, connection: socket.socket, peer: str, now: float) -> None:
        """Take somebody in."""
        connection.setblocking(False)
        number = connection.fileno()
        self._guests[number] = Guest(connection, peer, now)
        self._poll.register(number, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)

    def ready(self) -> Iterator[Guest]:
        """Yield, and give up, those who have said something whole."""
        for number, _ in self._poll.poll(0, AT_ONCE):
            guest = self._guests.get(number)
            if guest is None:
                continue
            whole = self._is_whole(guest.connection)
            if whole:
                self._poll.unregister(number)
                del self._guests[number]
                yield guest
            elif whole is None:
                self._drop(number)

    def _is_whole(self, connection: socket.socket) -> bool | None:
        """Whether what was sent is whole; None: it will never be."""
        try:
            said = connection.recv(LARGEST_HEADER, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return None
        if not said:
            return None
        if self._tls:
            length = int.from_bytes(said[3:_RECORD_HEADER], "big")
            return said[0] != _HANDSHAKE or len(said) >= _RECORD_HEADER + length
        whole = b"\r\n\r\n" in said
        return None if not whole and len(said) == LARGEST_HEADER else whole

    @property
    def since(self) -> float:
        """Since when the one that has waited longest does; infinite if there is none."""
        return next((guest.since for guest in self._guests.values()), math.inf)

    def shrink(self) -> None:
        """Show out who has waited longest."""
        self._drop(next(iter(self._guests)))

    def sweep(self, now: float) -> None:
        """Show out who has waited too long."""
        while self.since <= now - HEADER_WITHIN:
            self.shrink()

    def close(self) -> None:
        """Show out everybody."""
        for number in list(self._guests):
            self._drop(number)
        self._poll.close()

    def _drop(self, number: int) -> None:
        self._guests.pop(number).connection.close()
