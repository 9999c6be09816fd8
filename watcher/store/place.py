"""Where a store is: the one home of what its URL means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

MEMORY = "memory:"


def check_url(url: str) -> str:
    """Return a store's URL, or raise ValueError where it names none."""
    _file_name(url)
    return url


def database_path(url: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file that a store's URL names; None for `memory:`.

    `sqlite:///watcher.db` is relative to $STATE_DIRECTORY where that is set, else to
    the working folder; `sqlite:////var/watcher.db` is not relative.

    Raises:
        ValueError: It names no store.
    """
    name = _file_name(url)
    return None if name is None else Path(environ.get("STATE_DIRECTORY", "."), name)


def _file_name(url: str) -> str | None:
    if url == MEMORY:
        return None
    scheme, _, name = url.partition(":///")
    if scheme != "sqlite" or not name or name.endswith("/"):
        raise ValueError(
            f"{scheme.partition(':')[0][:40]!r} is not understood; write "
            "sqlite:///watcher.db, sqlite:////absolute/path.db or memory:"
        )
    return name
