"""What a database is like, asked without changing anything in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import LiteralString

import anyio
import psycopg

from watcher.core.errors import StoreError
from watcher.store.postgres.line import connection_string, reason
from watcher.store.postgres.schema import VERSION, version_of

_ROUNDS = 5

_WHAT: LiteralString = """
SELECT extract(epoch FROM clock_timestamp())::float8,
  pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on',
  current_setting('server_encoding'),
  current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off',
  CASE WHEN EXISTS (SELECT FROM pg_namespace WHERE nspname = 'watcher')
    THEN has_schema_privilege('watcher', 'USAGE')
    ELSE has_database_privilege(current_database(), 'CREATE') END
"""
_RIGHTS: LiteralString = """
SELECT coalesce(bool_and(has_table_privilege(format('watcher.%I', tablename),
  'SELECT') AND (tablename = 'version' OR has_table_privilege(
    format('watcher.%I', tablename), 'INSERT') AND has_table_privilege(
    format('watcher.%I', tablename), 'UPDATE') AND has_table_privilege(
    format('watcher.%I', tablename), 'DELETE'))), true)
FROM pg_tables WHERE schemaname = 'watcher'
"""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found.

    Attributes:
        server: Version of the server, as it writes it.
        encrypted: Whether the connection is.
        read_only: Whether it is a standby, or takes nothing.
        encoding: Of the database.
        durable: Whether what is committed outlives a crash.
        allowed: Whether the user may do what a daemon does.
        schema: Version of the tables; 0: there are none yet.
        known_schema: The newest that this watcher knows.
        latency: Seconds for one question, at best.
        clock_ahead: Seconds that this machine's clock is ahead of the database's.
    """

    server: str
    encrypted: bool
    read_only: bool
    encoding: str
    durable: bool
    allowed: bool
    schema: int
    known_schema: int
    latency: float
    clock_ahead: float


async def check(url: str, password: str | None, now: Callable[[], float]) -> Checked:
    """Ask a database what it is like.

    Args:
        url: Where it is.
        password: For it; None: what libpq finds for itself.
        now: Wall clock, Unix seconds.

    Raises:
        StoreError: It cannot be reached, or lets nobody in.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(
            connection_string(url, password), autocommit=True, prepare_threshold=None
        )
        async with connection:
            return await _ask(connection, now)
    except (psycopg.Error, OSError) as error:
        said = reason(error) if isinstance(error, psycopg.Error) else str(error)
        raise StoreError(said) from error


async def _ask(
    connection: psycopg.AsyncConnection[tuple[object, ...]],
    now: Callable[[], float],
) -> Checked:
    rounds = []
    for _ in range(_ROUNDS):
        asked = anyio.current_time()
        cursor = await connection.execute(_WHAT)
        (row,) = await cursor.fetchall()
        took = anyio.current_time() - asked
        rounds.append((took, now() - took / 2 - float(str(row[0])), row[1:]))
    best, ahead, (read_only, encoding, durable, allowed) = min(rounds)
    schema = await version_of(connection) if allowed else 0
    if schema:
        ((enough,),) = await (await connection.execute(_RIGHTS)).fetchall()
        allowed = bool(enough)
    return Checked(
        server=connection.info.parameter_status("server_version") or "unknown",
        encrypted=bool(connection.pgconn.ssl_in_use),
        read_only=bool(read_only),
        encoding=str(encoding),
        durable=bool(durable),
        allowed=bool(allowed),
        schema=schema,
        known_schema=VERSION,
        latency=best,
        clock_ahead=ahead,
    )
