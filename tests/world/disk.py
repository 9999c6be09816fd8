"""The real store on a disk that fails as the script says, and that can lose power."""

import shutil
import sqlite3
from pathlib import Path

from tests.world.loop import LIFE, Ended
from watcher.store.sqlite.files import PARTS
from watcher.store.sqlite.store import SqliteStore


class Disk:
    """What the script may do to the store's files.

    Attributes:
        failed: The lives that it has failed.
        mood: `well`, `slow`, `full`, or `true` where a commit is said to have failed
            and has come true.
        hangs_until: No work on it ends before.
        can_lose: Whether what is synced is remembered, so that power can be cut.
    """

    def __init__(self, world, folder, *, can_lose):
        self.path = Path(folder) / "watcher.db"
        self.mood = "well"
        self.hangs_until = 0.0
        self.failed = set()
        self._world = world
        self._can_lose = can_lose
        self._durable = False
        self._synced = None

    def delay(self):
        world = self._world
        low, high = (0.5, 6.0) if self.mood == "slow" else (0.0005, 0.004)
        seconds = low + (high - low) * world.draw.random()
        return max(seconds, self.hangs_until - world.loop.now)

    def begin_work(self):
        if LIFE.get().ended:
            raise Ended
        if self.mood == "full":
            self._world.met("disk.full")
            self.failed.add(LIFE.get().number)
            raise sqlite3.OperationalError("database or disk is full")

    def point(self, name):
        """Be called at each fault point of the store."""
        if name == "commit.after_commit" and self.mood == "true":
            self._world.met("disk.true")
            raise sqlite3.OperationalError("disk I/O error")

    def statement(self, text):
        """Hear each statement: which of them is synced."""
        if text.startswith("PRAGMA synchronous"):
            self._durable = text.endswith("FULL")
        elif text.startswith("COMMIT") and self._durable:
            self._synced = "due"

    def end_work(self):
        """Remember what is synced by now."""
        if self._can_lose and self._synced == "due":
            self._synced = [
                (part, Path(f"{self.path}{part}").read_bytes())
                for part in PARTS
                if Path(f"{self.path}{part}").exists()
            ]

    def lose_power(self):
        """Lose what was not synced; nobody has the files open."""
        if isinstance(self._synced, list):
            for part in PARTS:
                Path(f"{self.path}{part}").unlink(missing_ok=True)
            for part, content in self._synced:
                if part != "-shm":
                    Path(f"{self.path}{part}").write_bytes(content)

    def copy_for_crash(self):
        """Keep the files as a killed process leaves them, whatever closing them does."""
        for part in PARTS:
            file = Path(f"{self.path}{part}")
            if file.exists():
                shutil.copyfile(file, f"{file}.kept")

    def leave_as_crashed(self):
        for part in PARTS:
            file = Path(f"{self.path}{part}")
            kept = Path(f"{file}.kept")
            file.unlink(missing_ok=True)
            if kept.exists():
                kept.rename(file)


class WorldStore(SqliteStore):
    """The store, its work done on this disk."""

    def __init__(self, disk, fault_point, **options):
        self._disk = disk

        def point(name):
            disk.point(name)
            fault_point(name)

        super().__init__(disk.path, fault_point=point, **options)

    def _try(self, work):
        self._disk.begin_work()
        try:
            return super()._try(work)
        finally:
            self._disk.end_work()

    def _open(self):
        ledger = super()._open()
        ledger._db.set_trace_callback(self._disk.statement)
        return ledger

    def drop(self):
        """Let go of the files as the end of a process does; commits nothing."""
        self._disk.copy_for_crash()
        self._shut()
        self._disk.leave_as_crashed()
