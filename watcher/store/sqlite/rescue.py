"""Finds a damaged store, puts it aside, and carries over what can still be read.

The new file is complete before the old one is touched, and an interrupted exchange is
finished by the next start, so that a crash in between loses nothing more.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from watcher.core.errors import StoreError
from watcher.store.codec import Unreadable, decode_record, decode_transition
from watcher.store.sqlite.schema import STEPS, VERSION, connect, migrate, refuse_foreign

_LEAP = 1_000_000  # more numbers than a lost tail of the journal can have used
_LARGEST = 2**53  # beyond it a number is damage, and no longer exact in JSON

_TABLES = {  # with the order in which a table is walked
    "records": ("rowid",),
    "journal": ("seq",),
    "outbox": ("sink", "seq"),
    "sinks": ("name",),
    "watched": ("target", "job_id"),
}

_Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """A store that was found damaged and replaced.

    Attributes:
        aside: Where the damaged file is now.
        reason: What was wrong with it.
        records: Job records carried over.
        events: Journal entries carried over.
        undelivered: Deliveries still owed, carried over.
        last_seq: Numbering goes on above it.
    """

    aside: Path
    reason: str
    records: int
    events: int
    undelivered: int
    last_seq: int


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file's content is broken."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def find_damage(path: Path, *, used_before: bool) -> str | None:
    """Say what is wrong with a store's file; None for a sound or a missing one.

    Raises:
        StoreError: It is sound, but not ours to open.
        sqlite3.Error: It could not be looked at.
    """
    if not path.exists():
        return None
    if not path.is_file():
        raise StoreError(f"{path} is not a file")
    if path.stat().st_size == 0:
        return "the file is empty" if used_before else None
    try:
        with closing(connect(path, read_only=True)) as db:
            refuse_foreign(db, path)
            (answer,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return str(error)
        raise
    return None if answer == "ok" else str(answer)


def rescue(path: Path, reason: str, now: float) -> Damage:
    """Replace a damaged store by a new one with what could be read of it."""
    partial = path.with_name(f"{path.name}.rescuing")
    for leftover in (partial, Path(f"{partial}-journal")):
        leftover.unlink(missing_ok=True)
    with (
        closing(connect(partial)) as new,
        closing(connect(path, read_only=True)) as old,
    ):
        _carry_over(old, new, now)
    partial.rename(_rescued(path))
    return _exchange(path, reason, now)


def finish_rescue(path: Path, now: float) -> Damage | None:
    """Finish what an earlier process had begun; None if there is nothing."""
    if not _rescued(path).exists():
        return None
    return _exchange(path, "found by an earlier start, which was interrupted", now)


def _rescued(path: Path) -> Path:
    return path.with_name(f"{path.name}.rescued")


def _exchange(path: Path, reason: str, now: float) -> Damage:
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for part in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{part}").rename(f"{aside}{part}")
    _rescued(path).rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    with closing(connect(path)) as db:
        records, events, undelivered = db.execute(
            "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM journal),"
            " (SELECT count(*) FROM outbox)"
        ).fetchone()
        return Damage(aside, reason, records, events, undelivered, _last_seq(db))


def _carry_over(old: sqlite3.Connection, new: sqlite3.Connection, now: float) -> None:
    old.text_factory = lambda raw: raw.decode("utf-8", "replace")
    version = VERSION
    with suppress(sqlite3.Error):
        version = old.execute("PRAGMA user_version").fetchone()[0]
    version = version if 1 <= version <= VERSION else VERSION
    migrate(new, 0, STEPS[:version])
    new.execute("BEGIN")
    for table in _TABLES:
        _copy(table, old, new)
    new.execute("DELETE FROM outbox WHERE seq NOT IN (SELECT seq FROM journal)")
    last_seq = max(_last_seq(old), _last_seq(new))
    last_seq = last_seq + _LEAP if last_seq else int(now * 1000)
    # What is still owed may have been handed out: it is offered as a repetition.
    new.execute("INSERT OR IGNORE INTO sinks (name) SELECT DISTINCT sink FROM outbox")
    new.execute("UPDATE sinks SET offered = ?", (last_seq,))
    new.execute("DELETE FROM sqlite_sequence")
    new.execute("INSERT INTO sqlite_sequence VALUES ('journal', ?)", (last_seq,))
    new.execute("COMMIT")
    migrate(new, version)


def _copy(table: str, old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    columns = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
    marks = ", ".join("?" * len(columns))
    into = f"INSERT OR IGNORE INTO {table} VALUES ({marks})"  # noqa: S608
    for row in _readable(old, table, columns):
        if _makes_sense(dict(zip(columns, row, strict=True))):
            new.execute(into, row)


def _readable(
    db: sqlite3.Connection, table: str, columns: Sequence[str]
) -> Iterator[_Row]:
    """Walk a table from its start and, where that breaks off, from its end."""
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{column} {direction}" for column in _TABLES[table])
        query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}"  # noqa: S608
        try:
            yield from db.execute(query)
        except sqlite3.DatabaseError:
            continue
        return


def _makes_sense(row: dict[str, object]) -> bool:
    """Whether a row's content is whole; SQLite has no checksum to tell."""
    if not 0 <= _number(row.get("seq", 0)) < _LARGEST:
        return False
    body = row.get("body")
    try:
        if "event_id" in row:
            return decode_transition(str(body)).event_id == row["event_id"]
        if body is not None:
            return decode_record(str(body)).key == (row["target"], row["job_id"])
    except Unreadable:
        return False
    return True


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1


def _last_seq(db: sqlite3.Connection) -> int:
    """Return the highest number that a database is known to have given; 0 for none."""
    highest = 0
    for query in (
        "SELECT max(seq) FROM sqlite_sequence",
        "SELECT max(seq) FROM journal",
        "SELECT max(seq) FROM outbox",
        "SELECT max(offered) FROM sinks",
    ):
        with suppress(sqlite3.Error):
            number = _number(db.execute(query).fetchone()[0])
            if number < _LARGEST:
                highest = max(highest, number)
    return highest
