"""`watcher events`: the journal read beside the daemon that writes it."""

import io
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import anyio.from_thread
import anyio.to_thread
import pytest

from tests.doors.store.conftest import opened, step
from watcher.commands import events
from watcher.core.errors import SettingsError, StoreError


def seqs(out):
    return [json.loads(line)["seq"] for line in out.getvalue().splitlines()]


def told(count, job_id="a"):
    return [step(job_id, *(f"{job_id}{number}" for number in range(count)))]


def read(path, out, *, after=0, job=None, follow=False, **options):
    return events.main(path, after, job, follow, out, **options)


async def test_beside_a_running_daemon_and_after_it(tmp_path):
    path = tmp_path / "watcher.db"
    async with opened(path) as store:
        await store.commit(told(3) + told(2, "b"))
        out = io.BytesIO()
        assert read(path, out) == 0
        assert seqs(out) == [1, 2, 3, 4, 5]
        await store.commit(told(1, "c"))  # the daemon was not disturbed
    out = io.BytesIO()
    read(path, out, after=4)
    assert seqs(out) == [5, 6]
    out = io.BytesIO()
    read(path, out, job="b")
    assert seqs(out) == [4, 5]
    first = json.loads(out.getvalue().splitlines()[0])
    assert list(first)[:5] == ["timestamp", "level", "event", "event_id", "seq"]
    async with opened(path):  # nothing is left that locks it
        pass


async def test_more_than_a_batch(tmp_path):
    path = tmp_path / "watcher.db"
    async with opened(path) as store:
        await store.commit(told(2500))
        out = io.BytesIO()
        read(path, out)
    assert seqs(out) == [*range(1, 2501)]


async def test_following(tmp_path):
    path = tmp_path / "watcher.db"
    out, turns = io.BytesIO(), iter(range(4))

    async with opened(path) as store:
        await store.commit(told(1))

        def pause():
            turn = next(turns)
            assert seqs(out) == [*range(1, turn + 2)]
            if turn == 3:
                raise KeyboardInterrupt
            anyio.from_thread.run(store.commit, told(1, f"job{turn}"))

        with pytest.raises(KeyboardInterrupt):
            await anyio.to_thread.run_sync(
                partial(read, path, out, follow=True, pause=pause)
            )
    assert seqs(out) == [1, 2, 3, 4]


def test_no_store(tmp_path):
    with pytest.raises(SettingsError, match=r"store\.url: .* is not there"):
        read(tmp_path / "watcher.db", io.BytesIO())
    assert not list(tmp_path.iterdir())


def test_not_a_store(tmp_path):
    path = tmp_path / "watcher.db"
    path.write_text("not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError):
        read(path, io.BytesIO())
    path.write_bytes(b"")
    with pytest.raises(StoreError):
        read(path, io.BytesIO())


SCRIPT = """
import pathlib, sys
from watcher.commands import events
sys.exit(events.main(pathlib.Path(sys.argv[1]), 0, None, True, sys.stdout.buffer))
"""


@contextmanager
def following(path):
    command = [sys.executable, "-c", SCRIPT, str(path)]
    pipe = subprocess.PIPE
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_following_as_a_process(tmp_path):
    path = tmp_path / "watcher.db"
    async with opened(path) as store:
        await store.commit(told(1))
        with following(path) as process, anyio.fail_after(30):
            for number in range(1, 4):
                line = await anyio.to_thread.run_sync(
                    process.stdout.readline, abandon_on_cancel=True
                )
                assert json.loads(line)["seq"] == number
                await store.commit(told(1, f"job{number}"))


async def test_a_reader_that_leaves(tmp_path):
    path = tmp_path / "watcher.db"
    async with opened(path) as store:
        await store.commit(told(2500))
    with following(path) as process:
        assert json.loads(process.stdout.readline())["seq"] == 1
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
