"""Keeps a second daemon off the same store."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from watcher.core.errors import StoreError


class FileLock:
    """An exclusive lock on a file, until closed.

    The kernel lets it go when the process ends, however it ends. The file stays and
    says who holds it.

    Attributes:
        used_before: Whether an earlier process has held it.

    Raises:
        StoreError: Another process holds it, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error
        holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
        self.used_before = bool(holder)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            self.close()
            if not isinstance(error, BlockingIOError):
                raise StoreError(f"cannot lock {path}: {error.strerror}") from error
            raise StoreError(
                f"{path} is held by another watcher (process {holder or 'unknown'}); "
                "two cannot share one store"
            ) from error

    def close(self) -> None:
        """Let it go."""
        os.close(self._descriptor)
