"""A real PostgreSQL for tests: one server a session, a database for each test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_numbers = count(1)


def binaries() -> Path:
    if not _FOLDERS:
        if os.environ.get("WATCHER_REQUIRE_REAL"):
            pytest.fail("PostgreSQL is not installed: apt-get install postgresql")
        pytest.skip("PostgreSQL is not installed")
    return _FOLDERS[-1]


def as_postgres(*words: str) -> tuple[str, ...]:
    if os.getuid() != 0:
        return words
    # The server refuses root.
    return ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words)


@dataclass
class Server:
    """A child of the tests' own, so that its end can be waited for."""

    folder: Path
    port: int
    process: subprocess.Popen | None = None

    def start(self, *options: str) -> None:
        words = (str(binaries() / "postgres"), "-D", str(self.folder / "data"))
        words += ("-p", str(self.port), "-k", str(self.folder))
        words += ("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                as_postgres(*words, *options), stdout=log, stderr=log, cwd="/"
            )
        ready = (
            str(binaries() / "pg_isready"),
            "-qh",
            "127.0.0.1",
            "-p",
            str(self.port),
        )
        for _ in range(300):
            if subprocess.run(ready, check=False).returncode == 0:
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)  # noqa: TID251 - another process
        pytest.fail((self.folder / "log").read_text())

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)

    def kill(self) -> None:
        """End it and its children as a machine that goes down does."""
        parent = str(self.process.pid)
        found = subprocess.run(
            ["pgrep", "-P", parent], capture_output=True, text=True, check=False
        )
        for pid in [self.process.pid, *map(int, found.stdout.split())]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(60)

    def sql(self, text: str, database: str = "postgres") -> str:
        words = (str(binaries() / "psql"), "-XAtqh", "127.0.0.1", "-p", str(self.port))
        words += ("-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", text, database)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def database(self) -> str:
        """Make an empty one; return its URL."""
        name = f"t{next(_numbers)}"
        self.sql(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"
        )
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"


def made(*options: str) -> Server:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    initdb = str(binaries() / "initdb")
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    words = ("-D", str(folder / "data"), "-A", "trust", "-N", "-U", "postgres")
    words = as_postgres(initdb, *words, "-E", "UTF8", "--locale=C")
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    server = Server(folder, port)
    server.start(*options)
    return server


@pytest.fixture(scope="session")
def postgres():
    server = made("-c", "fsync=off")
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)
