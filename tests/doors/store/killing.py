"""Opens a store killed at every step in turn: python -m tests.doors.store.killing FOLDER

Each round begins with a copy of the folder, and a child that opens the store in it and
dies at the next step: a statement (of those that insert, which are many alike, only
the transaction's begin and end), or a file opened, renamed, removed or changed. Then
a start without a kill must find a store as good as if nothing had happened. One line
of JSON a round; the last is of a start that came through.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
from itertools import count
from pathlib import Path

from tests.doors.store.conftest import ids, opened, step
from watcher.core.model import JobKey
from watcher.store.sqlite.schema import VERSION

STEPS = {"open", "os.rename", "os.remove", "os.chmod", "fcntl.flock"}
KEYS = [JobKey("prod", job) for job in "abc"]


def die_at(number: int) -> None:
    """Have this process killed at a step."""
    steps = count(1)

    def stepped(*_: object) -> None:
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(*arguments: object, **options: object) -> sqlite3.Connection:
        db = connect(*arguments, **options)
        db.set_trace_callback(lambda sql: sql.startswith("INSERT") or stepped())
        return db

    connect, sqlite3.connect = sqlite3.connect, traced
    sys.addaudithook(lambda event, _: event in STEPS and stepped())


def is_whole(path: Path) -> bool:
    """Whether what bears the store's name, if anything, has all tables."""
    header = path.read_bytes()[:100] if path.exists() else None
    return header is None or int.from_bytes(header[60:64]) == VERSION


async def open_and_close(path: Path) -> None:
    async with opened(path, on_damage=lambda _: None):
        pass


async def start(path: Path) -> dict[str, object]:
    """Open the store, use it, and say what was in it."""
    damages, whole = [], is_whole(path)
    async with opened(path, on_damage=damages.append) as store:
        found = {
            "whole": whole,
            "events": ids(await store.read(0, 1000)),
            "owed": ids(await store.undelivered("log", 1000)),
            "records": len(await store.load(KEYS)),
            "watched": len(await store.watched()),
        }
        (event,) = await store.commit([step("z", "quite new")])
        assert ids(await store.read(event.seq - 1, 10)) == ["quite new"]
    names = sorted(file.name for file in path.parent.iterdir())
    modes = {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    return found | {"names": names, "modes": [*modes], "damages": len(damages)}


def killed(path: Path, number: int) -> bool:
    """Open the store in a process that dies at a step; False if it came through."""
    child = os.fork()
    if not child:
        die_at(number)
        status = 1
        try:
            asyncio.run(open_and_close(path))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or not status, "a start that was not killed failed"
    return os.WIFSIGNALED(status)


def main(folder: Path) -> None:
    """Kill at every step."""
    for number in count(1):
        copy = folder.with_name(f"round-{number}")
        shutil.copytree(folder, copy)
        was_killed = killed(copy / "watcher.db", number)
        if not was_killed:
            shutil.rmtree(copy)
            shutil.copytree(folder, copy)
        found = asyncio.run(start(copy / "watcher.db"))
        print(json.dumps(found), flush=True)  # noqa: T201
        shutil.rmtree(copy)
        if not was_killed:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
