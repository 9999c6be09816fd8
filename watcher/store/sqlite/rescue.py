"""Finds a damaged store, puts it aside, and carries over what can still be read.

The new file is complete before the old one is touched, and an interrupted exchange is
finished by the next start, so that a crash in between loses nothing more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from watcher.core.errors import StoreError
from watcher.core.model import check_job_id
from watcher.store.codec import (
    LARGEST,
    LATEST,
    Unreadable,
    decode_record,
    decode_transition,
)
from watcher.store.sqlite.files import PARTS, make_empty, put_in_place, roll_back
from watcher.store.sqlite.schema import STEPS, VERSION, connect, migrate, refuse_foreign

_LEAP = 1_000_000  # more numbers than a lost tail of the journal can have used

_TABLES = {  # with the order in which a table is walked
    "records": ("rowid",),
    "journal": ("seq",),
    "outbox": ("sink", "seq"),
    "sinks": ("name",),
    "watched": ("target", "job_id"),
    "forgotten": ("target", "job_id"),
    "facts": ("name",),
    "notes": ("name",),
}

_SENSE = {  # of a column, by its declared type; SQLite lets any column hold anything
    "TEXT": "typeof({0}) = 'text'",
    "INTEGER": f"typeof({{0}}) = 'integer' AND {{0}} BETWEEN 0 AND {LARGEST}",
    "REAL": f"typeof({{0}}) = 'real' AND abs({{0}}) <= {LATEST}",
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


def find_damage(path: Path) -> str | None:
    """Say what is wrong with a store's file; None for a sound one.

    Raises:
        StoreError: It is sound, but not ours to open.
        sqlite3.Error: It could not be looked at.
    """
    if not path.is_file():
        raise StoreError(f"{path} is not a file")
    try:
        roll_back(path)
        with closing(connect(path, read_only=True)) as db:
            version = refuse_foreign(db, path)
            (answer,) = db.execute("PRAGMA quick_check(1)").fetchone()
            return _nonsense(db, version) if answer == "ok" else str(answer)
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return str(error)
        raise


def _nonsense(db: sqlite3.Connection, version: int) -> str | None:
    """Say which table is missing or holds what its columns are not made for."""
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
    counter = {"sqlite_sequence": _SENSE["INTEGER"].format("seq")} if version else {}
    for table, sense in (_sense_of(version) | counter).items():
        if table not in there:
            return f"table {table} is missing"
        query = f"SELECT 1 FROM {table} WHERE NOT ({sense}) LIMIT 1"  # noqa: S608
        if db.execute(query).fetchone():
            return f"table {table} holds a value of a wrong type"
    return None


def _sense_of(version: int) -> dict[str, str]:
    """Return what must be true of each row, by the tables of a schema's version."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        migrate(model, 0, STEPS[:version])
        return {
            table: " AND ".join(
                _SENSE[column[2]].format(column[1])
                for column in model.execute(f"PRAGMA table_info({table})")
            )
            for table in _TABLES
            if model.execute(f"PRAGMA table_info({table})").fetchone()
        }


def rescue(path: Path, reason: str, now: float) -> Damage:
    """Replace a damaged store by a new one with what could be read of it."""
    partial = path.with_name(f"{path.name}.rescuing")
    make_empty(partial)
    with (
        closing(connect(partial)) as new,
        closing(connect(path, read_only=True)) as old,
    ):
        _carry_over(old, new, now)
    put_in_place(partial, _rescued(path))
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
    for part in PARTS:  # all: what is left would be taken for the new file's own
        with suppress(FileNotFoundError):
            Path(f"{path}{part}").rename(f"{aside}{part}")
    put_in_place(_rescued(path), path)
    with closing(connect(path)) as db:
        records, events, undelivered = db.execute(
            "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM journal),"
            " (SELECT count(*) FROM outbox)"
        ).fetchone()
        return Damage(aside, reason, records, events, undelivered, _last_seq(db))


def _carry_over(old: sqlite3.Connection, new: sqlite3.Connection, now: float) -> None:
    version = VERSION
    with suppress(sqlite3.Error):
        version = old.execute("PRAGMA user_version").fetchone()[0]
    version = version if 1 <= version <= VERSION else VERSION
    migrate(new, 0, STEPS[:version])
    new.execute("BEGIN")
    for table, sense in _sense_of(version).items():
        _copy(table, sense, old, new)
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


def _copy(
    table: str, sense: str, old: sqlite3.Connection, new: sqlite3.Connection
) -> None:
    columns = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
    marks = ", ".join("?" * len(columns))
    into = f"INSERT OR IGNORE INTO {table} VALUES ({marks})"  # noqa: S608
    what = f"SELECT {', '.join(columns)} FROM {table} WHERE {sense}"  # noqa: S608
    for row in _readable(old, what, _TABLES[table]):
        if _makes_sense(dict(zip(columns, row, strict=True))):
            new.execute(into, row)


def _readable(
    db: sqlite3.Connection, what: str, order: tuple[str, ...]
) -> Iterator[_Row]:
    """Walk a table from its start and, where that breaks off, from its end."""
    for direction in ("ASC", "DESC"):
        by = ", ".join(f"{column} {direction}" for column in order)
        try:
            yield from db.execute(f"{what} ORDER BY {by}")
        except sqlite3.DatabaseError:
            continue
        return


def _makes_sense(row: dict[str, object]) -> bool:
    """Whether a row's content is whole; SQLite has no checksum to tell."""
    key = (row.get("target"), row.get("job_id"))
    try:
        if "event_id" in row:
            told = decode_transition(row["body"])
            return (told.event_id, *told.key) == (row["event_id"], *key)
        if "body" in row:
            return decode_record(row["body"]).key == key
        if "job_id" in row:
            check_job_id(str(row["job_id"]))
    except (Unreadable, ValueError):
        return False
    return not any(isinstance(value, bytes) for value in row.values())


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
            if number < LARGEST:
                highest = max(highest, number)
    return highest
