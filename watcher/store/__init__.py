"""Records, journal, outbox and watch list behind the ports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from watcher.core.errors import StoreError
from watcher.ports import Retention, Store
from watcher.store.memory import MemoryStore
from watcher.store.place import check_url, database_path, is_shared
from watcher.store.sqlite.reader import JournalFile
from watcher.store.sqlite.rescue import Damage
from watcher.store.sqlite.store import SqliteStore, log_damage

if TYPE_CHECKING:
    from watcher.store.postgres.store import PostgresStore

__all__ = [
    "Damage",
    "JournalFile",
    "MemoryStore",
    "SqliteStore",
    "check_url",
    "database_path",
    "is_shared",
    "open_shared",
    "open_store",
]


@asynccontextmanager
async def open_shared(
    url: str,
    password: str | None,
    lease: float = 15.0,
    *,
    sinks: Iterable[str] = (),
    retention: Retention | None = None,
    reads_only: bool = False,
) -> AsyncIterator[PostgresStore]:
    """Open the PostgreSQL store that a URL names, for as long as the block runs.

    One that `reads_only` must be there, and is left as it is.

    Raises:
        StoreError: It cannot be opened.
    """
    try:  # only here: nobody else needs the driver, nor has to install it
        from watcher.store.postgres.store import PostgresStore  # noqa: PLC0415
    except ImportError as error:
        raise StoreError(
            "PostgreSQL needs the extra `postgres`: "
            "pip install 'devserver-watcher[postgres]'"
        ) from error
    store = PostgresStore(
        url,
        password=password,
        lease=lease,
        sinks=sinks,
        retention=retention,
        reads_only=reads_only,
    )
    try:
        await store.open()
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def open_store(
    url: str,
    *,
    now: Callable[[], float],
    sinks: Iterable[str],
    retention: Retention | None = None,
    on_damage: Callable[[Damage], None] = log_damage,
    fault_point: Callable[[str], None] = lambda _: None,
    password: str | None = None,
    lease: float = 15.0,
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
        password: Of a store that several replicas share, which keeps its own time.
        lease: Seconds that one of them may be silent before others take over.

    Raises:
        StoreError: It cannot be opened.
    """
    if is_shared(url):
        shared = open_shared(url, password, lease, sinks=sinks, retention=retention)
        async with shared as found:
            yield found
        return
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
