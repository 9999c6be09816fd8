"""`watcher events`: the journal as lines of JSON, read beside its daemon."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from typing import BinaryIO, TypeAlias

from watcher.commands.command import (
    Commands,
    Exit,
    Flags,
    add,
    complain,
    origin_of,
)
from watcher.core.errors import SettingsError
from watcher.core.journal import line
from watcher.encoding import encode_json
from watcher.ports import JournalReader

BATCH = 1000
Tell: TypeAlias = Callable[[JournalReader, int, str | None, BinaryIO], Awaitable[int]]
LONGEST_SEQ = 16
"""Digits; the numbers of events are exact in JSON."""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add(commands, "events", _events, "read what was told, as lines of JSON")
    parser.add_argument(
        "--after", type=_seq, default=0, metavar="SEQ", help="what has a higher number"
    )
    parser.add_argument("--job", metavar="ID", help="of this job only")
    parser.add_argument("--follow", action="store_true", help="wait for more")


def _seq(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= LONGEST_SEQ):
        raise argparse.ArgumentTypeError(f"'{text[:40]}' is no number of an event")
    return int(text)


def _events(args: argparse.Namespace, flags: Flags) -> int:
    import anyio

    from watcher.store import JournalFile, database_path, is_shared

    store = origin_of(args, flags).load().store
    tell = follow if args.follow else show
    if is_shared(store.url):
        password = store.password.get_secret_value() if store.password else None
        return anyio.run(_shared, store.url, password, tell, args.after, args.job)
    path = database_path(store.url)
    if path is None:
        raise SettingsError(["store.url: memory: keeps no journal that could be read"])
    if not args.follow and not path.exists():
        raise SettingsError([f"store.url: {path} is not there; no daemon has made it"])
    if args.follow and not path.exists():
        complain(f"{path} is not there yet; waiting for a daemon to make it")
    journal = JournalFile(path)
    return anyio.run(tell, journal, args.after, args.job, sys.stdout.buffer)


async def _shared(
    url: str, password: str | None, tell: Tell, after: int, job: str | None
) -> int:
    from watcher.store import open_shared

    async with open_shared(url, password, reads_only=True) as journal:
        return await tell(journal, after, job, sys.stdout.buffer)


async def show(
    journal: JournalReader, after: int, job: str | None, out: BinaryIO
) -> int:
    """Write the events of a journal that are there, and return the exit code."""
    told = await _write(journal, after, job, out)
    if told is None and job and not await journal.read(0, 1, job):
        complain(f"no event of a job {job} is in the journal")
        return Exit.FAILED
    return Exit.OK


async def follow(
    journal: JournalReader, after: int, job: str | None, out: BinaryIO
) -> int:
    """Write the events of a journal as they come, until interrupted."""
    highest = -1
    while True:
        highest = await journal.grown(highest)
        after = after if after <= highest else 0  # it was the number of another journal
        after = await _write(journal, after, job, out) or after


async def _write(
    journal: JournalReader, after: int, job: str | None, out: BinaryIO
) -> int | None:
    """Write what comes after a number, one event a line.

    Args:
        journal: What to read.
        after: Only events with a higher number.
        job: Only events of the job with this id; None means all.
        out: Takes the lines.

    Returns:
        The number of the last event; None where there was none.

    Raises:
        StoreError: The journal cannot be read.
        BrokenPipeError: The reader of the lines has left.
    """
    last = None
    while batch := await journal.read(last or after, BATCH, job):
        out.writelines(encode_json(line(event)) + b"\n" for event in batch)
        out.flush()
        last = batch[-1].seq
    return last
