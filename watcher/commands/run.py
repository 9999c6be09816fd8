"""`watcher run`: the daemon."""

from __future__ import annotations

import argparse
from functools import partial

from watcher.commands.command import Commands, Flags, add, origin_of


def add_to(commands: Commands) -> None:
    """Add the command."""
    add(commands, "run", _run, "run the daemon", settable=True)


def _run(args: argparse.Namespace, flags: Flags) -> int:
    from watcher.daemon import app

    origin = origin_of(args, flags)
    settings = origin.load()
    return app.main(settings, partial(app.run, origin, settings))
