"""The command line: which command it names, and the exit code that comes of it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence

from watcher import __version__
from watcher.commands import (
    check,
    completion,
    demo,
    doctor,
    events,
    healthcheck,
    run,
    simulate,
    status,
    store,
    test_sink,
    wait,
)
from watcher.commands.command import Exit, complain, silence
from watcher.core.errors import HostError, SettingsError, StoreError
from watcher.settings.schema import Settings
from watcher.settings.showing import described, nearest

# Each imports what only it needs when it is run, so that all of them start quickly.
COMMANDS = (
    *(run, status, wait, events, doctor, check),
    *(test_sink, store, healthcheck, demo, simulate, completion),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if not words:
        parser.print_help(sys.stderr)
        return Exit.USAGE
    _check_command(parser, words[0])
    args, rest = parser.parse_known_args(words)
    flags = _flags(args.parser, rest, settable=args.settable)
    try:
        code: int = args.command(args, flags)
        print(end="", flush=True)  # noqa: T201 - what is left, while a pipe's end is seen
    except BrokenPipeError:  # the reader has left
        silence(sys.stdout.buffer)
        code = Exit.OK
    except SettingsError as exc:
        for finding in exc.findings:
            complain(finding)
        return Exit.SETTINGS
    except HostError as exc:
        complain(str(exc))
        return Exit.NOT_NOW
    except StoreError as exc:
        complain(f"store.url: {exc}")
        return Exit.SETTINGS
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="watcher",
        description="Watches jobs on ModelArts DevServers until they finish.",
        epilog="watcher COMMAND --help explains one of them; demo needs no account.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=18),
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"watcher {__version__}",
        help="show which version this is",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def subcommands() -> Mapping[str, argparse.ArgumentParser]:
    """Return the parser of each command, by what is typed."""
    (choice,) = (
        each
        for each in _parser()._actions  # noqa: SLF001 - argparse shows them nowhere else
        if isinstance(each, argparse._SubParsersAction)  # noqa: SLF001
    )
    return dict(choice.choices)


def _check_command(parser: argparse.ArgumentParser, word: str) -> None:
    known = [each.__name__.rpartition(".")[2].replace("_", "-") for each in COMMANDS]
    if word not in known and not word.startswith("-"):
        parser.error(f"there is no command {word}{_meant(word, known)}")


def _meant(word: str, known: Iterable[str]) -> str:
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else ""


def _flags(
    parser: argparse.ArgumentParser, rest: Sequence[str], *, settable: bool
) -> dict[str, str]:
    """Read `--path.of.setting value` and `--path.of.setting=value`."""
    flags: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        path, equals, text = word.removeprefix("--").partition("=")
        known = path.partition(".")[0] in Settings.model_fields
        if not (settable and word.startswith("--") and known):
            options = re.findall(r"--[a-z-]+", parser.format_usage())
            options += [f"--{each.path}" for each in described()] if settable else []
            meant = _meant(word.partition("=")[0], options)
            parser.error(f"unrecognized argument: {word}{meant}")
        value = text if equals else next(words, None)
        if value is None:
            parser.error(f"argument --{path}: expected a value")
        flags[path] = value
    return flags
