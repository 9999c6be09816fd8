"""The journal of a store, read beside the daemon that owns it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import anyio

from watcher.core.errors import StoreError
from watcher.core.model import JournalEvent
from watcher.store.sqlite.ledger import highest_seq, read_events
from watcher.store.sqlite.schema import connect, refuse_foreign

_Answer = TypeVar("_Answer")

LOOK_EVERY = 0.5
"""Seconds between two looks at a journal that is written by another process."""


class JournalFile:
    """The `JournalReader` port on a file; takes no lock.

    Between two calls nothing is held open: neither the daemon's write-ahead log nor a
    file that was replaced. An event that cannot be read is passed over: its daemon says
    so, and puts it aside.

    Args:
        path: Of the database file.
        look_every: Seconds between two looks where growth is waited for.
    """

    def __init__(self, path: Path, *, look_every: float = LOOK_EVERY) -> None:
        self._path = path
        self._look_every = look_every

    async def read(
        self, after: int, limit: int, job_id: str | None = None
    ) -> Sequence[JournalEvent]:
        """Return events with `seq > after`, oldest first; none where there is no file.

        Raises:
            StoreError: The file cannot be read.
        """
        return self._ask(
            [], lambda db: read_events(db, after, limit, job_id, skip_unreadable=True)
        )

    async def grown(self, after: int) -> int:
        """Wait until the highest number given is another than `after`; return it.

        Raises:
            StoreError: The file is there, but it cannot be read.
        """
        # Another process writes it: there is no event to wait for.
        while (highest := self._ask(after, highest_seq)) == after:  # noqa: ASYNC110
            await anyio.sleep(self._look_every)
        return highest

    def _ask(
        self, absent: _Answer, ask: Callable[[sqlite3.Connection], _Answer]
    ) -> _Answer:
        try:
            with closing(connect(self._path, read_only=True)) as db:
                return ask(db) if refuse_foreign(db, self._path) else absent
        except sqlite3.Error as error:
            if not self._path.exists():
                return absent
            raise StoreError(f"{self._path}: {error}") from error
