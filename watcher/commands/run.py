"""`watcher run`: the daemon."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from typing import NoReturn

from watcher.commands.command import Commands, Exit, Flags, add, origin_of


def add_to(commands: Commands) -> None:
    """Add the command."""
    add(commands, "run", _run, "run the daemon", settable=True)


def _run(args: argparse.Namespace, flags: Flags) -> int:
    # Process 1 of a container gets no signal that it has not asked for, and it takes a
    # moment until the daemon heeds them itself.
    signal.signal(signal.SIGTERM, _leave)
    from watcher.daemon import app

    origin = origin_of(args, flags)
    settings = origin.load()
    return app.main(settings, partial(app.run, origin, settings))


def _leave(*_: object) -> NoReturn:
    sys.exit(Exit.OK)
