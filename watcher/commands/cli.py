"""Commands and exit codes."""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import NoReturn

import anyio

from watcher import __version__
from watcher.core.errors import SettingsError, StoreError
from watcher.settings.schema import (
    Origin,
    Server,
    Settings,
    as_yaml,
    config_file,
    listen_address,
    paths,
)
from watcher.web.web_config import WebConfig


class Exit(IntEnum):
    """What an exit code says; from 69 on in the meaning of sysexits.h."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMED_OUT = 3
    UNAVAILABLE = 69
    INTERNAL = 70
    REFUSED = 77
    SETTINGS = 78
    INTERRUPTED = 130


Flags = Mapping[str, str]
Command = Callable[[argparse.Namespace, Flags], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    flags = _flags(args.parser, rest, settable=args.settable)
    try:
        code: int = args.command(args, flags)
    except SettingsError as exc:
        for finding in exc.findings:
            _complain(finding)
        return Exit.SETTINGS
    except StoreError as exc:
        _complain(f"store.url: {exc}")
        return Exit.SETTINGS
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code


def _complain(line: str) -> None:
    print(f"watcher: {line}", file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="watcher",
        description="Watches jobs on ModelArts DevServers until they finish.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"watcher {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = _add(commands, "run", _run, "run the daemon", settable=True)
    check = _add(commands, "check", _check, "check the configuration", settable=True)
    check.add_argument(
        "--diff", action="store_true", help="what a reload of the daemon would change"
    )
    _add(commands, "demo", _demo, "run against a built-in simulator", settable=True)

    simulate = _add(commands, "simulate", _simulate, "serve a simulated cloud API")
    simulate.add_argument(
        "--listen", type=_address, default="127.0.0.1:10912", metavar="HOST:PORT"
    )
    simulate.add_argument("--seed", type=int, default=0)
    simulate.add_argument("--jobs", type=int, default=12)
    simulate.add_argument("--tasks", type=int, default=16, help="of each job")
    simulate.add_argument("--speed", type=float, default=1.0, help="times real time")
    simulate.add_argument(
        "--faults", type=_fault_script, default=(), help="text or a JSON file"
    )
    simulate.add_argument(
        "--key", type=_key, metavar="ACCESS:SECRET", help="check signatures"
    )

    doctor = _add(commands, "doctor", _doctor, "find out what is wrong", settable=True)
    doctor.add_argument("--json", action="store_true", help="one JSON object")

    health = _add(
        commands, "healthcheck", _healthcheck, "ask the local daemon how it is"
    )
    health.add_argument("--address", type=_address_text, metavar="HOST:PORT")
    events = _add(commands, "events", _events, "read the journal")
    events.add_argument("--after", type=int, default=0, metavar="SEQ")
    events.add_argument("--job", metavar="ID")
    events.add_argument("--follow", action="store_true", help="wait for more")
    for command in (run, check, health, events, doctor):
        command.add_argument("--config", type=Path, metavar="FILE")
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Command,
    what: str,
    *,
    settable: bool = False,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=_settings_help() if settable else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=command, parser=parser, settable=settable)
    return parser


def _settings_help() -> str:
    lines = [f"  --{path} (default: {text})" for path, text in paths()]
    return "\n".join(["every setting is a flag too:", *lines])


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
            parser.error(f"unrecognized argument: {word}")
        value = text if equals else next(words, None)
        if value is None:
            parser.error(f"argument --{path}: expected a value")
        flags[path] = value
    return flags


def _origin(args: argparse.Namespace, flags: Flags) -> Origin:
    return Origin(config_file(args.config), flags)


def _leave(*_: object) -> NoReturn:
    sys.exit(Exit.OK)


def _run(args: argparse.Namespace, flags: Flags) -> int:
    # Process 1 of a container gets no signal that it has not asked for, and it takes a
    # moment until the daemon heeds them itself.
    signal.signal(signal.SIGTERM, _leave)
    from watcher.daemon import app  # noqa: PLC0415 - `check` and `healthcheck` do without

    origin = _origin(args, flags)
    settings = origin.load()
    return app.main(settings, partial(app.run, origin, settings))


def _check(args: argparse.Namespace, flags: Flags) -> int:
    settings = _origin(args, flags).load()
    if settings.server.web_config_file:
        WebConfig(settings.server.web_config_file)
    text = as_yaml(settings)
    if args.diff:
        from watcher.commands import daemon_http  # noqa: PLC0415 - for it alone

        text = _difference(daemon_http.settings_in_force(settings.server), text)
    sys.stdout.write(text)
    return Exit.OK


def _difference(before: str, after: str) -> str:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, "in force", "after a reload", n=2))


def _demo(_: argparse.Namespace, flags: Flags) -> int:
    from watcher.commands import demo  # noqa: PLC0415 - the simulator is for it alone

    return demo.main(flags)


def _simulate(args: argparse.Namespace, _: Flags) -> int:
    from watcher import simulator  # noqa: PLC0415 - for it alone

    options = simulator.SimulatorOptions(
        seed=args.seed,
        jobs=args.jobs,
        tasks=args.tasks,
        speed=args.speed,
        faults=args.faults,
        credentials=args.key,
    )

    def tell(started: simulator.Simulator) -> None:
        print(f"simulating {args.jobs} jobs at {started.url}", file=sys.stderr)  # noqa: T201
        print("\n".join(started.job_ids), flush=True)  # noqa: T201

    host, port = args.listen
    try:
        anyio.run(simulator.serve, options, host, port, tell)
    except OSError as exc:
        raise SettingsError([f"--listen: {exc.strerror}"]) from None
    return Exit.OK


def _fault_script(text: str) -> object:
    from watcher import simulator  # noqa: PLC0415 - for `simulate` alone

    try:
        return simulator.load_faults(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _key(text: str) -> dict[str, str]:
    access, colon, secret = text.partition(":")
    if not (access and colon and secret):
        raise argparse.ArgumentTypeError("must be ACCESS:SECRET")
    return {access: secret}


def _address_text(text: str) -> str:
    _address(text)
    return text


def _address(text: str) -> tuple[str, int]:
    try:
        return listen_address(text)
    except SettingsError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _doctor(args: argparse.Namespace, flags: Flags) -> int:
    from watcher import doctor  # noqa: PLC0415 - for it alone
    from watcher.daemon import app  # noqa: PLC0415 - for it alone

    return doctor.main(
        _origin(args, flags), as_json=args.json, out=sys.stdout, now=app.wall
    )


def _healthcheck(args: argparse.Namespace, flags: Flags) -> int:
    from watcher.commands import daemon_http  # noqa: PLC0415 - for it alone

    if args.address:
        server = Server(listen=args.address)
    else:
        server = _origin(args, flags).load().server
    problem = daemon_http.check(server)
    if problem is None:
        return Exit.OK
    _complain(problem)
    return Exit.FAILED


def _events(args: argparse.Namespace, flags: Flags) -> int:
    from watcher import store  # noqa: PLC0415 - others do without
    from watcher.commands import events  # noqa: PLC0415 - for it alone

    folder = Path(os.environ.get("STATE_DIRECTORY", "."))
    path = store.database_path(_origin(args, flags).load().store.url, folder)
    if path is None:
        raise SettingsError(["store.url: memory: keeps no journal that could be read"])
    return events.main(path, args.after, args.job, args.follow, sys.stdout.buffer)
