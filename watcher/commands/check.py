"""`watcher check`: what is wrong with the configuration, and what it comes to."""

from __future__ import annotations

import argparse
import difflib
import sys

from watcher.commands.command import Commands, Exit, Flags, add, origin_of
from watcher.settings.showing import as_yaml
from watcher.web.web_config import WebConfig


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add(commands, "check", _check, "check the configuration", settable=True)
    parser.add_argument(
        "--diff", action="store_true", help="what a reload of the daemon would change"
    )


def _check(args: argparse.Namespace, flags: Flags) -> int:
    settings = origin_of(args, flags).load()
    if settings.server.web_config_file:
        WebConfig(settings.server.web_config_file)
    text = as_yaml(settings)
    if args.diff:
        from watcher.commands import daemon_http

        text = _difference(daemon_http.settings_in_force(settings.server), text)
    sys.stdout.write(text)
    return Exit.OK


def _difference(before: str, after: str) -> str:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, "in force", "after a reload", n=2))
