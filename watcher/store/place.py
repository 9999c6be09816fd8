"""Where a store is: the one home of what its URL means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

MEMORY = "memory:"


def check_url(url: str) -> str:
    """Return a store's URL, or raise ValueError where it names none."""
    if is_shared(url):
        _check_shared(url)
    else:
        _file_name(url)
    return url


def is_shared(url: str) -> bool:
    """Tell whether a URL names a store that several replicas may open: PostgreSQL."""
    return url.partition("://")[0] in {"postgresql", "postgres"}


def parted(url: object) -> tuple[object, str | None]:
    """Return a URL without the password that it holds, and that; None: it holds none."""
    if not isinstance(url, str) or not is_shared(url):
        return url, None
    scheme, _, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    name, colon, password = user.partition(":")
    if not (at and colon and password):
        return url, None
    return f"{scheme}://{name}@{place}", unquote(password)


def _check_shared(url: str) -> None:
    """Refuse what would be shown, or would not work.

    Raises:
        ValueError: It holds a password, or names no database.
    """
    parts = urlsplit(url)
    names = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if parts.password is not None or names & {"password", "sslpassword", "passfile"}:
        raise ValueError(
            "must hold no password, for it is shown; set store.password, best in a "
            "secrets folder"
        )
    if not parts.path.strip("/"):
        raise ValueError("must name a database: postgresql://user@host/database")
    if refused := sorted(names & {"options", "client_encoding"}):
        raise ValueError(f"{refused[0]} is the watcher's to set")


def database_path(url: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file that a store's URL names; None for `memory:`.

    None for PostgreSQL too. `sqlite:///watcher.db` is relative to $STATE_DIRECTORY where
    that is set, else to the working folder; `sqlite:////var/watcher.db` is not relative.

    Raises:
        ValueError: It names no store.
    """
    name = None if is_shared(url) else _file_name(url)
    return None if name is None else Path(environ.get("STATE_DIRECTORY", "."), name)


def _file_name(url: str) -> str | None:
    if url == MEMORY:
        return None
    scheme, _, name = url.partition(":///")
    if scheme != "sqlite" or not name or name.endswith("/"):
        raise ValueError(
            f"{scheme.partition(':')[0][:40]!r} is not understood; write "
            "sqlite:///watcher.db, sqlite:////absolute/path.db, "
            "postgresql://user@host/database or memory:"
        )
    return name
