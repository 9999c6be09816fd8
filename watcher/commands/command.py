"""What commands have in common."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import BinaryIO, TypeAlias

from watcher.core.errors import SettingsError
from watcher.encoding import printable
from watcher.settings.loading import Origin, config_file
from watcher.settings.schema import Server, Settings, listen_address
from watcher.settings.showing import described, section_of


class Exit(IntEnum):
    """What an exit code says; from 69 on in the meaning of sysexits.h."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMED_OUT = 3
    UNAVAILABLE = 69
    INTERNAL = 70
    NOT_NOW = 75
    REFUSED = 77
    SETTINGS = 78
    INTERRUPTED = 130


SHOW_SETTINGS = frozenset({"run", "check"})
"""Commands whose help lists all settings; that of others says where they are listed."""
_IN = " " * 6

NO_TARGETS = {"targets": {"none": {"region": "none"}}}
"""Stands in for a configuration where only the daemon's address matters."""

Flags = Mapping[str, str]
"""Settings given as flags: text by dotted path."""

Command = Callable[[argparse.Namespace, Flags], int]
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001


def add(
    commands: Commands,
    name: str,
    command: Command,
    what: str,
    *,
    settable: bool = False,
    config: bool = True,
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: Where to.
        name: What it is called.
        command: Carries it out and returns the exit code.
        what: What it does, in a few words.
        settable: Whether it takes every setting as a flag.
        config: Whether it takes a configuration file.
    """
    parser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=_settings_help(in_full=name in SHOW_SETTINGS) if settable else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=command, parser=parser, settable=settable)
    if config:
        parser.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="the configuration (default: what WATCHER_CONFIG names)",
        )
    return parser


@cache
def _settings_help(*, in_full: bool) -> str:
    if not in_full:
        return "Every setting is a flag too, such as --poll.interval=5s: watcher run --help"
    lines = ["Every setting is a flag too, such as --poll.interval=5s:"]
    section = None
    for path, default, what in described():
        if section != (section := path.partition(".")[0]):
            lines += ["", f"{section}: {_sentence(section)}"]
        given = f"  (default {default})" if default != "none" else ""
        lines.append(f"  --{path}{given}")
        lines += wrap(
            what.replace("`", ""), 76, initial_indent=_IN, subsequent_indent=_IN
        )
    return "\n".join(lines)


def _sentence(section: str) -> str:
    """Say what the settings of a section are about."""
    field = Settings.model_fields[section]
    model = section_of(field)
    text = model.__doc__ if model else field.description
    first = (text or "").strip().splitlines()[0].rstrip(".")
    return f"{first[:1].lower()}{first[1:]}"


def origin_of(args: argparse.Namespace, flags: Flags) -> Origin:
    """Return where the settings of a command come from."""
    return Origin(config_file(args.config), flags)


def address(text: str) -> tuple[str, int]:
    """Read an argument that is an address."""
    try:
        return listen_address(text)
    except SettingsError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def add_address(parser: argparse.ArgumentParser) -> None:
    """Let a command be told where the daemon is."""
    parser.add_argument(
        "--address",
        type=_address_text,
        metavar="HOST:PORT",
        help="of the daemon (default: server.listen of the configuration)",
    )


def _address_text(text: str) -> str:
    address(text)
    return text


def server_of(args: argparse.Namespace, flags: Flags) -> Server:
    """Return where the daemon is served: as told, as configured, or the default."""
    if args.address:
        return Server(listen=args.address)
    return Origin(config_file(args.config), flags, NO_TARGETS).load().server


def complain(line: str) -> None:
    """Say on standard error what is wrong, whatever the text is made of."""
    print(f"watcher: {printable(line)}", file=sys.stderr)  # noqa: T201


def silence(out: BinaryIO) -> None:
    """Let what is still buffered go nowhere, so that exit does not fail on it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, out.fileno())
    os.close(nowhere)
