"""Records, journal and delivery state behind the `Store` port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from watcher.core.errors import StoreError
from watcher.ports import Store
from watcher.store.memory import MemoryStore
from watcher.store.sqlite.ledger import Retention
from watcher.store.sqlite.rescue import Damage
from watcher.store.sqlite.store import Journal, SqliteStore, log_damage, open_journal

__all__ = [
    "Damage",
    "Journal",
    "MemoryStore",
    "Retention",
    "SqliteStore",
    "database_path",
    "open_journal",
    "open_store",
]

MEMORY = "memory:"


def database_path(url: str, folder: Path) -> Path | None:
    """Return the file that a store's URL names; None for `memory:`.

    `sqlite:///watcher.db` is relative to `folder`, `sqlite:////var/watcher.db` is not.

    Raises:
        StoreError: It is neither of these.
    """
    if url == MEMORY:
        return None
    scheme, _, name = url.partition(":///")
    if scheme != "sqlite" or not name or name.endswith("/"):
        raise StoreError(
            f"store.url: {scheme.partition(':')[0]!r} is not understood; "
            "write sqlite:///watcher.db, sqlite:////absolute/path.db or memory:"
        )
    return folder / name


@asynccontextmanager
async def open_store(
    url: str,
    *,
    folder: Path,
    now: Callable[[], float],
    sinks: Iterable[str],
    retention: Retention | None = None,
    on_damage: Callable[[Damage], None] = log_damage,
    fault_point: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Store]:
    """Open the store that a URL names, for as long as the block runs.

    Args:
        url: See `database_path`.
        folder: What a relative path starts from.
        now: Wall clock, Unix seconds.
        sinks: Names of the sinks that each event is owed to. A sink that is new is
            owed what is committed from now on.
        retention: How much of the journal is kept.
        on_damage: Told of a damaged file after it was replaced.
        fault_point: Called with the name of each step; for tests that end the process.

    Raises:
        StoreError: It cannot be opened.
    """
    path = database_path(url, folder)
    if path is None:
        yield MemoryStore(now=now, sinks=sinks)
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
