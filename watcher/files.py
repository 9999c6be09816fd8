"""When a file has changed."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path


def file_state(path: Path) -> Hashable:
    """Return what changes when a file is written or replaced, also behind a link."""
    try:
        return path, stamp(path.stat())
    except OSError:
        return path, None


def stamp(found: os.stat_result) -> Hashable:
    """Return the same of a file that was looked at already."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
