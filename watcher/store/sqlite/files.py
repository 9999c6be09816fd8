"""The files of a store: private, and whole before they get their name."""

from __future__ import annotations

import os
import stat
from contextlib import closing, suppress
from pathlib import Path

import structlog

from watcher.store.sqlite.schema import connect, migrate

log = structlog.get_logger()

PRIVATE = 0o600
PARTS = ("", "-wal", "-shm", "-journal")
"""What stands behind the name of a database in the names of its files."""


def is_new(path: Path) -> bool:
    """Whether a store has yet to be made: an empty file holds nothing to lose."""
    return not path.exists() or (path.is_file() and path.stat().st_size == 0)


def create(path: Path) -> None:
    """Make an empty store; whoever is killed meanwhile leaves none."""
    new = path.with_name(f"{path.name}.new")
    make_empty(new)
    with closing(connect(new)) as db:
        migrate(db, 0)
    for part in PARTS[1:]:  # a log left of a lost file would be replayed over this one
        Path(f"{path}{part}").unlink(missing_ok=True)
    put_in_place(new, path)


def make_empty(path: Path) -> None:
    """Make an empty database file for this user alone, instead of any that is there."""
    for part in PARTS:
        Path(f"{path}{part}").unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))


def put_in_place(new: Path, path: Path) -> None:
    """Give a whole file its name, durably."""
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def roll_back(path: Path) -> None:
    """Undo what a killed process had begun; who only reads a file cannot.

    Raises:
        sqlite3.Error: It cannot be undone.
    """
    if Path(f"{path}-journal").exists():
        with closing(connect(path)) as db:
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()


def keep_private(path: Path) -> None:
    """Take the files of a store from other users' sight; SQLite's own follow them."""
    for part in PARTS:
        file = Path(f"{path}{part}")
        with suppress(OSError):  # not there, or of another user, who let us write it
            if stat.S_ISREG(file.lstat().st_mode):
                file.chmod(PRIVATE)


def warn_of_open_folder(path: Path) -> None:
    """Say so where any user may replace the store."""
    mode = path.parent.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        log.warning("store.exposed", folder=str(path.parent), mode=f"{mode & 0o7777:o}")
