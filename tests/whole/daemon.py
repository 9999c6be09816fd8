"""The installed program as a process, with everything it says."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

ACCESS_KEY, SECRET_KEY = (
    "QTWAOYTTINDUT2QVKYUC",
    "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc",
)
COMMAND = (sys.executable, "-m", "watcher")
PATIENCE = 60.0


def target(url, job_ids, **more):
    return {
        "endpoint": url,
        "project_id": "0123456789abcdef0123456789abcdef",
        "credentials": {
            "kind": "static",
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
        },
        "jobs": list(job_ids),
        **more,
    }


def surroundings(**more):
    """Return the environment for a daemon: what is meant for tests is no setting."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WATCHER_")}
    return kept | more


def watcher(*arguments, **environ):
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "watcher", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=surroundings(**environ),
    )


@dataclass
class Daemon:
    """A running daemon; `lines` is what it has logged."""

    process: anyio.abc.Process
    lines: list[dict] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)

    @property
    def url(self):
        return self.first("watcher.started")["listen"]

    def events(self, name):
        return [line for line in list(self.lines) if line["event"] == name]

    def first(self, name):
        return self.events(name)[0]

    async def until(self, condition, patience=PATIENCE):
        with anyio.fail_after(patience):
            while not condition():
                assert self.process.returncode is None, self.raw[-5:] + self.errors
                await anyio.sleep(0.05)

    async def started(self):
        await self.until(lambda: self.events("watcher.started"))
        return self

    async def get(self, path, **headers):
        return await anyio.to_thread.run_sync(get, self.url + path, headers)

    async def metrics(self):
        _, text = await self.get("/metrics")
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in parse(text)
            for sample in family.samples
        }

    async def end(self, number=signal.SIGTERM):
        """Send a signal; return the exit code and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        with anyio.fail_after(PATIENCE):
            code = await self.process.wait()
        return code, time.monotonic() - began

    @property
    def output(self):
        return "".join(self.raw) + b"".join(self.errors).decode()


async def until(condition, patience=PATIENCE):
    """Wait until something holds."""
    with anyio.fail_after(patience):
        while not condition():
            await anyio.sleep(0.05)


def get(url, headers=()):
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@asynccontextmanager
async def running(folder, values, *flags, environ=(), prefix=(), command=COMMAND):
    """Run the daemon with a configuration of its own, and end it whatever happens."""
    file = folder / "watcher.yaml"
    file.write_text(yaml.safe_dump({"server": {"listen": "127.0.0.1:0"}, **values}))
    command = [
        *prefix,
        *command,
        "run",
        "--config",
        str(file),
        *flags,
    ]
    process = await anyio.open_process(
        command,
        env=surroundings(**{"STATE_DIRECTORY": str(folder)} | dict(environ)),
        stderr=subprocess.PIPE,
    )
    daemon = Daemon(process)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_read_lines, daemon)
        tasks.start_soon(_read_errors, daemon)
        try:
            yield daemon
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.wait()


async def _read_lines(daemon):
    rest = b""
    async for chunk in daemon.process.stdout:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            daemon.raw.append(line.decode() + "\n")
            daemon.lines.append(json.loads(line))


async def _read_errors(daemon):
    async for chunk in daemon.process.stderr:
        daemon.errors.append(chunk)


@contextmanager
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]
