"""`watcher wait`: until jobs are finished; needs neither a daemon nor a store."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from watcher.commands.command import Commands, Exit, Flags, add, origin_of
from watcher.core.model import JobKey, check_job_id
from watcher.fields import parse_duration
from watcher.settings.schema import Settings
from watcher.settings.showing import nearest

if TYPE_CHECKING:
    from watcher.commands.waiting import Wanted


def add_to(commands: Commands) -> None:
    """Add the command."""
    what = "wait until jobs are finished"
    parser = add(commands, "wait", _wait, what, settable=True)
    parser.add_argument("job_ids", nargs="+", metavar="JOB_ID", help="the jobs")
    parser.add_argument("--target", metavar="NAME", help="where there are several")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="wait for all (the default)")
    which.add_argument("--any", action="store_true", help="wait for one of them")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="DURATION",
        default=math.inf,
        help="such as 30m; without it there is no limit",
    )


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    if isinstance(seconds, float) and seconds >= 0:
        return seconds
    raise argparse.ArgumentTypeError("must not be negative")


def _wait(args: argparse.Namespace, flags: Flags) -> int:
    from watcher.commands.waiting import Wanted

    settings = origin_of(args, flags).load()
    try:
        ids = job_ids(args.job_ids)
        target = _target(args.target, settings.targets)
        keys = [JobKey(target, each) for each in ids]
        wanted = Wanted(keys, args.any, args.timeout)
    except ValueError as exc:
        return int(args.parser.error(str(exc)))
    return _run(settings, wanted)


def job_ids(words: Iterable[str]) -> Sequence[str]:
    """Return the ids in words that may have come from a file, each once.

    Line ends of Windows, and the mark with which its files begin, are no part of one.

    Raises:
        ValueError: There is something else, or nothing.
    """
    ids = [each for word in words for each in word.replace("\ufeff", " ").split()]
    if not ids:
        raise ValueError("no JOB_ID is given")
    return list(dict.fromkeys(check_job_id(each) for each in ids))


def _target(name: str | None, known: Collection[str]) -> str:
    """Return the target that is meant.

    Raises:
        ValueError: It is not configured, or there are several.
    """
    if name is None and len(known) == 1:
        return next(iter(known))
    if name in known and name is not None:
        return name
    names = ", ".join(sorted(known))
    if name is None:
        raise ValueError(
            f"there are several targets: choose one with --target ({names})"
        )
    near = nearest(name, known)
    meant = f"; did you mean {near}?" if near else f" ({names})"
    raise ValueError(f"there is no target {name}{meant}")


def _run(settings: Settings, wanted: Wanted) -> int:
    """Set up the process, wait, tell how it ended, and return the exit code."""
    import anyio
    import structlog

    from watcher.commands.terminal import is_live
    from watcher.core.errors import WatcherError
    from watcher.daemon.app import wall
    from watcher.logs import configure_logging

    log, live = structlog.get_logger(), is_live(sys.stdout)
    # What a view shows is not logged across it.
    level = "critical" if live else "warning"
    writer = configure_logging(level, "auto", sys.stderr, wall)
    try:
        return anyio.run(_show_live if live else _show_lines, settings, wanted)
    except (WatcherError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        log.critical("watcher.crashed", exc_info=True)
        return Exit.INTERNAL
    finally:
        writer.close()


async def _show_live(settings: Settings, wanted: Wanted) -> int:
    from watcher.commands.terminal import Live, write_lines
    from watcher.commands.wait_faces import LiveFace, summary
    from watcher.commands.waiting import watch
    from watcher.daemon.app import wall

    with Live(sys.stdout) as live:
        face = LiveFace(live, sys.stdout, wall)
        code, progress = await watch(settings, wanted, face, wall)
    write_lines(sys.stdout, summary(progress, code, wall()), clip=False)
    return code


async def _show_lines(settings: Settings, wanted: Wanted) -> int:
    from watcher.commands.terminal import write_lines
    from watcher.commands.wait_faces import PipeFace, summary
    from watcher.commands.waiting import watch
    from watcher.daemon.app import wall
    from watcher.logs import LineWriter

    writer = LineWriter(sys.stdout)
    try:
        code, progress = await watch(settings, wanted, PipeFace(writer), wall)
    finally:
        writer.close()
    write_lines(sys.stderr, summary(progress, code, wall()), clip=False)
    return code
