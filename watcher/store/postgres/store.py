"""The store that several replicas share: a PostgreSQL database."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, LiteralString

import anyio
from psycopg.errors import UniqueViolation

from watcher.core.errors import LeaseLost, StoreError
from watcher.core.model import JobKey, JobRecord, JournalEvent, Step, Transition
from watcher.core.tracker import begin, most_told
from watcher.ports import ALWAYS_HELD, Fence, Pruned, Retention
from watcher.store.codec import Unreadable, decode_record, decode_transition, encode
from watcher.store.growth import Growth
from watcher.store.postgres import statements as sql
from watcher.store.postgres.leases import PostgresLeases
from watcher.store.postgres.line import Connection, Line, Rows, connection_string
from watcher.store.postgres.schema import bring_forward, require_present

LOOK_EVERY = 1.0
"""Seconds between two looks at a journal that other replicas write to."""
AT_ONCE = 5000
"""Rows that one statement reads or deletes, so that none lasts."""


class PostgresStore:
    """All ports of a store on a database, over two connections.

    One is for the leases alone: they are renewed while the other is busy. A call that is
    cancelled has either happened or not.

    Args:
        url: Where the database is; without a password.
        password: For it; None: what libpq finds for itself.
        lease: Seconds that a lease lasts.
        sinks: Names of the sinks that each event is owed to.
        retention: How much of the journal is kept.
        now: Dates the journal, in Unix seconds; None: the clock of the database does,
            which is one for all replicas.
        owner: Name of this replica; None: a new one.
        reads_only: Whether the schema is left as it is found.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        lease: float = 15.0,
        sinks: Iterable[str] = (),
        retention: Retention | None = None,
        now: Callable[[], float] | None = None,
        owner: str | None = None,
        reads_only: bool = False,
    ) -> None:
        conninfo = connection_string(url, password)
        owner = owner or str(uuid.uuid4())
        self._owner = owner
        self._sinks = list(sinks)
        self._retention = retention or Retention()
        self._now: Callable[[], float | None] = now or _database_clock
        self._line = Line(conninfo, require_present if reads_only else self._greet)
        self._lease_line = Line(conninfo, bring_forward)
        self._growth = Growth()
        self._looked_at = float("-inf")
        self.leases = PostgresLeases(self._lease_line, owner, lease)

    async def open(self) -> None:
        """Connect, and bring the schema forward where it is an older one.

        Raises:
            StoreError: Not reachable, not allowed, or of a newer version.
        """
        await self._look()

    async def close(self) -> None:
        """Close the connections; what is under way is waited for."""
        await self._line.close()
        await self._lease_line.close()

    async def _greet(self, connection: Connection) -> None:
        await bring_forward(connection)
        await connection.execute(sql.START_TIME, {"now": self._now()})

    async def load(self, keys: Collection[JobKey]) -> Mapping[JobKey, JobRecord]:
        """Return the records known of these jobs."""
        found = {}
        wanted = iter(keys)
        while some := list(islice(wanted, AT_ONCE)):
            for target, job_id, body, told in await self._ask(sql.LOAD, **_split(some)):
                key = JobKey(target, job_id)
                if body is not None:
                    found[key] = _record(key, body)
                elif told:
                    found[key] = begin(key, told)
        return found

    async def known(self) -> frozenset[JobKey]:
        """Return the jobs of which there are records."""
        return frozenset(JobKey(*row) for row in await self._ask(sql.KNOWN))

    async def forget(self, keys: Collection[JobKey]) -> None:
        """Forget the records of these jobs, but for what keeps event ids apart."""
        if not keys:
            return
        rows = await self._ask(sql.LOAD, **_split(keys))
        told = {
            JobKey(target, job_id): most_told(_record(JobKey(target, job_id), body))
            for target, job_id, body, _ in rows
            if body is not None
        }
        counts = [told.get(key) for key in keys]
        await self._ask(sql.FORGET, **_split(keys), told=counts)

    async def commit(
        self, steps: Sequence[Step], fence: Fence = ALWAYS_HELD
    ) -> Sequence[JournalEvent]:
        """Write records and transitions; an event id already known is left out."""
        records = {step.record.key: step.record for step in steps}
        told = {one.event_id: one for step in steps for one in step.transitions}
        transitions = list(told.values())
        values = {
            **self._fenced(fence, {key.target for key in records}),
            **_split(records),
            "bodies": [encode(record) for record in records.values()],
            **_events(transitions),
            "sinks": self._sinks,
            "now": self._now(),
        }
        ((holds, held, before, new),) = await self._ask_again(sql.COMMIT, values)
        if not holds:
            raise LeaseLost(set(values["units"]) - set(held))
        if before is None:
            return []
        if new is not None:
            transitions = [transitions[n - 1] for n in new]
        events = [
            JournalEvent(seq, one) for seq, one in enumerate(transitions, before + 1)
        ]
        self._growth.reach(events[-1].seq)
        return events

    def _fenced(self, fence: Fence, targets: Collection[str]) -> dict[str, Any]:
        units = [] if fence == ALWAYS_HELD else sorted(fence.units_of(targets))
        epochs = [fence.epochs[unit] for unit in units]
        return {"owner": fence.owner, "units": units, "epochs": epochs}

    async def _ask_again(self, query: LiteralString, values: dict[str, Any]) -> Rows:
        # Two commits of one event at once: the first one's asker lost its connection
        # and came again. Once more, and it is seen to be in the journal.
        try:
            return await self._line.ask(query, values)
        except UniqueViolation:
            return await self._ask(query, **values)

    async def undelivered(
        self,
        sink: str,
        limit: int,
        held: Collection[JobKey] = (),
        targets: Collection[str] | None = None,
    ) -> Sequence[JournalEvent]:
        """Return the oldest events that a sink has not taken yet.

        Those that another replica, or an earlier process, may already have handed out
        are marked replayed.
        """
        rows = await self._ask(
            sql.UNDELIVERED,
            sink=sink,
            limit=limit,
            owner=self._owner,
            targets=None if targets is None else list(targets),
            held_targets=[key.target for key in held],
            held_jobs=[key.job_id for key in held],
        )
        return [_event(seq, body, replayed=replayed) for seq, body, replayed in rows]

    async def delivered(self, sink: str, seqs: Collection[int]) -> None:
        """Remember that a sink took these events."""
        await self._ask(sql.DELIVERED, sink=sink, seqs=list(seqs))

    async def backlog(self, sink: str, targets: Collection[str] | None = None) -> int:
        """Count the events that a sink has not taken yet."""
        some = None if targets is None else list(targets)
        ((count,),) = await self._ask(sql.BACKLOG, sink=sink, targets=some)
        return int(count)

    async def read(
        self, after: int, limit: int, job_id: str | None = None
    ) -> Sequence[JournalEvent]:
        """Return events with `seq > after`, oldest first."""
        query = sql.READ if job_id is None else sql.READ_JOB
        rows = await self._ask(query, after=after, limit=limit, job_id=job_id)
        return [_event(seq, body) for seq, body in rows]

    async def grown(self, after: int) -> int:
        """Wait until the highest number given is another than `after`; return it.

        Own commits are told at once, others' within a second; however many wait, the
        database is asked once.
        """
        # Who has read more than is known here has read what others committed: no sign of
        # another journal before the database was asked.
        if not 0 <= after <= self._growth.highest:
            await self._look_in_the_end()
        while True:
            with anyio.move_on_after(LOOK_EVERY):
                return await self._growth.beyond(after)
            if anyio.current_time() - self._looked_at >= LOOK_EVERY / 2:
                try:
                    await self._look()
                except StoreError:
                    continue

    async def _look_in_the_end(self) -> None:
        while True:
            with suppress(StoreError):
                return await self._look()
            await anyio.sleep(LOOK_EVERY)

    async def _look(self) -> None:
        self._looked_at = anyio.current_time()
        ((seq,),) = await self._ask(sql.HIGHEST)
        self._growth.reach(seq)

    async def prune(self, now: float) -> Pruned:  # noqa: ARG002 - the database's clock
        """Drop what is past retention; undelivered events only once past its age.

        In many small deletes: where one fails, what went before it stays dropped, and is
        counted.
        """
        ((time,),) = await self._ask(sql.ADVANCE_TIME, now=self._now())
        counts: dict[str | None, int] = {}
        try:
            oldest = time - self._retention.seconds
            await self._drop(sql.PRUNE_OLD, counts, oldest=oldest)
            await self._drop(sql.PRUNE_LONG, counts, events=self._retention.events)
            await self._ask(sql.DROP_FORGOTTEN)
            await self._ask(sql.DROP_REPLICAS)
        except StoreError:
            if not any(counts.values()):
                raise
        dropped = counts.pop(None, 0)
        return Pruned(dropped, {sink: n for sink, n in counts.items() if sink and n})

    async def _drop(
        self, query: LiteralString, counts: dict[str | None, int], **values: object
    ) -> None:
        while True:
            rows: dict[str | None, int] = dict(
                await self._ask(query, most=AT_ONCE, **values)
            )
            for sink, count in rows.items():
                counts[sink] = counts.get(sink, 0) + count
            if rows[None] < AT_ONCE:
                return

    async def watched(self) -> frozenset[JobKey]:
        """Return the jobs added while running, by whatever replica."""
        return frozenset(JobKey(*row) for row in await self._ask(sql.WATCHED))

    async def add(self, keys: Collection[JobKey]) -> None:
        """Remember these jobs as added while running."""
        await self._ask(sql.ADD, **_split(keys))

    async def remove(self, keys: Collection[JobKey]) -> None:
        """Remember these jobs no longer as added."""
        await self._ask(sql.REMOVE, **_split(keys))

    async def note(self, name: str, text: str) -> None:
        """Keep a text under a name."""
        await self._ask(sql.NOTE, name=name, text=text)

    async def notes(self) -> Mapping[str, str]:
        """Return the kept texts, by name."""
        return dict(await self._ask(sql.NOTES))

    async def _ask(self, query: LiteralString, **values: object) -> Rows:
        try:
            return await self._line.ask(query, values)
        except UniqueViolation as error:
            raise StoreError(str(error)) from error


def _database_clock() -> None:
    """Name no time, so that the database does."""


def _split(keys: Collection[JobKey]) -> dict[str, list[str]]:
    targets = [key.target for key in keys]
    return {"targets": targets, "job_ids": [key.job_id for key in keys]}


def _events(transitions: Sequence[Transition]) -> dict[str, list[str]]:
    return {
        "event_ids": [one.event_id for one in transitions],
        "event_targets": [one.key.target for one in transitions],
        "event_jobs": [one.key.job_id for one in transitions],
        "event_bodies": [encode(one) for one in transitions],
    }


def _record(key: JobKey, body: str) -> JobRecord:
    try:
        return decode_record(body)
    except Unreadable as error:
        raise StoreError(f"the record of {key.job_id} is damaged: {error}") from error


def _event(seq: int, body: str, *, replayed: bool = False) -> JournalEvent:
    try:
        return JournalEvent(seq, decode_transition(body), replayed=replayed)
    except Unreadable as error:
        raise StoreError(f"event {seq} is damaged: {error}") from error
