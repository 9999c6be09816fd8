"""`watcher check`: what is wrong with the configuration, and what it comes to."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Collection

from watcher.commands.command import (
    Commands,
    Exit,
    Flags,
    add,
    complain,
    origin_of,
)
from watcher.core.model import JobKey
from watcher.settings.schema import Settings
from watcher.settings.showing import as_yaml, marked_yaml


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add(commands, "check", _check, "check the configuration", settable=True)
    parser.add_argument(
        "--diff", action="store_true", help="what a reload of the daemon would change"
    )


def _check(args: argparse.Namespace, flags: Flags) -> int:
    origin = origin_of(args, flags)
    settings = origin.load()
    if settings.server.web_config_file:
        from watcher.web.web_config import WebConfig

        WebConfig(settings.server.web_config_file)
    if args.diff:
        from watcher.commands import daemon_http

        before = daemon_http.settings_in_force(settings.server)
        sys.stdout.write(_difference(before, as_yaml(settings)))
    else:
        sys.stdout.write(marked_yaml(settings))
    sys.stdout.flush()
    return _conclude(settings, origin.secrets(settings))


def _conclude(settings: Settings, secrets: Collection[str]) -> int:
    """Say whether all is well, the files of jobs too, and how much would be watched."""
    from watcher.polling.sources import JobFiles

    jobs, problems = 0, list[str]()
    for name, target in settings.targets.items():
        reading = JobFiles(name, target.job_files, secrets).look()
        keys = {*reading.keys, *(JobKey(name, each) for each in target.jobs)}
        jobs += len(keys)
        problems += reading.problems
        if not keys and target.discover is None:
            complain(f"targets.{name}: watches nothing: no jobs, job_files or discover")
    for problem in problems:
        complain(problem)
    if problems:
        return Exit.FAILED
    complain(
        f"valid: {_count(jobs, 'job')} in {_count(len(settings.targets), 'target')}"
    )
    return Exit.OK


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _difference(before: str, after: str) -> str:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, "in force", "after a reload", n=2))
