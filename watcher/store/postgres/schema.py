"""The tables, and the steps from any earlier form of them to the present one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from watcher.core.errors import StoreError
from watcher.store.postgres.line import Connection

# A step is never edited once released; a change is one more step at the end. What
# changes often has no index on it and room in its page, so that an update stays there.
STEPS: Sequence[Sequence[LiteralString]] = (
    (
        """
        CREATE TABLE watcher.records (
          target text NOT NULL, job_id text NOT NULL, body text NOT NULL,
          PRIMARY KEY (target, job_id)) WITH (fillfactor = 70)
        """,
        """
        CREATE TABLE watcher.journal (
          seq bigint PRIMARY KEY, event_id text NOT NULL UNIQUE,
          committed_at double precision NOT NULL,
          target text NOT NULL, job_id text NOT NULL, body text NOT NULL)
        """,
        "CREATE INDEX journal_by_job ON watcher.journal (job_id, seq)",
        "CREATE INDEX journal_by_age ON watcher.journal (committed_at)",
        # A row for each event and sink, until the sink took it.
        """
        CREATE TABLE watcher.outbox (
          sink text NOT NULL, seq bigint NOT NULL, target text NOT NULL,
          PRIMARY KEY (sink, seq))
        """,
        "CREATE INDEX outbox_by_seq ON watcher.outbox (seq)",
        # `offered`: the highest number that was handed out; `before`: by others than
        # the present owner.
        """
        CREATE TABLE watcher.offers (
          sink text NOT NULL, target text NOT NULL, owner text NOT NULL,
          offered bigint NOT NULL, before bigint NOT NULL,
          PRIMARY KEY (sink, target)) WITH (fillfactor = 50)
        """,
        """
        CREATE TABLE watcher.watched (
          target text NOT NULL, job_id text NOT NULL, PRIMARY KEY (target, job_id))
        """,
        """
        CREATE TABLE watcher.forgotten (
          target text NOT NULL, job_id text NOT NULL, told bigint NOT NULL,
          PRIMARY KEY (target, job_id))
        """,
        "CREATE TABLE watcher.notes (name text PRIMARY KEY, text text NOT NULL)",
        # One row: `seq` the last number given, `time` the journal's own at `wall`,
        # `told` how often one event of a job that nothing is known of was, at most.
        """
        CREATE TABLE watcher.state (
          one boolean PRIMARY KEY DEFAULT true CHECK (one),
          seq bigint NOT NULL DEFAULT 0, told bigint NOT NULL DEFAULT 0,
          time double precision, wall double precision) WITH (fillfactor = 10)
        """,
        "INSERT INTO watcher.state DEFAULT VALUES",
        """
        CREATE TABLE watcher.leases (
          unit text PRIMARY KEY, owner text, epoch bigint NOT NULL,
          leased_until timestamptz NOT NULL, targets text[] NOT NULL)
          WITH (fillfactor = 50)
        """,
        """
        CREATE TABLE watcher.replicas (
          owner text PRIMARY KEY, alive_until timestamptz NOT NULL)
          WITH (fillfactor = 50)
        """,
    ),
)

VERSION = len(STEPS)
_OURS = 0x44535743
"""Names the lock under which the schema is made ("DSWC")."""


async def bring_forward(
    connection: Connection, steps: Sequence[Sequence[LiteralString]] = STEPS
) -> None:
    """Bring the database to the end of `steps`, whole; one replica at a time.

    Raises:
        StoreError: It is of a newer version of the watcher.
    """
    if await version_of(connection) == len(steps):
        return
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_OURS])
        version = await version_of(connection)
        if version > len(steps):
            raise StoreError(
                f"it was written by a newer watcher: its schema is {version}, this one "
                f"knows up to {len(steps)}"
            )
        if not version:
            await connection.execute("CREATE SCHEMA IF NOT EXISTS watcher")
            await connection.execute(
                "CREATE TABLE watcher.version (version integer NOT NULL)"
            )
            await connection.execute("INSERT INTO watcher.version VALUES (0)")
        for statement in (one for step in steps[version:] for one in step):
            await connection.execute(statement)
        await connection.execute(
            "UPDATE watcher.version SET version = %s", [len(steps)]
        )


async def require_present(connection: Connection) -> None:
    """Leave the database as it is.

    Raises:
        StoreError: Its schema is not the one that this watcher knows, or there is none.
    """
    version = await version_of(connection)
    if version != VERSION:
        said = (
            f"its schema is {version}" if version else "no daemon has made its tables"
        )
        raise StoreError(f"{said}; this watcher reads schema {VERSION}")


async def version_of(connection: Connection) -> int:
    """Return the version of the schema; 0: there is none."""
    # Not by to_regclass: a session that found nothing keeps that in mind for a while.
    cursor = await connection.execute(
        "SELECT FROM pg_tables WHERE schemaname = 'watcher' AND tablename = 'version'"
    )
    if not await cursor.fetchall():
        return 0
    cursor = await connection.execute("SELECT version FROM watcher.version")
    rows = await cursor.fetchall()
    return int(rows[0][0])
