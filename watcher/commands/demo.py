"""`watcher demo`: the daemon and a simulated cloud, with nothing to set up or pay."""

from __future__ import annotations

import argparse
import secrets
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from watcher.commands.command import Commands, Flags, add
from watcher.core.errors import WatcherError
from watcher.core.model import JobKey, JobRecord
from watcher.ports import Board
from watcher.settings.loading import Origin

if TYPE_CHECKING:
    from watcher.daemon.app import Started
    from watcher.logs import LineWriter

ACCESS_KEY = "DEMOACCESSKEY0000000"
SPEED = 5.0
DEFAULT_PORT = 10911
UNTIL_TOLD = 1.0
"""Seconds after which the log, too, has told of what is on the board."""


def add_to(commands: Commands) -> None:
    """Add the command."""
    what = "run against a built-in simulator"
    add(commands, "demo", _demo, what, settable=True, config=False)


def _demo(_: argparse.Namespace, flags: Flags) -> int:
    from watcher.daemon import app
    from watcher.simulator import SimulatorOptions, simulate

    secret_key = secrets.token_urlsafe(30)
    key = {"kind": "static", "access_key": ACCESS_KEY, "secret_key": secret_key}
    options = SimulatorOptions(
        speed=SPEED, credentials={ACCESS_KEY: secret_key}, endless=True
    )

    def origin(url: str, job_ids: tuple[str, ...], folder: str) -> Origin:
        target = {
            "endpoint": url,
            "project_id": options.project_id,
            "credentials": key,
            "jobs": job_ids,
            "discover": {},  # those that follow the first
        }
        store = {"url": f"sqlite:///{folder}/watcher.db"}
        values = {**_values(), "targets": {"demo": target}, "store": store}
        return Origin(None, flags, values, environ={})

    async def run(writer: LineWriter) -> int:
        with TemporaryDirectory(prefix="devserver-watcher-") as folder:
            async with simulate(options) as cloud:
                here = origin(cloud.url, cloud.job_ids, folder)
                first = [JobKey("demo", job_id) for job_id in cloud.job_ids]
                return await _run_beside(
                    partial(app.run, here, here.load(), writer), first
                )

    return app.main(origin("http://127.0.0.1:1", (), "nowhere").load(), run)


async def _run_beside(
    run: Callable[[Callable[[Started], None]], Awaitable[int]], first: Sequence[JobKey]
) -> int:
    """Run the daemon, and sum up beside it; what it raises comes as it is."""
    import anyio

    failed: WatcherError | None = None
    code = 0
    async with anyio.create_task_group() as tasks:

        def started(daemon: Started) -> None:
            _greet(daemon.url)
            tasks.start_soon(_sum_up, daemon.board, first)

        try:
            code = await run(started)
        except WatcherError as exc:
            failed = exc
        tasks.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return code


def _values() -> dict[str, object]:
    return {
        "poll": {"interval": "2s", "mode": "detail"},
        "server": {"listen": f"127.0.0.1:{_port()}"},
    }


def _port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            return 0
    return DEFAULT_PORT


def _greet(url: str) -> None:
    _say(
        "",
        "  Watching jobs on a simulated cloud.",
        f"  page     {url}/",
        f"  metrics  {url}/metrics",
        f"  status   watcher status --address {url.partition('//')[2]}",
        "  Ctrl-C ends it.",
        "",
    )


def _say(*lines: str) -> None:
    print("\n".join(lines), file=sys.stderr, flush=True)  # noqa: T201


async def _sum_up(board: Board, first: Collection[JobKey]) -> None:
    """Say how the jobs ended, each time that all of them have."""
    import anyio

    from watcher.commands.terminal import write_lines
    from watcher.commands.wait_faces import ends
    from watcher.daemon.app import wall

    async for records in rounds(board, first):
        await anyio.sleep(UNTIL_TOLD)
        counts = Counter(record.phase.value for record in records)
        ended = ", ".join(f"{count} {phase}" for phase, count in counts.items())
        _say("", f"  All {len(records)} jobs are done: {ended}.", "")
        write_lines(sys.stderr, ends(records, wall()), clip=False)
        _say("", "  Others have taken their places. Ctrl-C ends it.", "")


async def rounds(
    board: Board, first: Collection[JobKey]
) -> AsyncIterator[Sequence[JobRecord]]:
    """Yield the first jobs once all have ended, then those that came meanwhile, likewise."""
    jobs, told = set(first), set[JobKey]()
    while True:
        version = board.version
        known = board.records
        if jobs and all(key in known and known[key].phase.finished for key in jobs):
            yield [known[key] for key in jobs]
            told |= jobs
            jobs = set()
        jobs = jobs or set(board.records) - told
        await board.changed(version)
