"""`watcher status`: how the watched jobs are, as the local daemon knows it."""

from __future__ import annotations

import argparse
import sys

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
    what = "show how the watched jobs are, failed first"
    parser = add(commands, "status", _status, what)
    parser.add_argument(
        "job", nargs="?", metavar="JOB_ID", help="one job, or the beginning of its id"
    )
    parser.add_argument("--target", metavar="NAME", help="jobs of this target only")
    parser.add_argument(
        "--failed", action="store_true", help="only where something failed"
    )
    parser.add_argument(
        "--server", metavar="NAME", help="what became of a server, or of several alike"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--watch", action="store_true", help="go on as it changes; Ctrl-C ends it"
    )
    parser.add_argument(
        "--limit",
        type=_limit,
        metavar="N",
        help="so many at most, 0 for all (default: 20 on a terminal, else all)",
    )
    add_address(parser)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < len(str(10**9))):
        raise argparse.ArgumentTypeError(f"'{text[:40]}' is no number")
    return int(text)


def _status(args: argparse.Namespace, flags: Flags) -> int:
    from watcher.commands.asking import Question
    from watcher.commands.daemon_http import DaemonError
    from watcher.commands.status_faces import show, watch
    from watcher.commands.terminal import is_live

    server = server_of(args, flags)
    limit = args.limit
    if limit is None and sys.stdout.isatty() and not args.json:
        limit = 20
    question = Question(
        server, args.job, args.target, args.server, limit or None, failed=args.failed
    )
    live = is_live(sys.stdout) and not args.json
    try:
        if args.watch:
            return watch(question, sys.stdout, as_json=args.json, live=live)
        show(question, sys.stdout, as_json=args.json)
    except DaemonError as exc:
        complain(str(exc))
        return Exit.FAILED
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        where = f"{server.address[0]}:{server.address[1]}"
        complain(
            f"what {where} answers is not understood ({type(exc).__name__}: "
            f"{str(exc)[:256]}); is the daemon of this version?"
        )
        return Exit.FAILED
    return Exit.OK
