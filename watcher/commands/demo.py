"""The daemon and a simulated cloud in one process: nothing to set up, nothing to pay."""

from __future__ import annotations

import secrets
import socket
import sys
from collections.abc import Mapping
from tempfile import TemporaryDirectory

from watcher.daemon import app
from watcher.logs import LineWriter
from watcher.settings.schema import Origin
from watcher.simulator import SimulatorOptions, simulate

ACCESS_KEY = "DEMOACCESSKEY0000000"
SPEED = 5.0
DEFAULT_PORT = 10911


def main(flags: Mapping[str, str]) -> int:
    """Run the demo until it is interrupted; `flags` as for the daemon.

    Raises:
        SettingsError: A flag cannot be used.
    """
    secret_key = secrets.token_urlsafe(30)

    def origin(url: str, job_ids: tuple[str, ...], folder: str) -> Origin:
        values = _values(url, job_ids, secret_key)
        values["store"] = {"url": f"sqlite:///{folder}/watcher.db"}
        return Origin(None, flags, values, environ={})

    async def run(writer: LineWriter) -> int:
        options = SimulatorOptions(speed=SPEED, credentials={ACCESS_KEY: secret_key})
        with TemporaryDirectory(prefix="devserver-watcher-") as folder:
            async with simulate(options) as cloud:
                here = origin(cloud.url, cloud.job_ids, folder)
                return await app.run(here, here.load(), writer, _greet)

    return app.main(origin("http://127.0.0.1:1", (), "nowhere").load(), run)


def _values(
    endpoint: str, job_ids: tuple[str, ...], secret_key: str
) -> dict[str, object]:
    return {
        "targets": {
            "demo": {
                "endpoint": endpoint,
                "project_id": SimulatorOptions().project_id,
                "credentials": {
                    "kind": "static",
                    "access_key": ACCESS_KEY,
                    "secret_key": secret_key,
                },
                "jobs": job_ids,
            }
        },
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


def _greet(started: app.Started) -> None:
    print(  # noqa: T201
        "\n  Watching jobs on a simulated cloud.\n"
        f"  page     {started.url}/\n"
        f"  metrics  {started.url}/metrics\n"
        "  Ctrl-C ends it.\n",
        file=sys.stderr,
        flush=True,
    )
