"""`watcher healthcheck`: for images that have no curl."""

from __future__ import annotations

import argparse

from watcher.commands.command import (
    Commands,
    Exit,
    Flags,
    add,
    address,
    complain,
    origin_of,
)
from watcher.settings.schema import Server


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add(commands, "healthcheck", _ask, "ask the local daemon how it is")
    parser.add_argument(
        "--address",
        type=_address_text,
        metavar="HOST:PORT",
        help="of the daemon (default: server.listen of the configuration)",
    )


def _address_text(text: str) -> str:
    address(text)
    return text


def _ask(args: argparse.Namespace, flags: Flags) -> int:
    from watcher.commands import daemon_http

    if args.address:
        server = Server(listen=args.address)
    else:
        server = origin_of(args, flags).load().server
    problem = daemon_http.check(server)
    if problem is None:
        return Exit.OK
    complain(problem)
    return Exit.FAILED
