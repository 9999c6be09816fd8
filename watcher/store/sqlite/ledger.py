"""What is written to and read from the database: plain SQL, synchronous, one thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain

import msgspec
import structlog

from watcher.core.model import JobKey, JobRecord, JournalEvent, Step, Transition
from watcher.core.tracker import forget as forget_record
from watcher.ports import Pruned, Retention
from watcher.store.codec import (
    Unreadable,
    decode_record,
    decode_transition,
    encode,
)

log = structlog.get_logger()


_DROP_FORGOTTEN = """
    DELETE FROM records WHERE json_extract(body, '$.job') IS NULL
    AND json_extract(body, '$.phase') = 'unknown'
    AND json_extract(body, '$.ordinals') != '{}'
    AND NOT EXISTS (SELECT 1 FROM journal
      WHERE journal.target = records.target AND journal.job_id = records.job_id)
"""
"""What is left of jobs that are no longer watched goes with their last event."""


class Ledger:
    """The tables of one open database, for its only writer.

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
        with self._transaction():
            db.executemany(
                "INSERT OR IGNORE INTO sinks (name) VALUES (?)",
                [(name,) for name in self._sinks],
            )
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
        query = "SELECT body FROM records WHERE target = ? AND job_id = ?"
        found = {}
        for key in keys:
            row = self._db.execute(query, key).fetchone()
            if row is not None and (record := _readable_record(key, *row)):
                found[key] = record
        return found

    def forget(self, keys: Collection[JobKey]) -> None:
        """Forget the records of these jobs, but for what keeps event ids apart."""
        left = [forget_record(record) for record in self.load(keys).values()]
        with self._transaction():
            self._db.executemany(
                "DELETE FROM records WHERE target = ? AND job_id = ?", keys
            )
            self._write_records(record for record in left if record.ordinals)

    def commit(self, steps: Sequence[Step]) -> list[JournalEvent]:
        """Write records and transitions; an event id already known is left out."""
        self._fault_point("commit.before")
        records = {step.record.key: step.record for step in steps}
        now = self._now()
        with self._transaction():
            self._write_records(records.values())
            told = chain.from_iterable(step.transitions for step in steps)
            events = [event for one in told if (event := self._append(one, now))]
            self._db.executemany(
                "INSERT INTO outbox (sink, seq) VALUES (?, ?)",
                ((sink, event.seq) for event in events for sink in self._sinks),
            )
            self._fault_point("commit.after_write")
        self.last_seq = highest_seq(self._db)  # a commit that failed may have come true
        self._fault_point("commit.after_commit")
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
        self, sink: str, limit: int, held: Collection[JobKey]
    ) -> list[JournalEvent]:
        """Return the oldest events that a sink has not taken, and note the hand-out."""
        left_out = msgspec.json.encode(["/".join(key) for key in held]).decode()
        rows = self._db.execute(
            "SELECT seq, body FROM outbox CROSS JOIN journal USING (seq)"
            " WHERE sink = ? AND target || '/' || job_id NOT IN"
            " (SELECT value FROM json_each(?)) ORDER BY outbox.seq LIMIT ?",
            (sink, left_out, limit),
        ).fetchall()
        events = list(_readable_events(rows, self._offered_before.get(sink, 0)))
        lost = {seq for seq, _ in rows} - {event.seq for event in events}
        if lost:
            self.delivered(sink, lost)
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

    def backlog(self, sink: str) -> int:
        """Count the events that a sink has not taken yet."""
        query = "SELECT count(*) FROM outbox WHERE sink = ?"
        return int(self._db.execute(query, (sink,)).fetchone()[0])

    def read(self, after: int, limit: int, job_id: str | None) -> list[JournalEvent]:
        """Return events with `seq > after`, oldest first."""
        return read_events(self._db, after, limit, job_id)

    def prune(self, now: float) -> Pruned:
        """Drop what is past retention; undelivered events only once past its age."""
        oldest = now - self._retention.seconds
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
            self._db.execute(_DROP_FORGOTTEN)
        return Pruned(dropped, dead)

    def watched(self) -> frozenset[JobKey]:
        """Return the jobs added while running."""
        rows = self._db.execute("SELECT target, job_id FROM watched")
        return frozenset(JobKey(*row) for row in rows)

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


def highest_seq(db: sqlite3.Connection) -> int:
    """Return the highest number that a journal has given; 0 before the first event."""
    query = "SELECT seq FROM sqlite_sequence WHERE name = 'journal'"
    row = db.execute(query).fetchone()
    return int(row[0]) if row else 0


def read_events(
    db: sqlite3.Connection, after: int, limit: int, job_id: str | None
) -> list[JournalEvent]:
    """Return events with `seq > after`, oldest first."""
    if job_id is None:
        query = "SELECT seq, body FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
        rows = db.execute(query, (after, limit))
    else:
        query = (
            "SELECT seq, body FROM journal WHERE job_id = ? AND seq > ?"
            " ORDER BY seq LIMIT ?"
        )
        rows = db.execute(query, (job_id, after, limit))
    return list(_readable_events(rows, 0))


def _readable_events(
    rows: Iterable[tuple[int, str]], offered_before: int
) -> Iterator[JournalEvent]:
    for seq, body in rows:
        try:
            transition = decode_transition(body)
        except Unreadable as error:
            log.warning("store.event_unreadable", seq=seq, error=str(error))
        else:
            yield JournalEvent(seq, transition, replayed=seq <= offered_before)


def _readable_record(key: JobKey, body: str) -> JobRecord | None:
    try:
        return decode_record(body)
    except Unreadable as error:
        log.warning("store.record_unreadable", **key._asdict(), error=str(error))
        return None
