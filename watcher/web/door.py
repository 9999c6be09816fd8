"""The door: who gets in, how many at once, and how long one may stand in it silent.

A connection *waits* while no whole request of its has come, and is *served* otherwise.
Where the house is full, the one that has waited longest gives way to the next that
comes, so that a probe gets in however many say nothing.
"""

from __future__ import annotations

import asyncio
import math
import resource
import socket
import ssl
from asyncio import sslproto
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from http import HTTPStatus
from itertools import count
from logging import Logger
from typing import Any

import anyio
import anyio.lowlevel
import structlog
from aiohttp import web
from anyio.abc import SocketAttribute, TaskGroup

from watcher.web.lobby import AT_ONCE, HEADER_WITHIN, LARGEST_HEADER, Guest, Lobby

KEPT_ALIVE = 75.0
"""Seconds until the next request of a connection begins."""
HANDSHAKE_WITHIN = 5.0
MOST_HEADERS = 64
LINGERS = 2.0
LEFT_OVER = 2**16
"""Seconds for which, and bytes up to which, a body that nobody wants is taken."""
BACKLOG = 1024
LED_AT_ONCE = 4
SWEEP = 0.5
SAID_EVERY = 60.0
"""Seconds between two lines that say the same of the door."""
_PAUSE = 0.1
_TLS_BUFFER = 2**14

log = structlog.get_logger()

# What asyncio sets aside for each TLS connection before its first byte has come: 256 KiB
# would be 256 MiB for a full house.
sslproto.SSLProtocol.max_size = _TLS_BUFFER

Refusal = Callable[[int, str], web.StreamResponse]


class Visitor(web.RequestHandler):
    """One connection, from the accept to its end.

    Attributes:
        peer: Where it comes from.
        since: Monotonic time since which it waits, if it does.
        deadline: Monotonic time at which it is shown out; infinite while it is served.
    """

    __slots__ = ("_begun", "_door", "_room", "_socket", "deadline", "peer", "since")

    def __init__(self, door: Door, guest: Guest) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            door.manager,
            loop=loop,
            keepalive_timeout=KEPT_ALIVE,
            access_log=None,  # type: ignore[arg-type]
            logger=door.logger,
            lingering_time=LINGERS,
            max_headers=MOST_HEADERS,
            auto_decompress=False,  # nobody has been asked yet who it is
        )
        self._door = door
        self._socket = guest.connection
        self._begun = True
        self._room: float = LARGEST_HEADER
        self.peer = guest.peer
        self.since = loop.time()
        self.deadline = self.since + HEADER_WITHIN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take nothing more to send than what the kernel has taken: see `sending`."""
        super().connection_made(transport)
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=1)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Leave the house."""
        self._door.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came, unless it is a header without end."""
        self._room = math.inf if b"\r\n\r\n" in data else self._room - len(data)
        if self._room < 0:
            self.give_way()
            return
        if data and not self._begun:
            self._begun = True
            if self.deadline < math.inf:
                self.deadline = self._loop.time() + HEADER_WITHIN
        super().data_received(data)

    def arrive(self, *, with_body: bool) -> None:
        """Note that a request is whole; its body is bounded by who reads it."""
        self._begun = False
        self._room = math.inf if with_body else LARGEST_HEADER

    def serve(self) -> None:
        """Note that the request has a claim to be answered."""
        self.deadline = math.inf
        self._door.waiting.pop(self, None)

    def wait(self) -> None:
        """Note that the request has none, or none any more."""
        patience = HEADER_WITHIN if self._begun else KEPT_ALIVE
        self.since = self._loop.time()
        self.deadline = self.since + patience
        self._room = min(self._room, LARGEST_HEADER + LEFT_OVER)
        if self.transport is not None:
            self._door.waiting[self] = None

    def give_way(self) -> None:
        """Leave at once, whatever is under way."""
        self._door.forget(self)
        if self.transport is not None:
            self.transport.abort()
        else:  # in a handshake, which ends as if the other side had gone
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request, or a fault of ours, as any other refusal."""
        super().handle_error(request, status, exc, message)
        answer = self._door.refusal(status, HTTPStatus(status).phrase)
        answer.force_close()
        return answer


class Door:
    """Where connections come in.

    Attributes:
        manager: Aiohttp's own account of the connections.
        logger: What aiohttp tells its troubles.
        refusal: Makes an answer of a status and a line.
        waiting: Those without a request, the longest waiting first.
    """

    def __init__(
        self,
        manager: web.Server,
        logger: Logger,
        refusal: Refusal,
        most: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        """Make a door for at most so many connections, fewer where files are few."""
        self.manager = manager
        self.logger = logger
        self.refusal = refusal
        self.waiting: dict[Visitor, None] = {}
        self._inside: set[Visitor] = set()
        self._entering: dict[Visitor, None] = {}
        self._lobby = Lobby(tls=tls is not None)
        self._most = min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._most_entering = max(1, self._most // 4)
        self._tls = tls
        self._said_at = -math.inf

    async def attend(self, listener: socket.socket) -> None:
        """Take whoever comes into the lobby."""
        at_once = max(1, min(AT_ONCE, self._most // 4))
        while True:
            await anyio.wait_readable(listener)
            try:
                for _ in range(at_once):
                    self._receive(*listener.accept())
            except BlockingIOError:
                continue  # that was all
            except OSError as exc:  # no file, no memory, or gone again
                await self._stumble(exc)

    def _receive(self, connection: socket.socket, address: tuple[Any, ...]) -> None:
        if self._has_room():
            peer = address[0].removeprefix("::ffff:")
            self._lobby.add(connection, peer, anyio.current_time())
        else:
            connection.close()

    async def usher(self, tasks: TaskGroup) -> None:
        """Lead in who has something to say, some at a turn of the loop."""
        led = count(1)
        while True:
            await anyio.wait_readable(self._lobby.fileno())
            for guest in self._lobby.ready():
                tasks.start_soon(self._let_in, guest)
                if next(led) % LED_AT_ONCE == 0:
                    await anyio.lowlevel.checkpoint()

    async def sweep(self) -> None:
        """Show out who has waited too long."""
        while True:
            now = anyio.current_time()
            self._lobby.sweep(now)
            for visitor in [each for each in self.waiting if each.deadline <= now]:
                visitor.give_way()
            await anyio.sleep(SWEEP)

    def close(self) -> None:
        """Show out who is in the lobby."""
        self._lobby.close()

    def forget(self, visitor: Visitor) -> None:
        """Free a place."""
        self._inside.discard(visitor)
        self._entering.pop(visitor, None)
        self.waiting.pop(visitor, None)

    async def _let_in(self, guest: Guest) -> None:
        visitor = Visitor(self, guest)
        self._inside.add(visitor)
        self.waiting[visitor] = None
        within = HANDSHAKE_WITHIN if self._tls else None
        with self._handshake(visitor):
            try:
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: visitor,
                    guest.connection,
                    ssl=self._tls,
                    ssl_handshake_timeout=within,
                )
            except OSError as exc:
                exc.__traceback__ = None  # a ring, and all that the handshake took
        if visitor.transport is None:
            self.forget(visitor)

    @contextmanager
    def _handshake(self, visitor: Visitor) -> Iterator[None]:
        """Give way to others where too many have not shown that they mean it."""
        if len(self._entering) >= self._most_entering:
            next(iter(self._entering)).give_way()
        self._entering[visitor] = None
        try:
            yield
        finally:
            self._entering.pop(visitor, None)

    def _has_room(self) -> bool:
        return len(self._lobby) + len(self._inside) < self._most or self._shrink()

    def _shrink(self) -> bool:
        """Let the one that has been silent longest give way; False: there is none."""
        longest = next(iter(self.waiting), None)
        if longest is not None and longest.since <= self._lobby.since:
            longest.give_way()
        elif self._lobby:
            self._lobby.shrink()
        else:
            return False
        return True

    async def _stumble(self, exc: OSError) -> None:
        now = anyio.current_time()
        if now - self._said_at >= SAID_EVERY:
            self._said_at = now
            log.warning(
                "server.accept_failed",
                error=exc.strerror,
                connections=len(self._lobby) + len(self._inside),
            )
        self._shrink()
        await anyio.sleep(_PAUSE)


@asynccontextmanager
async def listening(host: str | None, port: int) -> AsyncIterator[list[socket.socket]]:
    """Listen as long as the context is open.

    Raises:
        OSError: The address cannot be had.
    """
    every = await anyio.create_tcp_listener(
        local_host=host, local_port=port, backlog=BACKLOG
    )
    async with every:
        raw = SocketAttribute.raw_socket
        yield [each.extra(raw) for each in every.listeners]  # noqa: S610 - no Django


@asynccontextmanager
async def beside() -> AsyncIterator[TaskGroup]:
    """Open a task group that ends with its context and wraps none of its errors."""
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    try:
        yield tasks
    finally:
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)


def visitor_of(incoming: web.BaseRequest) -> Visitor:
    """Return the connection that a request came on."""
    visitor = incoming.protocol
    assert isinstance(visitor, Visitor)  # noqa: S101 - all come in by the door
    return visitor
