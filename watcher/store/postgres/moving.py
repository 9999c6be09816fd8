"""Moves what a SQLite file holds into an empty database, whole or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg

from watcher.core.errors import StoreError
from watcher.store.postgres.line import Connection, connection_string, reason
from watcher.store.postgres.schema import bring_forward
from watcher.store.sqlite.ledger import highest_seq
from watcher.store.sqlite.schema import connect

_TABLES: tuple[tuple[str, LiteralString, LiteralString], ...] = (
    (
        "records",
        "SELECT target, job_id, body FROM records",
        "COPY watcher.records (target, job_id, body) FROM STDIN",
    ),
    (
        "events",
        "SELECT seq, event_id, committed_at, target, job_id, body FROM journal",
        (
            "COPY watcher.journal (seq, event_id, committed_at, target, job_id, body)"
            " FROM STDIN"
        ),
    ),
    (
        "undelivered",
        "SELECT sink, seq, target FROM outbox JOIN journal USING (seq)",
        "COPY watcher.outbox (sink, seq, target) FROM STDIN",
    ),
    (  # to the replica that comes, whatever it was offered is a repeat
        "offers",
        (
            "SELECT DISTINCT name, target, 'sqlite', offered, 0"
            " FROM sinks, (SELECT target FROM journal) AS told"
        ),
        "COPY watcher.offers (sink, target, owner, offered, before) FROM STDIN",
    ),
    (
        "watched",
        "SELECT target, job_id FROM watched",
        "COPY watcher.watched (target, job_id) FROM STDIN",
    ),
    (
        "forgotten",
        "SELECT target, job_id, told FROM forgotten",
        "COPY watcher.forgotten (target, job_id, told) FROM STDIN",
    ),
    (
        "notes",
        "SELECT name, text FROM notes",
        "COPY watcher.notes (name, text) FROM STDIN",
    ),
)
_IN_USE: LiteralString = """
SELECT EXISTS (SELECT FROM watcher.replicas WHERE alive_until > clock_timestamp()),
  EXISTS (SELECT FROM watcher.records) OR EXISTS (SELECT FROM watcher.watched)
    OR (SELECT seq > 0 FROM watcher.state)
"""
_STATE: LiteralString = """
UPDATE watcher.state SET seq = %(seq)s, told = %(told)s, time = %(time)s, wall = %(wall)s
"""


@dataclass(frozen=True, slots=True)
class Moved:
    """How much was moved.

    Attributes:
        counts: Rows by what they are: `records`, `events`, `undelivered`, …
        last_seq: Numbering goes on above it.
    """

    counts: dict[str, int]
    last_seq: int


async def move_in(path: Path, url: str, password: str | None = None) -> Moved:
    """Copy the file of a store that the caller holds; the file is left as it is.

    Args:
        path: Of the file, in its present schema.
        url: Of the database; it must hold nothing, and no replica may be at work.
        password: For it; None: what libpq finds for itself.

    Raises:
        StoreError: Nothing was moved.
    """
    try:
        connection = await psycopg.AsyncConnection.connect(
            connection_string(url, password), autocommit=True, prepare_threshold=None
        )
        async with connection:
            await bring_forward(connection)
            with closing(connect(path, read_only=True)) as file:
                async with connection.transaction():
                    return await _copy(file, connection)
    except psycopg.Error as error:
        raise StoreError(reason(error)) from error
    except (sqlite3.Error, OSError, UnicodeError) as error:
        raise StoreError(str(error)) from error


async def _copy(file: sqlite3.Connection, connection: Connection) -> Moved:
    # Who commits or renews waits, so that nobody begins meanwhile.
    await connection.execute("LOCK TABLE watcher.state, watcher.replicas")
    cursor = await connection.execute(_IN_USE)
    ((busy, holds_something),) = await cursor.fetchall()
    if busy:
        raise StoreError("a replica is at work on it; stop all of them first")
    if holds_something:
        raise StoreError("it holds records or events already")
    counts = {
        name: await _fill(connection, copy, file.execute(query))
        for name, query, copy in _TABLES
    }
    facts = dict(file.execute("SELECT name, value FROM facts"))
    seq = highest_seq(file)
    told = int(facts.get("told", 0))
    times = {name: facts.get(name) for name in ("time", "wall")}
    await connection.execute(_STATE, {"seq": seq, "told": told, **times})
    return Moved(counts, seq)


async def _fill(
    connection: Connection, copy: LiteralString, rows: Iterable[tuple[object, ...]]
) -> int:
    count = 0
    async with connection.cursor() as cursor, cursor.copy(copy) as stream:
        for row in rows:
            await stream.write_row(row)
            count += 1
    return count
