"""`watcher events`: the journal as lines of JSON, read beside its daemon."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from watcher.commands.command import Commands, Flags, add, origin_of
from watcher.core.errors import SettingsError
from watcher.core.journal import line
from watcher.core.model import JournalEvent

BATCH = 1000
LOOK_EVERY = 0.5


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add(commands, "events", _events, "read the journal")
    parser.add_argument("--after", type=int, default=0, metavar="SEQ")
    parser.add_argument("--job", metavar="ID")
    parser.add_argument("--follow", action="store_true", help="wait for more")


def _events(args: argparse.Namespace, flags: Flags) -> int:
    from watcher.store import database_path

    folder = Path(os.environ.get("STATE_DIRECTORY", "."))
    path = database_path(origin_of(args, flags).load().store.url, folder)
    if path is None:
        raise SettingsError(["store.url: memory: keeps no journal that could be read"])
    return main(path, args.after, args.job, args.follow, sys.stdout.buffer)


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
    from watcher.encoding import encode_json

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
    from watcher.store import open_journal

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
