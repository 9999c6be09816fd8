"""`watcher store`: what is done to a store while no daemon runs."""

from __future__ import annotations

import argparse
import time

from watcher.commands.command import Commands, Exit, Flags, add
from watcher.core.errors import SettingsError, StoreError


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add(commands, "store", _store, "move a store to PostgreSQL", config=False)
    parser.add_argument("action", choices=["migrate"])
    parser.add_argument("source", metavar="SQLITE_URL", help="sqlite:///watcher.db")
    parser.add_argument(
        "destination",
        metavar="POSTGRESQL_URL",
        help="postgresql://user@host/database; the password in $PGPASSWORD or $PGPASSFILE",
    )


def _checked(which: str, url: str) -> str:
    from watcher.store import check_url

    try:
        return check_url(url)
    except ValueError as error:
        raise SettingsError([f"{which}: {error}"]) from None


def _store(args: argparse.Namespace, _: Flags) -> int:
    import anyio

    return anyio.run(migrate, args.source, args.destination)


async def migrate(source: str, destination: str) -> int:
    """Move a store, say what was moved, and return the exit code.

    Raises:
        SettingsError: A URL is none, or a store cannot be had; nothing was moved.
    """
    from watcher.store import database_path, is_shared, open_store

    path = database_path(_checked("SQLITE_URL", source))
    if path is None or not is_shared(_checked("POSTGRESQL_URL", destination)):
        raise SettingsError(["move from sqlite:///… to postgresql://…"])
    if not path.exists():
        raise SettingsError([f"{path} is not there"])
    try:
        from watcher.store.postgres.moving import move_in
    except ImportError:
        raise SettingsError(["PostgreSQL needs the extra `postgres`"]) from None
    now = time.time  # noqa: TID251 - of a command that is its own process
    try:  # opened as a daemon does: under its lock, sound, in the present schema
        async with open_store(source, now=now, sinks=()):
            moved = await move_in(path, destination)
    except StoreError as error:
        raise SettingsError([f"nothing was moved: {error}"]) from None
    shown = ", ".join(f"{count} {name}" for name, count in moved.counts.items())
    print(f"moved {shown}; numbers go on above {moved.last_seq}")  # noqa: T201
    return Exit.OK
