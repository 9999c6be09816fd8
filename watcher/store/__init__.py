"""Records, journal, outbox and watch list behind the ports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from watcher.ports import Retention, Store
from watcher.store.memory import MemoryStore
from watcher.store.place import check_url, database_path
from watcher.store.sqlite.reader import JournalFile
from watcher.store.sqlite.rescue import Damage
from watcher.store.sqlite.store import SqliteStore, log_damage

__all__ = [
    "Damage",
    "JournalFile",
    "MemoryStore",
    "SqliteStore",
    "check_url",
    "database_path",
    "open_store",
]


@asynccontextmanager
async def open_store(
    url: str,
    *,
    now: Callable[[], float],
    sinks: Iterable[str],
    retention: Retention | None = None,
    on_damage: Callable[[Damage], None] = log_damage,
    fault_point: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Store]:
    """Open the store that a URL names, for as long as the block runs.

    Args:
        url: See `database_path`.
        now: Wall clock, Unix seconds.
        sinks: Names of the sinks that each event is owed to. A sink that is new is
            owed what is committed from now on.
        retention: How much of the journal is kept.
        on_damage: Told of a damaged file after it was replaced.
        fault_point: Called with the name of each step; for tests that end the process.

    Raises:
        StoreError: It cannot be opened.
    """
    path = database_path(url)
    if path is None:
        yield MemoryStore(now=now, sinks=sinks, retention=retention)
        return
    store = SqliteStore(
        path,
        now=now,
        sinks=sinks,
        retention=retention,
        on_damage=on_damage,
        fault_point=fault_point,
    )
    try:
        await store.open()
        yield store
    finally:
        await store.close()
