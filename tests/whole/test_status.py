"""`watcher status` as a process: beside a daemon, without one, on pipes and terminals."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import pytest

from tests.whole.daemon import (
    COMMAND,
    free_port,
    running,
    surroundings,
    target,
    until,
    watcher,
)
from tests.whole.test_wait import on_terminal
from watcher.simulator import SimulatorOptions, simulate

PATIENCE = 30.0


@asynccontextmanager
async def watched(folder, *, jobs=3, tasks=4, listen="127.0.0.1:0"):
    """Run a daemon on jobs that move only when they are moved; yield both."""
    async with simulate(SimulatorOptions(jobs=jobs, tasks=tasks, speed=0)) as sim:
        sim.clock.set(advance=1.0)
        values = {
            "targets": {"prod": target(sim.url, sim.job_ids)},
            "poll": {"interval": "200ms"},
            "server": {"listen": listen},
        }
        async with running(folder, values) as daemon:
            await daemon.started()
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == jobs)
            daemon.address = daemon.url.removeprefix("http://")
            yield sim, daemon


def fail(sim, job_id, count, message="dcmi {} failed"):
    for number, task in enumerate(sim.jobs.tasks(job_id)[:count]):
        sim.jobs.patch(job_id, task.id, "FAILED", message.format(number))


async def failed(sim, daemon, job_id, count):
    fail(sim, job_id, count)
    await daemon.until(
        lambda: (
            [e["to"] for e in daemon.events("task.transition")].count("FAILED") >= count
        )
    )


async def status(daemon, *arguments, **environ):
    command = [*COMMAND, "status", "--address", daemon.address, *arguments]
    with anyio.fail_after(PATIENCE):
        done = await anyio.run_process(
            command, check=False, env=surroundings(**environ)
        )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def test_jobs_servers_and_one_job(tmp_path):
    async with watched(tmp_path) as (sim, daemon):
        job_id = sim.job_ids[1]
        await failed(sim, daemon, job_id, 2)
        code, said, _ = await status(daemon)
        assert code == 0
        lines = said.splitlines()
        assert lines[0] == "3 active (1 with failures)"
        assert len(lines) == 4
        assert job_id in lines[1]
        assert "2/4" in lines[1]
        assert "2 failed" in lines[1]
        assert "2x dcmi 0 failed (" in lines[1]

        _, said, _ = await status(daemon, "--failed")
        assert [line for line in said.splitlines()[1:] if job_id not in line] == []

        server = sim.jobs.tasks(job_id)[1].server.name
        _, said, _ = await status(daemon, "--server", server)
        assert said.count(server) == len(sim.job_ids)
        assert f"FAILED     {server}  dcmi 1 failed" in said
        _, said, _ = await status(daemon, "--server", server, "--failed", "--json")
        (row,) = map(json.loads, said.splitlines())
        assert [task["server_name"] for task in row["tasks"]] == [server]

        code, said, _ = await status(daemon, f"software-query/{job_id[:8]}")
        words = [line.split()[0] for line in said.splitlines()[2:]]
        assert (code, words) == (0, ["FAILED"] * 2 + ["PROCESSING"] * 2)
        _, said, _ = await status(daemon, job_id, "--json", "--failed")
        assert [task["message"] for task in json.loads(said)["tasks"]] == [
            "dcmi 0 failed",
            "dcmi 1 failed",
        ]

        _, said, _ = await status(daemon, "--target", "test")
        assert said == "no job is watched\n"
        _, said, _ = await status(daemon, "--server", "none-such")
        assert said.splitlines()[1:] == ["no watched job has a server like none-such"]
        code, said, wrong = await status(daemon, "none-such")
        assert (code, said) == (1, "")
        assert wrong.startswith("watcher: no job none-such is watched; ")


async def test_by_the_configuration_and_page_by_page(tmp_path):
    with free_port() as port:
        pass
    listen = f"127.0.0.1:{port}"
    async with watched(tmp_path, jobs=130, tasks=1, listen=listen) as (sim, _):
        file = tmp_path / "watcher.yaml"
        done = await anyio.to_thread.run_sync(
            watcher, "status", "--json", "--config", file
        )
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert sorted(row["job_id"] for row in rows) == sorted(sim.job_ids)
        few = await anyio.to_thread.run_sync(
            watcher, "status", "--limit", "7", "--config", file
        )
        assert len(few.stdout.splitlines()) == 1 + 7 + 1
        assert "--limit 0 shows all" in few.stdout


def test_no_daemon():
    done = watcher("status", "--address", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("watcher: no daemon answers at 127.0.0.1:1 (")
    assert done.stderr.count("\n") == 1


@contextmanager
def answering(body, status=200):
    """Serve one answer to whatever is asked, as another program on the port would."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", len(body))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("more", [[], ["0319"], ["--json"], ["--watch"]])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[" * 100_000, "is no watcher (200)"),
        (b'{"a":' * 100_000, "is no watcher (200)"),
        (b"[]", "is no watcher (200)"),
        (b"{}", "answers is not understood (KeyError: 'jobs'); is the daemon of"),
        (b'{"jobs":7}', "answers is not understood (TypeError: 'int' object"),
        (b'{"jobs":["\\u001b[2J"],"next":7}', "answers is not understood ("),
    ],
)
def test_who_is_no_daemon_of_this_version(body, said, more):
    with answering(body) as address:
        done = watcher("status", "--address", address, *more)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(("watcher: who", f"watcher: what {address} answers"))
    assert said in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    "arguments", [["--limit", "-1"], ["--address", "nonsense"], ["a", "b"]]
)
def test_wrong_command_line(arguments):
    assert watcher("status", *arguments).returncode == 2


async def test_a_reader_that_leaves(tmp_path):
    async with watched(tmp_path, jobs=130, tasks=1) as (_, daemon):
        command = [*COMMAND, "status", "--address", daemon.address, "--watch"]
        shell = f"{' '.join(command)} | head -1"
        pipe = subprocess.PIPE
        with subprocess.Popen(
            ["/bin/bash", "-c", f"set -o pipefail; {shell}"],
            stdout=pipe,
            stderr=pipe,
            env=surroundings(),
            start_new_session=True,
        ) as process:
            run = anyio.to_thread.run_sync
            assert await run(process.wait, PATIENCE) == 0
            said, wrong = process.stdout.read(), process.stderr.read()
    assert said == b"130 active\n"
    assert wrong == b""


async def test_on_a_pipe_each_change_is_a_line_though_the_daemon_is_away(tmp_path):
    with free_port() as port:
        pass
    listen = f"127.0.0.1:{port}"
    command = [*COMMAND, "status", "--address", listen, "--watch", "--json"]
    async with watched(tmp_path, jobs=2, listen=listen) as (sim, daemon):
        process = await anyio.open_process(command, env=surroundings())
        told = []

        async def read():
            rest = b""
            async for chunk in process.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                told.extend(map(json.loads, lines))

        said = b""

        async def hear():
            nonlocal said
            async for chunk in process.stderr:
                said += chunk

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(hear)
            await until(lambda: len(told) == 2)
            await failed(sim, daemon, sim.job_ids[0], 1)
            await until(lambda: told[-1]["task_counts"].get("FAILED") == 1)
            assert told[-1]["job_id"] == sim.job_ids[0]
            await daemon.end()
            await until(lambda: b"trying again" in said)
            values = {
                "targets": {"prod": target(sim.url, sim.job_ids)},
                "server": {"listen": listen},
            }
            before = len(told)
            async with running(tmp_path, values) as successor:
                await successor.started()
                await until(lambda: len(told) >= before + 2)
                process.send_signal(signal.SIGINT)
                with anyio.fail_after(PATIENCE):
                    assert await process.wait() == 0
    assert said.count(b"\n") == 1


@pytest.mark.parametrize("columns", [40, 80])
async def test_on_a_terminal_it_is_redrawn_and_outlives_the_daemon(tmp_path, columns):
    async with watched(tmp_path, jobs=2) as (sim, daemon):
        command = ["status", "--address", daemon.address, "--watch"]
        async with on_terminal(columns, 24, *command) as (process, screen):
            await until(lambda: "2 active" in "".join(screen.frames[-1:]))
            await failed(sim, daemon, sim.job_ids[0], 3)
            await until(lambda: "3x dcmi" in "".join(screen.frames[-1:]))
            frame = screen.frames[-1].splitlines()
            assert max(map(len, frame)) < columns
            assert frame[1].startswith("● active    3/4")
            await daemon.end()
            await until(lambda: "! as it was" in "".join(screen.frames[-1:]))
            assert "3x dcmi" in screen.frames[-1]
            process.send_signal(signal.SIGINT)
            with anyio.fail_after(PATIENCE):
                assert await anyio.to_thread.run_sync(process.wait) == 1
    assert "3x dcmi" in "\n".join(screen.lines), "the last view stays"


async def test_interrupted_on_a_terminal(tmp_path):
    async with watched(tmp_path, jobs=1) as (_, daemon):
        command = ["status", "--address", daemon.address, "--watch"]
        async with on_terminal(80, 24, *command) as (process, screen):
            await until(lambda: "1 active" in "".join(screen.frames[-1:]))
            process.send_signal(signal.SIGINT)
            with anyio.fail_after(PATIENCE):
                assert await anyio.to_thread.run_sync(process.wait) == 0


async def test_a_terminal_that_knows_nothing(tmp_path):
    async with watched(tmp_path, jobs=25, tasks=1) as (_, daemon):
        command = f"{' '.join(COMMAND)} status --address {daemon.address}"
        done = await anyio.run_process(
            ["script", "-qec", command, os.devnull], env=surroundings(TERM="dumb")
        )
    said = done.stdout.decode()
    assert "\x1b" not in said
    assert len(said.splitlines()) == 1 + 20 + 1


LOADED = """
import sys
from watcher.commands import cli
code = cli.main(sys.argv[1:])
print("loaded", *sys.modules, file=sys.stderr)
sys.exit(code)
"""


async def test_the_daemon_loads_nothing_of_what_shows_on_terminals(tmp_path):
    """What runs is loaded whole: started, asked for jobs, and ended."""
    values = {"targets": {"prod": target("http://127.0.0.1:1", ["job-1"])}}
    command = (sys.executable, "-c", LOADED)
    async with running(tmp_path, values, command=command) as daemon:
        await daemon.started()
        await daemon.get("/api/v1/jobs")
        assert (await daemon.end())[0] == 0
        await until(lambda: b"loaded" in b"".join(daemon.errors))
    loaded = set(b"".join(daemon.errors).decode().split())
    assert "watcher.daemon.app" in loaded
    faces = {"terminal", "shown", "wait_faces", "waiting", "status_faces", "asking"}
    assert not loaded & {f"watcher.commands.{name}" for name in faces}
    assert "watcher.commands.daemon_http" not in loaded
