"""`watcher wait` as a process: exit codes, lines for a pipe, a view for a terminal."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import asynccontextmanager

import anyio
import pytest
import yaml

from tests.whole.daemon import (
    ACCESS_KEY,
    COMMAND,
    SECRET_KEY,
    surroundings,
    target,
    until,
    watcher,
)
from watcher.simulator import SimulatorOptions, parse_faults, simulate

PATIENCE = 30.0
NOWHERE = "http://127.0.0.1:1"
QUICK = {"interval": "200ms"}


def ended(sim, job_id):
    """Let a job end, its failed tasks failed and the others well."""
    sim.jobs.finish(job_id)
    sim.clock.set(advance=1.0)


def config(folder, url, **more):
    """Write a configuration without jobs, and return the arguments that name it."""
    file = folder / "watcher.yaml"
    values = {"targets": {"prod": target(url, [], **more)}, "poll": QUICK}
    file.write_text(yaml.safe_dump(values))
    return ["--config", str(file)]


async def wait(*arguments, **environ):
    """Run the command to its end; return its code, the events and what it says."""
    with anyio.fail_after(PATIENCE):
        done = await anyio.run_process(
            [*COMMAND, "wait", *arguments], check=False, env=surroundings(**environ)
        )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    said = done.stderr.decode()
    assert "Traceback" not in said
    assert SECRET_KEY not in said
    return done.returncode, events, said


@asynccontextmanager
async def waiting(*arguments, **environ):
    """Run the command in the background, with pipes."""
    process = await anyio.open_process(
        [*COMMAND, "wait", *arguments], env=surroundings(**environ)
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        with anyio.CancelScope(shield=True):
            await process.aclose()


async def test_each_failed_server_is_named_with_its_message(tmp_path):
    async with simulate(SimulatorOptions(jobs=2, tasks=4, speed=0)) as sim:
        one, other = sim.job_ids
        tasks = sim.jobs.tasks(one)
        for task in tasks[:2]:
            sim.jobs.patch(one, task.id, "FAILED", f"{task.id} lost its power")
        ended(sim, one)
        ended(sim, other)
        code, events, said = await wait(
            *config(tmp_path, sim.url), f"{one}\r", f"{other}\r"
        )
    assert code == 1
    assert "finished after" in said
    for task in tasks[:2]:
        line = next(each for each in said.splitlines() if task.id in each)
        assert task.server.name in line
        assert "lost its power" in line
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    ends = {e["job_id"]: e["phase"] for e in events if e["event"] == "job.finished"}
    assert ends == {one: "failed", other: "succeeded"}
    assert list(events[0])[:6] == [
        "timestamp",
        "level",
        "event",
        "event_id",
        "seq",
        "target",
    ]


async def test_through_bad_answers_and_from_before_the_job_is_there(tmp_path):
    faults = "502_html:nth=2;429:nth=4,retry_after=1"
    late = SimulatorOptions(
        jobs=2,
        tasks=2,
        speed=30,
        failing=0,
        arrive_over=240,
        faults=parse_faults(faults),
    )
    async with simulate(late) as sim:
        job_id = sim.job_ids[-1]
        code, events, _ = await wait(*config(tmp_path, sim.url), job_id)
        statuses = [request.status for request in sim.requests]
    assert code == 0
    assert {502, 429} <= set(statuses)
    assert {400, 404} & set(statuses), "it was not there at first"
    assert [e["event"] for e in events].count("job.finished") == 1


async def test_any_of_them(tmp_path):
    async with simulate(SimulatorOptions(jobs=2, tasks=1, speed=0)) as sim:
        ended(sim, sim.job_ids[1])
        arguments = [*config(tmp_path, sim.url), "--any", *sim.job_ids]
        assert (await wait(*arguments))[0] == 0


async def test_timed_out(tmp_path):
    async with simulate(SimulatorOptions(jobs=1, speed=0)) as sim:
        arguments = [*config(tmp_path, sim.url), "--timeout", "2s", *sim.job_ids]
        code, events, said = await wait(*arguments)
    assert code == 3
    assert [event["event"] for event in events] == ["job.first_seen"]
    assert "timed out after 2s: 0 of 1 job finished" in said


async def test_never_an_answer(tmp_path):
    code, events, said = await wait(*config(tmp_path, NOWHERE), "job-1", "--timeout=1s")
    assert (code, events) == (69, [])
    assert "unreachable: cannot connect" in said


async def test_a_refused_key(tmp_path):
    options = SimulatorOptions(jobs=4, credentials={ACCESS_KEY: "x" * 40})
    async with simulate(options) as sim:
        code, events, said = await wait(*config(tmp_path, sim.url), *sim.job_ids)
        refused = [each.status for each in sim.requests]
    assert (code, events) == (77, [])
    assert refused == [401] * 3
    assert "rejected: " in said


async def test_no_key(tmp_path):
    arguments = config(tmp_path, NOWHERE, credentials={"kind": "profile"})
    code, _, said = await wait(*arguments, "job-1", HOME=str(tmp_path))
    assert code == 77
    assert "credentials are refused" in said


def test_wrong_configuration(tmp_path):
    done = watcher("wait", "job-1", "--config", tmp_path / "none.yaml")
    assert (done.returncode, done.stdout) == (78, "")
    arguments = config(tmp_path, NOWHERE, ca_file=str(tmp_path / "none.pem"))
    done = watcher("wait", *arguments, "job-1")
    assert done.returncode == 78
    assert done.stderr.startswith("watcher: targets.prod.ca_file: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "JOB_ID"),
        (["a/b"], "'a/b' is not a job id"),
        (["job-1", "--timeout", "soon"], "'soon' is not a duration"),
        (["job-1", "--any", "--all"], "not allowed with"),
        (["job-1", "--target", "prot"], "did you mean prod?"),
        (["job-1"], "choose one with --target (prod, test)"),
    ],
)
def test_wrong_command_line(tmp_path, arguments, said):
    file = tmp_path / "watcher.yaml"
    both = {"prod": target(NOWHERE, []), "test": target(NOWHERE, [])}
    file.write_text(yaml.safe_dump({"targets": both}))
    done = watcher("wait", "--config", file, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


async def test_interrupted_it_tells_how_far_it_came(tmp_path):
    async with simulate(SimulatorOptions(jobs=2, tasks=1, speed=0)) as sim:
        ended(sim, sim.job_ids[0])
        arguments = [*config(tmp_path, sim.url), *sim.job_ids]
        async with waiting(*arguments) as process:
            told = b""
            with anyio.fail_after(PATIENCE):
                while b"job.finished" not in told:
                    told += await process.stdout.receive()
                process.send_signal(signal.SIGINT)
                said = b"".join([chunk async for chunk in process.stderr]).decode()
                assert await process.wait() == 130
    assert "interrupted after" in said
    assert "1 of 2 jobs finished" in said


async def test_a_reader_that_leaves(tmp_path):
    async with simulate(SimulatorOptions(jobs=1, tasks=1, speed=0)) as sim:
        arguments = [*config(tmp_path, sim.url), *sim.job_ids]
        command = [*COMMAND, "wait", *arguments]
        pipe, run = subprocess.PIPE, anyio.to_thread.run_sync
        with subprocess.Popen(
            command, stdout=pipe, stderr=pipe, env=surroundings()
        ) as process:
            await run(process.stdout.readline)
            process.stdout.close()
            ended(sim, sim.job_ids[0])
            assert await run(process.wait, PATIENCE) == 141


BROKEN = """
import sys
from watcher.commands import cli, waiting
async def watch(*_): raise RuntimeError("a fault of our own")
waiting.watch = watch
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_fault_of_our_own_is_no_failed_job(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, "wait", *config(tmp_path, NOWHERE), "job-1"],
        capture_output=True,
        text=True,
        check=False,
        env=surroundings(),
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (70, "")
    assert "watcher.crashed" in done.stderr


def test_the_daemon_loads_nothing_of_it():
    script = (
        "import sys, watcher.daemon.app; "
        "print(*[m for m in sys.modules if m.startswith('watcher.commands')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"


class Screen:
    """What a terminal shows: enough of one for what is written here."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.lines, self.row, self.column = [""], 0, 0
        self.frames = []

    def feed(self, text):
        for step in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            self._take(step)
        self.frames.append("\n".join(self.lines))

    def _take(self, step):
        match step[0], step[-1]:
            case "\r", _:
                self.column = 0
            case "\n", _:
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            case "\x1b", "A":
                self.row -= int(step[2:-1])
                assert self.row >= max(0, len(self.lines) - self.rows)
            case "\x1b", "K":
                self.lines[self.row] = self.lines[self.row][: self.column]
            case "\x1b", "J":
                self.lines[self.row + 1 :] = []
                self.lines[self.row] = self.lines[self.row][: self.column]
            case "\x1b", _:
                raise AssertionError(step)
            case _:
                line = self.lines[self.row].ljust(self.column)
                after = self.column + len(step)
                self.lines[self.row] = line[: self.column] + step + line[after:]
                self.column = after


@asynccontextmanager
async def on_terminal(columns, rows, *arguments):
    """Run the command on a terminal of that size; yield the process and its screen."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environ = surroundings(NO_COLOR="1", TERM="xterm-256color")
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environ
    )
    os.close(theirs)
    screen = Screen(columns, rows)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_show, ours, screen)
            yield process, screen
    finally:
        process.kill()
        process.wait()
        os.close(ours)


async def _show(descriptor, screen):
    while True:
        await anyio.wait_readable(descriptor)
        try:
            data = os.read(descriptor, 65536)
        except OSError:  # the other side is closed
            return
        screen.feed(data.decode())


@pytest.mark.parametrize("columns", [40, 120])
async def test_on_a_terminal(tmp_path, columns):
    async with simulate(SimulatorOptions(jobs=2, tasks=4, speed=0)) as sim:
        one, other = sim.job_ids
        tasks = sim.jobs.tasks(one)
        sim.clock.set(advance=1.0)
        command = ["wait", *config(tmp_path, sim.url), one, other]
        async with on_terminal(columns, 24, *command) as (process, screen):
            await until(lambda: "0/8 tasks" in "".join(screen.frames[-1:]))
            for task in tasks[:3]:
                sim.jobs.patch(one, task.id, "FAILED", f"dcmi {task.id[:4]} failed")
            await until(lambda: "3x dcmi" in "".join(screen.frames[-1:]))
            live = screen.frames[-1].splitlines()
            assert max(map(len, live)) < columns
            assert live[1].startswith("● active    3/4")
            assert "3 failed" in live[1]
            assert live[2].startswith("    3x dcmi ")
            ended(sim, one)
            ended(sim, other)
            with anyio.fail_after(PATIENCE):
                assert await anyio.to_thread.run_sync(process.wait) == 1
    final = "\n".join(screen.lines)
    assert "waiting for" not in final
    assert "finished after" in final
    for task in tasks[:3]:
        assert f"{task.server.name}  dcmi {task.id[:4]} failed" in final


async def test_what_a_view_shows_is_not_logged_across_it(tmp_path):
    command = ["wait", *config(tmp_path, NOWHERE), "job-1", "--timeout", "2s"]
    async with on_terminal(100, 24, *command) as (process, screen):
        with anyio.fail_after(PATIENCE):
            assert await anyio.to_thread.run_sync(process.wait) == 69
    shown = "\n".join([*screen.frames, *screen.lines])
    assert "unreachable: cannot connect" in shown
    assert "poll.failing" not in shown
