"""`watcher doctor`: what stands between here and the jobs."""

from __future__ import annotations

import argparse
import sys

from watcher.commands.command import Commands, Flags, add, origin_of


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add(commands, "doctor", _examine, "find out what is wrong", settable=True)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _examine(args: argparse.Namespace, flags: Flags) -> int:
    from watcher import doctor
    from watcher.daemon import app

    return doctor.main(
        origin_of(args, flags), as_json=args.json, out=sys.stdout, now=app.wall
    )
