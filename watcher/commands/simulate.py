"""`watcher simulate`: the cloud API, simulated."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from watcher.commands.command import Commands, Exit, Flags, add, address
from watcher.core.errors import SettingsError

if TYPE_CHECKING:
    from watcher.simulator import Simulator


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add(
        commands, "simulate", _serve, "serve a simulated cloud API", config=False
    )
    parser.add_argument(
        "--listen",
        type=address,
        default="127.0.0.1:10912",
        metavar="HOST:PORT",
        help="where (127.0.0.1:10912)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed, the same jobs (0)"
    )
    parser.add_argument("--jobs", type=int, default=12, help="how many (12)")
    parser.add_argument("--tasks", type=int, default=16, help="of each job (16)")
    parser.add_argument("--speed", type=float, default=1.0, help="times real time (1)")
    parser.add_argument(
        "--endless", action="store_true", help="follow each job that ends by another"
    )
    parser.add_argument(
        "--faults", type=_fault_script, default=(), help="text or a JSON file"
    )
    parser.add_argument(
        "--key", type=_key, metavar="ACCESS:SECRET", help="check signatures"
    )


def _fault_script(text: str) -> object:
    from watcher import simulator

    try:
        return simulator.load_faults(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _key(text: str) -> dict[str, str]:
    access, colon, secret = text.partition(":")
    if not (access and colon and secret):
        raise argparse.ArgumentTypeError("must be ACCESS:SECRET")
    return {access: secret}


def _serve(args: argparse.Namespace, _: Flags) -> int:
    import anyio

    from watcher import simulator

    options = simulator.SimulatorOptions(
        seed=args.seed,
        jobs=args.jobs,
        tasks=args.tasks,
        speed=args.speed,
        endless=args.endless,
        faults=args.faults,
        credentials=args.key,
    )
    host, port = args.listen
    try:
        anyio.run(simulator.serve, options, host, port, _tell)
    except OSError as exc:
        raise SettingsError([f"--listen: {exc.strerror}"]) from None
    return Exit.OK


def _tell(started: Simulator) -> None:
    jobs = started.job_ids
    print(f"simulating {len(jobs)} jobs at {started.url}", file=sys.stderr)  # noqa: T201
    print("\n".join(jobs), flush=True)  # noqa: T201
