"""The durable store: a SQLite file, worked on by one thread off the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import anyio
import structlog

from watcher.core.errors import StoreError
from watcher.core.model import JobKey, JobRecord, JournalEvent, Step
from watcher.ports import ALWAYS_HELD, Fence, Pruned, Retention
from watcher.store.codec import Unreadable
from watcher.store.growth import Growth
from watcher.store.sqlite.files import (
    create,
    is_new,
    keep_private,
    warn_of_open_folder,
)
from watcher.store.sqlite.ledger import Ledger
from watcher.store.sqlite.lock import FileLock
from watcher.store.sqlite.rescue import (
    Damage,
    find_damage,
    finish_rescue,
    is_damage,
    rescue,
)
from watcher.store.sqlite.schema import connect, migrate, refuse_foreign

log = structlog.get_logger()

_Result = TypeVar("_Result")


def log_damage(damage: Damage) -> None:
    """Say that a damaged store was replaced, and what could be kept."""
    log.error(
        "store.damaged",
        reason=damage.reason,
        moved_to=str(damage.aside),
        records=damage.records,
        events=damage.events,
        undelivered=damage.undelivered,
        last_seq=damage.last_seq,
    )


class SqliteStore:
    """All ports of a store on a file, for a single replica, whose every lease is.

    Each call runs whole in the worker thread: one that is cancelled has either
    happened or not begun, and `close` waits for it.

    Args:
        path: Of the database file; its folder must exist.
        now: Wall clock, Unix seconds; dates the journal for retention.
        sinks: Names of the sinks that each event is owed to.
        retention: How much of the journal is kept.
        on_damage: Told of a damaged file after it was replaced, in the worker thread.
        fault_point: Called with the name of each step; for tests that end the process.
    """

    leases = None

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float],
        sinks: Iterable[str] = (),
        retention: Retention | None = None,
        on_damage: Callable[[Damage], None] = log_damage,
        fault_point: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._path = path
        self._now = now
        self._sinks = tuple(sinks)
        self._retention = retention or Retention()
        self._on_damage = on_damage
        self._fault_point = fault_point
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._lock: FileLock | None = None
        self._ledger: Ledger | None = None
        self._suspicion: str | None = None
        self._growth = Growth()

    async def open(self) -> None:
        """Take the file, mend it where needed, bring it to the present schema.

        Raises:
            StoreError: Held by another process, of a newer version, or not usable.
        """
        await self._run(lambda _: None)

    async def close(self) -> None:
        """Let go of the file once what is under way has ended."""
        with anyio.CancelScope(shield=True):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._shut)
        self._thread.shutdown()

    async def load(self, keys: Collection[JobKey]) -> Mapping[JobKey, JobRecord]:
        """Return the records known of these jobs."""
        return await self._run(lambda ledger: ledger.load(keys))

    async def known(self) -> frozenset[JobKey]:
        """Return the jobs of which there are records."""
        return await self._run(lambda ledger: ledger.known())

    async def forget(self, keys: Collection[JobKey]) -> None:
        """Forget the records of these jobs."""
        await self._run(lambda ledger: ledger.forget(keys))

    async def commit(
        self,
        steps: Sequence[Step],
        fence: Fence = ALWAYS_HELD,  # noqa: ARG002
    ) -> Sequence[JournalEvent]:
        """Write records and transitions; an event id already known is left out."""
        return await self._run(lambda ledger: ledger.commit(steps))

    async def undelivered(
        self,
        sink: str,
        limit: int,
        held: Collection[JobKey] = (),
        targets: Collection[str] | None = None,
    ) -> Sequence[JournalEvent]:
        """Return the oldest events that a sink has not taken yet.

        Those that an earlier process may already have handed out are marked replayed.
        """
        return await self._run(
            lambda ledger: ledger.undelivered(sink, limit, held, targets)
        )

    async def delivered(self, sink: str, seqs: Collection[int]) -> None:
        """Remember that a sink took these events; only a power cut may undo it."""
        await self._run(lambda ledger: ledger.delivered(sink, seqs))

    async def backlog(self, sink: str, targets: Collection[str] | None = None) -> int:
        """Count the events that a sink has not taken yet."""
        return await self._run(lambda ledger: ledger.backlog(sink, targets))

    async def read(
        self, after: int, limit: int, job_id: str | None = None
    ) -> Sequence[JournalEvent]:
        """Return events with `seq > after`, oldest first."""
        return await self._run(lambda ledger: ledger.read(after, limit, job_id))

    async def grown(self, after: int) -> int:
        """Wait until the highest number given is another than `after`; return it."""
        return await self._growth.beyond(after)

    async def prune(self, now: float) -> Pruned:
        """Drop what is past retention; undelivered events only once past its age."""
        return await self._run(lambda ledger: ledger.prune(now))

    async def watched(self) -> frozenset[JobKey]:
        """Return the jobs added while running, in earlier lives too."""
        return await self._run(lambda ledger: ledger.watched())

    async def add(self, keys: Collection[JobKey]) -> None:
        """Remember these jobs as added while running."""
        await self._run(lambda ledger: ledger.add(keys))

    async def remove(self, keys: Collection[JobKey]) -> None:
        """Remember these jobs no longer as added."""
        await self._run(lambda ledger: ledger.remove(keys))

    async def note(self, name: str, text: str) -> None:
        """Keep a text under a name."""
        await self._run(lambda ledger: ledger.note(name, text))

    async def notes(self) -> Mapping[str, str]:
        """Return the kept texts, by name."""
        return await self._run(lambda ledger: ledger.notes())

    async def _run(self, work: Callable[[Ledger], _Result]) -> _Result:
        loop = asyncio.get_running_loop()
        answer = loop.run_in_executor(self._thread, self._call, work)
        answer.add_done_callback(self._announce)  # though who asked may be cancelled
        with anyio.CancelScope(shield=True):
            await asyncio.wait([answer])
        return answer.result()

    def _announce(self, _: object) -> None:
        if ledger := self._ledger:  # the worker thread owns it, and may let it go
            self._growth.reach(ledger.last_seq)

    # What follows runs in the worker thread.

    def _call(self, work: Callable[[Ledger], _Result]) -> _Result:
        try:
            try:
                return self._try(work)
            except Unreadable:  # mended by now
                return self._try(work)
        except (sqlite3.Error, Unreadable) as error:
            raise StoreError(f"{self._path}: {error}") from error
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error

    def _try(self, work: Callable[[Ledger], _Result]) -> _Result:
        """Do some work; where it meets damage, let the next opening mend it."""
        if self._ledger is None:
            self._ledger = self._open()
        try:
            return work(self._ledger)
        except (sqlite3.Error, Unreadable) as error:
            if isinstance(error, sqlite3.Error) and not is_damage(error):
                raise
            self._suspicion = str(error)
            self._ledger.close()
            self._ledger = None
            raise Unreadable(self._suspicion) from error

    def _open(self) -> Ledger:
        if self._lock is None:
            self._path = self._path.resolve()  # one store by two names has one lock
            self._lock = FileLock(Path(f"{self._path}.lock"))
            warn_of_open_folder(self._path)
        damage = self._mend()
        if is_new(self._path):
            create(self._path)
        db = connect(self._path)
        try:
            migrate(db, refuse_foreign(db, self._path))
            db.execute("PRAGMA journal_mode = WAL")
            ledger = Ledger(
                db,
                sinks=self._sinks,
                now=self._now,
                retention=self._retention,
                fault_point=self._fault_point,
            )
        except BaseException:
            db.close()
            raise
        self._suspicion = None
        if damage is not None:
            self._on_damage(damage)
        return ledger

    def _mend(self) -> Damage | None:
        """Leave a sound file, or none; say whether one was replaced."""
        damage = finish_rescue(self._path, self._now())
        if is_new(self._path):
            return damage
        keep_private(self._path)
        reason = self._suspicion or find_damage(self._path)
        return rescue(self._path, reason, self._now()) if reason else damage

    def _shut(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
