"""What is written to and read from the database: plain SQL, synchronous, one thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain, groupby, islice
from typing import Any

import msgspec

from watcher.core.model import (
    JobKey,
    JobRecord,
    JournalEvent,
    Step,
    Transition,
    check_job_id,
)
from watcher.core.tracker import begin, most_told
from watcher.ports import Pruned, Retention
from watcher.store.aging import JournalTime
from watcher.store.codec import Unreadable, decode_record, decode_transition, encode

_UNTOLD = """
    FROM forgotten WHERE NOT EXISTS (SELECT 1 FROM journal
      WHERE journal.target = forgotten.target AND journal.job_id = forgotten.job_id)
"""
"""Jobs that are no longer watched and of which the journal keeps no event."""


_OWED = """
    FROM outbox CROSS JOIN journal USING (seq)
    WHERE sink = :sink AND (:targets IS NULL
      OR target IN (SELECT value FROM json_each(:targets)))
"""
"""What a sink is owed of some targets, or of all."""

AT_ONCE = 500
"""Jobs that one query asks for; SQLite takes some 1,000 values at least."""


class Ledger:
    """The tables of one open database, for its only writer.

    Any call raises `Unreadable` where it meets what no watcher has written.

    Attributes:
        last_seq: The highest number that the journal has given.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        *,
        sinks: Iterable[str],
        now: Callable[[], float],
        retention: Retention,
        fault_point: Callable[[str], None],
    ) -> None:
        self._db = db
        self._sinks = tuple(sinks)
        self._now = now
        self._retention = retention
        self._fault_point = fault_point
        facts: dict[str, float] = dict(db.execute("SELECT name, value FROM facts"))
        wall = now()
        self._time = JournalTime(facts.get("time", wall), facts.get("wall", wall))
        self._told_before = int(facts.get("told", 0))
        with self._transaction():
            db.executemany(
                "INSERT OR IGNORE INTO sinks (name) VALUES (?)",
                [(name,) for name in self._sinks],
            )
            if not facts:
                self._date_afresh(wall)
            self._note_facts()
        self._offered: dict[str, int] = dict(db.execute("SELECT * FROM sinks"))
        self._offered_before = dict(self._offered)
        self.last_seq = highest_seq(db)

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Run the block in one transaction.

        One that is not `durable` survives the end of the process but costs no fsync,
        so a power cut may undo it.
        """
        self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")

    def load(self, keys: Collection[JobKey]) -> dict[JobKey, JobRecord]:
        """Return the records known of these jobs."""
        found = self._saved(keys)
        for key, told in self._told_of(keys - found.keys()).items():
            if told:
                found[key] = begin(key, told)
        return found

    def _saved(self, keys: Iterable[JobKey]) -> dict[JobKey, JobRecord]:
        found = {}
        for key, body in self._rows("records", "body", keys):
            found[key] = record = decode_record(body)
            if record.key != key:
                raise Unreadable(f"the record of {key.job_id} is another job's")
        return found

    def _told_of(self, keys: Collection[JobKey]) -> dict[JobKey, int]:
        """Return how much was told of jobs without records, where anything was."""
        told = dict.fromkeys(keys, self._told_before) if self._told_before else {}
        for key, number in self._rows("forgotten", "told", keys):
            told[key] = max(self._told_before, number)
        return told

    def _rows(
        self, table: str, column: str, keys: Iterable[JobKey]
    ) -> Iterator[tuple[JobKey, Any]]:
        """Yield what a table holds of some jobs, many asked for at once."""
        by_target = sorted(keys)
        for target, group in groupby(by_target, key=lambda key: key.target):
            ids = [key.job_id for key in group]
            for start in range(0, len(ids), AT_ONCE):
                some = ids[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                query = (
                    f"SELECT job_id, {column} FROM {table}"  # noqa: S608 - our own words
                    f" WHERE target = ? AND job_id IN ({marks})"
                )
                for job_id, value in self._db.execute(query, (target, *some)):
                    yield JobKey(target, job_id), value

    def forget(self, keys: Collection[JobKey]) -> None:
        """Forget the records of these jobs, but for what keeps event ids apart."""
        told = [(*key, most_told(it)) for key, it in self._saved(keys).items()]
        with self._transaction():
            self._db.executemany(
                "DELETE FROM records WHERE target = ? AND job_id = ?", keys
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO forgotten (target, job_id, told)"
                " VALUES (?, ?, ?)",
                told,
            )

    def commit(self, steps: Sequence[Step]) -> list[JournalEvent]:
        """Write records and transitions; an event id already known is left out."""
        self._fault_point("commit.before")
        records = {step.record.key: step.record for step in steps}
        now = self._time.at(self._now())
        with self._transaction():
            self._write_records(records.values())
            told = chain.from_iterable(step.transitions for step in steps)
            events = [event for one in told if (event := self._append(one, now))]
            self._db.executemany(
                "INSERT INTO outbox (sink, seq) VALUES (?, ?)",
                ((sink, event.seq) for event in events for sink in self._sinks),
            )
            self._fault_point("commit.after_write")
        self._fault_point("commit.after_commit")
        self.last_seq = highest_seq(self._db)  # a commit that failed may have come true
        return events

    def _write_records(self, records: Iterable[JobRecord]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO records (target, job_id, body) VALUES (?, ?, ?)",
            ((*record.key, encode(record)) for record in records),
        )

    def _append(self, transition: Transition, now: float) -> JournalEvent | None:
        event_id = transition.event_id
        cursor = self._db.execute(  # an upsert would use up a number where it conflicts
            "INSERT INTO journal (event_id, committed_at, target, job_id, body)"
            " SELECT ?, ?, ?, ?, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM journal WHERE event_id = ?)",
            (event_id, now, *transition.key, encode(transition), event_id),
        )
        if not cursor.rowcount or cursor.lastrowid is None:
            return None
        return JournalEvent(cursor.lastrowid, transition)

    def undelivered(
        self,
        sink: str,
        limit: int,
        held: Collection[JobKey],
        targets: Collection[str] | None,
    ) -> list[JournalEvent]:
        """Return the oldest events that a sink has not taken, and note the hand-out."""
        left_out = _as_json("/".join(key) for key in held)
        rows = self._db.execute(
            f"SELECT seq, body {_OWED} AND target || '/' || job_id NOT IN"  # noqa: S608
            " (SELECT value FROM json_each(:held)) ORDER BY outbox.seq LIMIT :limit",
            {**_owed(sink, targets), "held": left_out, "limit": limit},
        ).fetchall()
        before = self._offered_before.get(sink, 0)
        events = [_event(seq, body, offered_before=before) for seq, body in rows]
        highest = max((event.seq for event in events), default=0)
        if highest > self._offered.get(sink, 0):
            with self._transaction(durable=False):
                self._db.execute(
                    "UPDATE sinks SET offered = ? WHERE name = ?", (highest, sink)
                )
            self._offered[sink] = highest
        return events

    def delivered(self, sink: str, seqs: Collection[int]) -> None:
        """Remember that a sink took these events; a power cut may undo it."""
        with self._transaction(durable=False):
            self._db.executemany(
                "DELETE FROM outbox WHERE sink = ? AND seq = ?",
                [(sink, seq) for seq in seqs],
            )

    def backlog(self, sink: str, targets: Collection[str] | None) -> int:
        """Count the events that a sink has not taken yet."""
        query = f"SELECT count(*) {_OWED}"
        if targets is None:  # without a look at each event
            query = "SELECT count(*) FROM outbox WHERE sink = :sink"
        return int(self._db.execute(query, _owed(sink, targets)).fetchone()[0])

    def read(self, after: int, limit: int, job_id: str | None) -> list[JournalEvent]:
        """Return events with `seq > after`, oldest first."""
        return read_events(self._db, after, limit, job_id)

    def prune(self, now: float) -> Pruned:
        """Drop what is past retention; undelivered events only once past its age."""
        oldest = self._time.at(now) - self._retention.seconds
        with self._transaction():
            dead = dict(
                self._db.execute(
                    "SELECT sink, count(*) FROM journal JOIN outbox USING (seq)"
                    " WHERE committed_at < ? GROUP BY sink",
                    (oldest,),
                ).fetchall()
            )
            self._db.execute(
                "DELETE FROM outbox WHERE seq IN"
                " (SELECT seq FROM journal WHERE committed_at < ?)",
                (oldest,),
            )
            dropped = self._db.execute(
                "DELETE FROM journal WHERE committed_at < ?", (oldest,)
            ).rowcount
            dropped += self._db.execute(
                "DELETE FROM journal WHERE seq <= (SELECT seq FROM journal"
                " ORDER BY seq DESC LIMIT 1 OFFSET ?)"
                " AND seq NOT IN (SELECT seq FROM outbox)",
                (self._retention.events,),
            ).rowcount
            self._drop_forgotten()
            self._note_facts()
        return Pruned(dropped, dead)

    def _drop_forgotten(self) -> None:
        """Let go of forgotten jobs; a higher count for all stands in for theirs."""
        (told,) = self._db.execute(f"SELECT max(told) {_UNTOLD}").fetchone()
        self._told_before = max(self._told_before, told or 0)
        self._db.execute(f"DELETE {_UNTOLD}")

    def _note_facts(self) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)",
            [
                ("time", self._time.time),
                ("wall", self._time.wall),
                ("told", self._told_before),
            ],
        )

    def _date_afresh(self, now: float) -> None:
        """Date what an earlier version wrote under a clock that may have been wrong."""
        self._db.execute(
            "UPDATE journal SET committed_at = ?"
            " WHERE committed_at NOT BETWEEN ? AND ?",
            (now, now - self._retention.seconds, now),
        )

    def known(self) -> frozenset[JobKey]:
        """Return the jobs of which there are records."""
        rows = self._db.execute("SELECT target, job_id FROM records")
        return frozenset(_key(*row) for row in rows)

    def note(self, name: str, text: str) -> None:
        """Keep a text under a name."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO notes (name, text) VALUES (?, ?)", (name, text)
            )

    def notes(self) -> dict[str, str]:
        """Return the kept texts that are readable, by name."""
        rows = self._db.execute("SELECT name, text FROM notes")
        return {n: t for n, t in rows if isinstance(n, str) and isinstance(t, str)}

    def watched(self) -> frozenset[JobKey]:
        """Return the jobs added while running."""
        rows = self._db.execute("SELECT target, job_id FROM watched")
        return frozenset(_key(*row) for row in rows)

    def add(self, keys: Collection[JobKey]) -> None:
        """Remember these jobs as added while running."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO watched (target, job_id) VALUES (?, ?)", keys
            )

    def remove(self, keys: Collection[JobKey]) -> None:
        """Remember these jobs no longer as added."""
        with self._transaction():
            self._db.executemany(
                "DELETE FROM watched WHERE target = ? AND job_id = ?", keys
            )


def _owed(sink: str, targets: Collection[str] | None) -> dict[str, object]:
    return {"sink": sink, "targets": None if targets is None else _as_json(targets)}


def _as_json(texts: Iterable[str]) -> str:
    return msgspec.json.encode(list(texts)).decode()


def highest_seq(db: sqlite3.Connection) -> int:
    """Return the highest number that a journal has given; 0 before the first event."""
    query = "SELECT seq FROM sqlite_sequence WHERE name = 'journal'"
    row = db.execute(query).fetchone()
    return int(row[0]) if row else 0


def read_events(
    db: sqlite3.Connection,
    after: int,
    limit: int,
    job_id: str | None,
    *,
    skip_unreadable: bool = False,
) -> list[JournalEvent]:
    """Return events with `seq > after`, oldest first.

    Raises:
        Unreadable: One is none, and such are not to be skipped.
    """
    of_job = "" if job_id is None else "job_id = :job_id AND"
    rows = db.execute(
        f"SELECT seq, body FROM journal WHERE {of_job} seq > :after ORDER BY seq",  # noqa: S608
        {"job_id": job_id, "after": after},
    )
    with closing(rows):
        return list(islice(_events(rows, skip_unreadable), limit))


def _events(
    rows: Iterable[tuple[int, object]], skip_unreadable: bool
) -> Iterator[JournalEvent]:
    for seq, body in rows:
        try:
            yield _event(seq, body)
        except Unreadable:
            if not skip_unreadable:
                raise


def _event(seq: int, body: object, *, offered_before: int = 0) -> JournalEvent:
    transition = decode_transition(body)
    return JournalEvent(seq, transition, replayed=seq <= offered_before)


def _key(target: object, job_id: object) -> JobKey:
    if isinstance(target, str) and isinstance(job_id, str):
        with suppress(ValueError):
            return JobKey(target, check_job_id(job_id))
    raise Unreadable("a watched job has no id that can be asked for")
