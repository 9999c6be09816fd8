"""A connection that is made when it is needed, and never waited for without end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, LiteralString, TypeAlias, TypeVar

import anyio
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from watcher.core.address import is_loopback
from watcher.core.errors import StoreError

logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # what fails is said once, here

_Result = TypeVar("_Result")
Rows: TypeAlias = Sequence[tuple[Any, ...]]
Connection: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]

STATEMENT = 4.0
"""Seconds that the server may work on one statement; below any lease."""
LOCK = 2.0
"""Seconds of it that a statement may wait for somebody else's lock."""
ANSWER = STATEMENT + 2.0
"""Seconds after which a server that does not answer is cut off."""
CONNECT = 5
"""Seconds for one address of the server."""
KNOWS_TRANSACTION_TIMEOUT = 170_000
_LIMITS = {
    "statement_timeout": STATEMENT,
    "lock_timeout": LOCK,
    "idle_in_transaction_session_timeout": LOCK,
}


def connection_string(url: str, password: str | None) -> str:
    """Return what libpq is given, with the defaults that a store wants.

    A host that is not this machine must show a certificate of its name, unless the URL
    or the environment says otherwise.

    Raises:
        StoreError: The URL has what libpq does not know.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise StoreError(str(error).strip()) from error
    hosts = str(given.get("host") or os.environ.get("PGHOST", ""))
    here = all(_is_here(host) for host in hosts.split(","))
    defaults: dict[str, Any] = {
        "sslmode": os.environ.get("PGSSLMODE") or ("prefer" if here else "verify-full"),
        "sslrootcert": os.environ.get("PGSSLROOTCERT") or ("" if here else "system"),
        "application_name": "devserver-watcher",
        "connect_timeout": CONNECT,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(ANSWER * 1000),
    }
    if given.get("sslmode") not in {None, "verify-full"}:
        del defaults["sslrootcert"]  # libpq takes the system's authorities with no less
    merged = {name: value for name, value in defaults.items() if value != ""}
    merged |= {**given, "client_encoding": "utf8"}
    if password is not None:
        merged["password"] = password
    return make_conninfo("", **merged)


def _is_here(host: str) -> bool:
    return not host or host.startswith(("/", "@")) or is_loopback(host)


def reason(error: psycopg.Error) -> str:
    """Say in one line what a server or its connection said."""
    text = error.diag.message_primary or str(error)
    line = " ".join(text.split())[:256]
    return f"{line} ({error.sqlstate})" if error.sqlstate else line


class Line:
    """One connection and whose turn it is to use it.

    Nothing is kept in the session, so that PgBouncer may lend another one for each
    transaction: time-outs are part of each transaction, and nothing is prepared.

    Args:
        conninfo: See `connection_string`.
        greet: Called with each new connection, before anything else uses it.
    """

    def __init__(
        self, conninfo: str, greet: Callable[[Connection], Awaitable[None]]
    ) -> None:
        self._conninfo = conninfo
        self._greet = greet
        self._turn = anyio.Lock()
        self._connection: Connection | None = None

    async def ask(self, statement: LiteralString, values: Mapping[str, Any]) -> Rows:
        """Carry out one statement in a transaction of its own; return its rows.

        It happens whole or not at all, whoever asked may be cancelled meanwhile.

        Raises:
            StoreError: It did not happen, or it is not known whether it did.
            psycopg.errors.UniqueViolation: It did not; a like one came in between.
        """
        return (await self.ask_all([(statement, values)]))[-1]

    async def ask_all(
        self, statements: Sequence[tuple[LiteralString, Mapping[str, Any]]]
    ) -> list[Rows]:
        """Carry out statements in one transaction and one round trip.

        Raises:
            StoreError: See `ask`.
            psycopg.errors.UniqueViolation: See `ask`.
        """

        async def work(connection: Connection) -> list[Rows]:
            return await _in_one_go(connection, statements)

        return await self.use(work)

    async def use(self, work: Callable[[Connection], Awaitable[_Result]]) -> _Result:
        """Do some work on the connection while nobody else does.

        Raises:
            StoreError: See `ask`.
            psycopg.errors.UniqueViolation: See `ask`.
        """
        async with self._turn:
            with anyio.CancelScope(shield=True):
                result = await self._tried(work)
            return result  # noqa: RET504 - a scope may end without one

    async def close(self) -> None:
        """Let go of the connection; what is under way is waited for."""
        async with self._turn:
            await self._drop()

    async def _tried(self, work: Callable[[Connection], Awaitable[_Result]]) -> _Result:
        try:
            return await self._used(work)
        except psycopg.errors.UniqueViolation:
            raise
        except (psycopg.Error, OSError, UnicodeError) as error:
            await self._drop()
            said = reason(error) if isinstance(error, psycopg.Error) else str(error)
            raise StoreError(said) from error

    async def _used(self, work: Callable[[Connection], Awaitable[_Result]]) -> _Result:
        if self._connection is None or self._connection.closed:
            self._connection = await self._opened()
        with _Patience(self._connection, ANSWER):
            return await work(self._connection)

    async def _opened(self) -> Connection:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, prepare_threshold=None
        )
        try:
            with _Patience(connection, ANSWER):
                await self._greet(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()


class _Patience:
    """Hangs up on a server that does not answer in time, so that who waits is told."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._end = loop.call_later(self._seconds, self._hang_up)

    def __exit__(self, *_: object) -> None:
        self._end.cancel()

    def _hang_up(self) -> None:
        # Of a copy: closing a number that the loop still waits for would confuse it.
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self._connection.fileno())) as line,
        ):
            line.shutdown(socket.SHUT_RDWR)


async def _in_one_go(
    connection: Connection,
    statements: Sequence[tuple[LiteralString, Mapping[str, Any]]],
) -> list[Rows]:
    # What is sent before one Sync is one transaction, though nothing begins or ends it:
    # a process that is stopped leaves none open, unless between two bytes of this.
    cursors = []
    async with connection.pipeline():
        await connection.execute(*_limits(connection))
        for statement, values in statements:
            cursors.append(await connection.execute(statement, values))
    return [await cursor.fetchall() if cursor.description else [] for cursor in cursors]


def _limits(connection: Connection) -> tuple[LiteralString, Mapping[str, str]]:
    limits = dict(_LIMITS)
    if connection.info.server_version >= KNOWS_TRANSACTION_TIMEOUT:
        limits["transaction_timeout"] = STATEMENT
    names = {f"name{n}": name for n, name in enumerate(limits)}
    times = {f"time{n}": f"{int(t * 1000)}" for n, t in enumerate(limits.values())}
    if len(limits) == len(_LIMITS):
        return _SET_LIMITS, names | times
    return _SET_LIMITS + _AND_ONE_MORE, names | times


_SET_LIMITS: LiteralString = """
SELECT set_config(%(name0)s, %(time0)s, true), set_config(%(name1)s, %(time1)s, true),
  set_config(%(name2)s, %(time2)s, true)"""
_AND_ONE_MORE: LiteralString = ", set_config(%(name3)s, %(time3)s, true)"
