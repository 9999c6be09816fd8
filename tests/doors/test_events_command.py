"""`watcher events`: the journal read beside the daemon that writes it."""

import io
import json
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio.to_thread
import pytest

from tests.doors.store.conftest import opened, step
from tests.whole.daemon import surroundings
from watcher.commands import events
from watcher.core.errors import StoreError
from watcher.store import JournalFile


def seqs(out):
    return [json.loads(line)["seq"] for line in out.getvalue().splitlines()]


def told(count, job_id="a"):
    return [step(job_id, *(f"{job_id}{number}" for number in range(count)))]


async def read(path, out, *, after=0, job=None):
    return await events.show(JournalFile(path), after, job, out)


async def test_beside_a_running_daemon_and_after_it(tmp_path):
    path = tmp_path / "watcher.db"
    async with opened(path) as store:
        await store.commit(told(3) + told(2, "b"))
        out = io.BytesIO()
        assert await read(path, out) == 0
        assert seqs(out) == [1, 2, 3, 4, 5]
        await store.commit(told(1, "c"))  # the daemon was not disturbed
    out = io.BytesIO()
    await read(path, out, after=4)
    assert seqs(out) == [5, 6]
    out = io.BytesIO()
    await read(path, out, job="b")
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
        await read(path, out)
    assert seqs(out) == [*range(1, 2501)]


@asynccontextmanager
async def following(path, **options):
    """Follow a journal in the background, from before its file is there."""
    out = io.BytesIO()
    asked = {"after": 0, "job": None, **options}
    journal = JournalFile(path, look_every=0.001)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(events.follow, journal, out=out, **asked))
        yield out
        tasks.cancel_scope.cancel()


async def until_told(out, wanted):
    with anyio.fail_after(10):
        while seqs(out) != wanted:  # noqa: ASYNC110
            await anyio.sleep(0.001)


async def test_following_from_before_there_is_a_file(tmp_path):
    path = tmp_path / "watcher.db"
    async with following(path) as out:
        await anyio.sleep(0.01)
        async with opened(path) as store:
            for number in range(1, 4):
                await store.commit(told(1, f"job{number}"))
                await until_told(out, [*range(1, number + 1)])


async def test_a_store_that_was_replaced_is_followed_from_its_beginning(tmp_path):
    path = tmp_path / "watcher.db"
    async with opened(path) as store:
        await store.commit(told(3))
    async with following(path) as out:
        await until_told(out, [1, 2, 3])
        for file in tmp_path.iterdir():
            file.unlink()
        async with opened(path) as store:
            await store.commit(told(2))
            await until_told(out, [1, 2, 3, 1, 2])


async def test_a_job_without_an_event_is_said(tmp_path, capsys):
    path = tmp_path / "watcher.db"
    async with opened(path) as store:
        await store.commit(told(2) + told(2, "b"))
    out = io.BytesIO()
    assert await read(path, out, job="bb36") == 1
    assert "no event of a job bb36 is in the journal" in capsys.readouterr().err
    assert await read(path, out, job="a", after=3) == 0, "its events came before"
    assert await read(path, out, after=3000) == 0
    assert out.getvalue() == b""
    assert capsys.readouterr().err == ""


def command(*words, folder):
    """Run the command in a folder of its own."""
    config = folder / "watcher.yaml"
    config.write_text("targets: {prod: {region: cn-north-4, project_id: p}}\n")
    return subprocess.run(
        [sys.executable, "-m", "watcher", "events", "--config", config, *words],
        capture_output=True,
        text=True,
        check=False,
        env=surroundings(STATE_DIRECTORY=str(folder)),
    )


async def test_the_command_says_what_is_not_there(tmp_path):
    done = command(folder=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert "store.url: " in done.stderr
    assert "is not there" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["watcher.yaml"]
    async with opened(tmp_path / "watcher.db") as store:
        await store.commit(told(1))
    assert command("--job", "a", folder=tmp_path).returncode == 0
    for seq in ("9" * 30, "-1", "x"):
        done = command("--after", seq, folder=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
    done = command("--job", "b", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")


async def test_not_a_store(tmp_path):
    path = tmp_path / "watcher.db"
    path.write_text("not a database, but long enough to be looked at" * 100)
    with pytest.raises(StoreError):
        await read(path, io.BytesIO())


SCRIPT = """
import sys
from watcher.commands.cli import main
sys.exit(main(["events", "--follow", "--config", sys.argv[1]]))
"""


@contextmanager
def follower(path):
    config = path.with_name("watcher.yaml")
    config.write_text("targets: {prod: {region: cn-north-4, project_id: p}}\n")
    command = [sys.executable, "-c", SCRIPT, str(config)]
    pipe = subprocess.PIPE
    environ = surroundings(STATE_DIRECTORY=str(path.parent))
    environ.pop("PYTHONUNBUFFERED", None)
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_following_as_a_process(tmp_path):
    path = tmp_path / "watcher.db"
    async with opened(path) as store:
        await store.commit(told(1))
        with follower(path) as process, anyio.fail_after(30):
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
    with follower(path) as process:
        assert json.loads(process.stdout.readline())["seq"] == 1
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
