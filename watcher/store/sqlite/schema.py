"""The tables, and the steps from any earlier form of them to the present one."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from watcher.core.errors import StoreError

APPLICATION_ID = 0x44535743
"""Marks a file as ours ("DSWC")."""

# A step is never edited once released; a change is one more step at the end.
STEPS: Sequence[Sequence[str]] = (
    (
        """
        CREATE TABLE records (
          target TEXT NOT NULL, job_id TEXT NOT NULL, body TEXT NOT NULL,
          PRIMARY KEY (target, job_id))
        """,
        # AUTOINCREMENT: a number is not given twice, even after its row is pruned.
        """
        CREATE TABLE journal (
          seq INTEGER PRIMARY KEY AUTOINCREMENT,
          event_id TEXT NOT NULL UNIQUE,
          committed_at REAL NOT NULL,
          target TEXT NOT NULL, job_id TEXT NOT NULL, body TEXT NOT NULL)
        """,
        "CREATE INDEX journal_by_job ON journal (job_id, seq)",
        "CREATE INDEX journal_by_age ON journal (committed_at)",
        # A row for each event and sink, until the sink took it.
        """
        CREATE TABLE outbox (
          sink TEXT NOT NULL, seq INTEGER NOT NULL,
          PRIMARY KEY (sink, seq)) WITHOUT ROWID
        """,
        "CREATE INDEX outbox_by_seq ON outbox (seq)",
        # `offered`: the highest number that was ever handed out to the sink.
        """
        CREATE TABLE sinks (
          name TEXT PRIMARY KEY, offered INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID
        """,
        # Jobs added while running, which no configuration names.
        """
        CREATE TABLE watched (
          target TEXT NOT NULL, job_id TEXT NOT NULL,
          PRIMARY KEY (target, job_id)) WITHOUT ROWID
        """,
    ),
    (
        # Jobs watched no more; `told`: how often one event of theirs was, at most.
        """
        CREATE TABLE forgotten (
          target TEXT NOT NULL, job_id TEXT NOT NULL, told INTEGER NOT NULL,
          PRIMARY KEY (target, job_id)) WITHOUT ROWID
        """,
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE notes (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID",
    ),
)

VERSION = len(STEPS)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a database file that is there; transactions are begun and ended by hand.

    Text that is not UTF-8 is read as bytes, as a blob is.
    """
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0)
    db.text_factory = _text
    return db


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def refuse_foreign(db: sqlite3.Connection, path: Path) -> int:
    """Return the schema version, 0 for an empty file.

    Raises:
        StoreError: The file is of a newer version of the watcher, or not of it at all.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (owner,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if owner != APPLICATION_ID and (owner or version or tables):
        raise StoreError(f"{path} is a database, but not one of the watcher")
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer watcher: its schema is {version}, "
            f"this one knows up to {VERSION}"
        )
    return int(version)


def migrate(
    db: sqlite3.Connection, version: int, steps: Sequence[Sequence[str]] = STEPS
) -> None:
    """Bring a database from `version` to the end of `steps`, each step whole."""
    for number, step in enumerate(steps[version:], start=version + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in step:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
