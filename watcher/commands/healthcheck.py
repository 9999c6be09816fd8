"""`watcher healthcheck`: for images that have no curl."""

from __future__ import annotations

import argparse

from watcher.commands.command import (
    Commands,
    Exit,
    Flags,
    add,
    add_address,
    complain,
    server_of,
)


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add(commands, "healthcheck", _ask, "ask the local daemon how it is")
    add_address(parser)


def _ask(args: argparse.Namespace, flags: Flags) -> int:
    from watcher.commands import daemon_http

    problem = daemon_http.check(server_of(args, flags))
    if problem is None:
        return Exit.OK
    complain(problem)
    return Exit.FAILED
