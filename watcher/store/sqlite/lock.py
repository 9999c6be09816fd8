"""Keeps a second daemon off the same store."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from watcher.core.errors import StoreError
from watcher.store.sqlite.files import PRIVATE


class FileLock:
    """An exclusive lock on a file, until closed.

    The kernel lets it go when the process ends, however it ends. The file stays and
    says who holds it. Other users may not open it: who can, could hold it.

    Raises:
        StoreError: Another process holds it, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = _open(path)
        try:
            self._take(path)
        except BaseException:
            self.close()
            raise

    def _take(self, path: Path) -> None:
        holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            raise StoreError(
                f"{path} is held by another watcher (process {holder or 'unknown'}); "
                "two cannot share one store"
            ) from error
        except OSError as error:
            raise StoreError(f"cannot lock {path}: {error.strerror}") from error

    def close(self) -> None:
        """Let it go."""
        os.close(self._descriptor)


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, PRIVATE)
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise StoreError(f"cannot write {path}: {reason}") from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise StoreError(f"cannot write {path}: it is not a file")
    if found.st_uid == os.geteuid():
        os.fchmod(descriptor, PRIVATE)
    return descriptor
