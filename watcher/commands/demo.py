"""`watcher demo`: the daemon and a simulated cloud, with nothing to set up or pay."""

from __future__ import annotations

import argparse
import secrets
import socket
import sys
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from watcher.commands.command import Commands, Flags, add
from watcher.settings.loading import Origin

if TYPE_CHECKING:
    from watcher.daemon.app import Started
    from watcher.logs import LineWriter

ACCESS_KEY = "DEMOACCESSKEY0000000"
SPEED = 5.0
DEFAULT_PORT = 10911


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
                return await app.run(here, here.load(), writer, _greet)

    return app.main(origin("http://127.0.0.1:1", (), "nowhere").load(), run)


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


def _greet(started: Started) -> None:
    print(  # noqa: T201
        "\n  Watching jobs on a simulated cloud.\n"
        f"  page     {started.url}/\n"
        f"  metrics  {started.url}/metrics\n"
        "  Ctrl-C ends it.\n",
        file=sys.stderr,
        flush=True,
    )
