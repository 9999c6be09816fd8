"""Signals from the first moment of the process to its last."""

import os
import signal
import socket
import subprocess
import sys
import time

import anyio
import pytest
import yaml

from tests.whole.daemon import free_port, get, running, surroundings, target
from watcher.simulator import SimulatorOptions, simulate

OPTIONS = SimulatorOptions(jobs=2, tasks=2, speed=0)
POLL = {"interval": "200ms", "mode": "detail"}


def values(url, job_ids, **more):
    prod = target(url, job_ids, credentials={"kind": "none"})
    return {"targets": {"prod": prod}, "poll": POLL, **more}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("after", [0.0, 0.1, 0.25, 0.5])
def test_a_signal_during_the_start_is_not_lost(tmp_path, number, after):
    with free_port() as port:
        dead = f"http://127.0.0.1:{port}"
    file = tmp_path / "watcher.yaml"
    file.write_text(
        yaml.safe_dump({"server": {"listen": "127.0.0.1:0"}, **values(dead, ["a"])})
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "watcher", "run", "--config", str(file)],
        env=surroundings(STATE_DIRECTORY=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        while not _blocks(process.pid, signal.SIGTERM):  # the interpreter begins
            time.sleep(0.001)
        time.sleep(after)
        process.send_signal(number)
        if number == signal.SIGHUP:
            for line in process.stdout:
                if b'"config.reloaded"' in line:
                    break
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.parametrize(("command", "blocks"), [("run", True), ("check", False)])
def test_they_wait_before_anything_slow_is_imported(command, blocks):
    script = (
        "import signal, sys, types\n"
        "import watcher.commands\n"
        "seen = lambda: print(signal.SIGTERM in signal.pthread_sigmask(0, []))\n"
        "cli = types.SimpleNamespace(main=seen)\n"
        "sys.modules['watcher.commands.cli'] = watcher.commands.cli = cli\n"
        "from watcher.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{blocks}\n"


async def test_signals_during_the_end_change_nothing(tmp_path):
    async with simulate(OPTIONS) as sim, _hanging() as hook:
        sinks = [{"kind": "webhook", "name": "hook", "url": hook, "timeout": "60s"}]
        async with running(
            tmp_path, values(sim.url, sim.job_ids, sinks=sinks)
        ) as daemon:
            await daemon.started()
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 2)
            daemon.process.send_signal(signal.SIGTERM)
            await daemon.until(lambda: daemon.events("watcher.stopping"))
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                daemon.process.send_signal(number)
                await anyio.sleep(0.1)
            with anyio.fail_after(10):
                code = await daemon.process.wait()
    assert (code, daemon.errors) == (0, [])


async def test_the_end_comes_in_time_though_everything_hangs(tmp_path):
    """A reader that takes nothing, a webhook and a stream that do not end."""
    out, into = os.pipe()
    async with simulate(OPTIONS) as sim, _hanging() as hook:
        sinks = [{"kind": "webhook", "name": "hook", "url": hook, "timeout": "60s"}]
        with free_port() as port:
            listen = f"127.0.0.1:{port}"
        file = tmp_path / "watcher.yaml"
        given = values(sim.url, sim.job_ids, sinks=sinks, server={"listen": listen})
        file.write_text(yaml.safe_dump(given))
        process = subprocess.Popen(
            [sys.executable, "-m", "watcher", "run", "--config", str(file)],
            env=surroundings(STATE_DIRECTORY=str(tmp_path)),
            stdout=into,
        )
        os.close(into)
        try:
            await _answers(f"http://{listen}/readyz")
            stream = socket.create_connection(("127.0.0.1", port))
            stream.sendall(
                b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n"
                b"Accept: text/event-stream\r\n\r\n"
            )
            for turn in range(40):  # until the pipe is full
                word = "FAILED" if turn % 2 else "PROCESSING"
                for job_id in sim.job_ids:
                    sim.jobs.patch(job_id, "*", word, "a message that takes room " * 60)
                await anyio.sleep(0.21)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = await anyio.to_thread.run_sync(lambda: process.wait(10))
            took = time.monotonic() - began
        finally:
            process.kill()
            process.wait()
            stream.close()
            os.close(out)
    assert code == 0
    assert took < 5.2


async def test_a_store_that_is_locked_by_another_process(tmp_path):
    locker = (
        "import sqlite3, sys, time\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN IMMEDIATE')\nprint('locked', flush=True)\ntime.sleep(60)"
    )
    async with (
        simulate(OPTIONS) as sim,
        running(tmp_path, values(sim.url, sim.job_ids)) as daemon,
    ):
        await daemon.started()
        await daemon.until(lambda: len(daemon.events("job.first_seen")) == 2)
        other = subprocess.Popen(
            [sys.executable, "-c", locker, str(tmp_path / "watcher.db")],
            stdout=subprocess.PIPE,
        )
        try:
            assert await anyio.to_thread.run_sync(other.stdout.readline) == b"locked\n"
            for job_id in sim.job_ids:
                sim.jobs.patch(job_id, "*", "FAILED")
            await anyio.sleep(1)
            code, took = await daemon.end()
        finally:
            other.kill()
            other.wait()
            other.stdout.close()
    assert code == 0
    assert took < 5.2


async def test_a_pipe_as_job_file_holds_up_neither_start_nor_end(tmp_path):
    folder = tmp_path / "jobs.d"
    folder.mkdir()
    os.mkfifo(folder / "a.txt")
    async with simulate(OPTIONS) as sim:
        given = values(sim.url, sim.job_ids)
        given["targets"]["prod"]["job_files"] = [f"{folder}/*.txt"]
        async with running(tmp_path, given) as daemon:
            await daemon.started()
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 2)
            code, took = await daemon.end()
    assert (code, daemon.errors) == (0, [])
    assert took < 5


async def test_exit_when_done_and_a_signal_before_it_is(tmp_path):
    async with simulate(OPTIONS) as sim:
        given = values(sim.url, sim.job_ids, finished={"exit_when_done": True})
        async with running(tmp_path, given) as daemon:
            await daemon.started()
            sim.jobs.patch(sim.job_ids[0], "*", "FAILED")
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 2)
            code, _ = await daemon.end()
    assert code == 0


def _blocks(pid, number):
    """Whether a process keeps a signal for later, or has a handler for it."""
    with open(f"/proc/{pid}/status") as file:
        masks = dict(line.split(":", 1) for line in file)
    bits = int(masks["SigBlk"], 16) | int(masks["SigCgt"], 16)
    return bool(bits >> (number - 1) & 1)


async def _answers(url):
    with anyio.fail_after(30):
        while True:
            try:
                if (await anyio.to_thread.run_sync(get, url))[0] == 200:
                    return
            except OSError:
                pass
            await anyio.sleep(0.05)


class _hanging:  # noqa: N801
    """A server that takes connections and never answers."""

    async def __aenter__(self):
        self._door = socket.create_server(("127.0.0.1", 0), backlog=100)
        return f"http://127.0.0.1:{self._door.getsockname()[1]}/hook"

    async def __aexit__(self, *_):
        self._door.close()
