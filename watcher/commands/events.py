"""The journal as lines of JSON, read beside the daemon that writes it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from watcher.core.errors import SettingsError
from watcher.core.journal import line
from watcher.core.model import JournalEvent
from watcher.encoding import encode_json
from watcher.store import open_journal

BATCH = 1000
LOOK_EVERY = 0.5


def _pause() -> None:
    time.sleep(LOOK_EVERY)  # noqa: TID251 - a command without a loop


def main(
    path: Path,
    after: int,
    job: str | None,
    follow: bool,
    out: BinaryIO,
    *,
    pause: Callable[[], None] = _pause,
) -> int:
    """Write the events of a journal, one a line, and return the exit code.

    Args:
        path: The store's file; it is not locked, so its daemon may run.
        after: Only events with a higher number.
        job: Only events of the job with this id; None means all.
        follow: Wait for more, until interrupted.
        out: Takes the lines; a reader that leaves ends it.
        pause: Waits between two looks.

    Raises:
        SettingsError: There is no store.
        StoreError: It cannot be read.
    """
    if not path.exists():
        raise SettingsError([f"store.url: {path} is not there; no daemon has made it"])
    try:
        while True:
            for batch in _batches(path, after, job):
                out.writelines(encode_json(line(event)) + b"\n" for event in batch)
                out.flush()
                after = batch[-1].seq
            if not follow:
                return 0
            pause()
    except BrokenPipeError:
        _silence(out)
        return 0


def _batches(path: Path, after: int, job: str | None) -> Iterator[list[JournalEvent]]:
    """Read to the end, each batch from the file as it is then named.

    Between two batches nothing is held open: neither the daemon's write-ahead log nor
    a file that was replaced.
    """
    while True:
        with open_journal(path) as journal:
            batch = list(journal.events(after, BATCH, job))
        if not batch:
            return
        yield batch
        after = batch[-1].seq


def _silence(out: BinaryIO) -> None:
    """Let what is still buffered go nowhere, so that exit does not fail on it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, out.fileno())
    os.close(nowhere)
