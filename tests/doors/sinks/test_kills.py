"""kill -9 at every step from commit to delivery: announced is what was committed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LIFE = """
import os, pathlib, sys, time
import anyio
from tests.doors.sinks.conftest import step
from watcher.sinks.courier import Courier, RetryPolicy
from watcher.logs import configure_logging
from watcher.sinks.log import LogSink
from watcher.store import SqliteStore

path, point, call = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
calls = 0

def fault(name):
    global calls
    calls += name == point
    if name == point and calls == call:
        os.kill(os.getpid(), 9)

async def main():
    writer = configure_logging("info", "json", sys.stdout, time.time)
    store = SqliteStore(path, now=time.time, sinks=["log"], fault_point=fault)
    await store.open()
    courier = Courier(
        LogSink(writer.send), store, store, jitter=lambda: 0.5, policy=RetryPolicy(batch=3),
        fault_point=fault,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(courier.run)
        for n in range(4):
            await store.commit([step("a", f"a{n}", f"b{n}")])
            while await store.backlog("log"):  # each is delivered before the next
                await anyio.sleep(0.001)
        courier.stop()
    await store.close()
    writer.close()

anyio.run(main)
"""


def live(path: Path, point: str, call: int) -> tuple[int, list[dict]]:
    """Run one life; return how it ended and the lines it wrote."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", LIFE, str(path), point, str(call)]
    done = subprocess.run(
        command,
        cwd=root,
        stdout=subprocess.PIPE,
        check=False,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize(
    "point",
    [
        "commit.before",
        "commit.after_write",
        "commit.after_commit",
        "deliver.before",
        "deliver.after",
    ],
)
def test_after_a_kill_all_is_announced_and_every_repetition_says_so(
    tmp_path, point, call
):
    path = tmp_path / "watcher.db"
    ended, first = live(path, point, call)
    assert ended == -signal.SIGKILL
    ended, second = live(path, "none", 0)
    assert ended == 0
    told = [line["event_id"] for line in first]
    told_again = [line["event_id"] for line in second]
    assert sorted({*told, *told_again}) == sorted(
        f"{x}{n}" for x in "ab" for n in range(4)
    )
    assert [line["seq"] for line in second] == sorted(line["seq"] for line in second)
    assert not any(line.get("replayed") for line in first)
    repeated = {line["event_id"] for line in second} & set(told)
    marked = {line["event_id"] for line in second if line.get("replayed")}
    assert repeated <= marked
    assert bool(repeated) is (point == "deliver.after")
    if point.startswith("commit"):
        assert not marked
    ended, third = live(path, "none", 0)
    assert (ended, third) == (0, [])
