"""A disk that is full for a while, and one that is slow: late, but whole."""

import os
import subprocess
import sys
from contextlib import contextmanager

import anyio
import pytest

from tests.whole.daemon import running, target, until
from tests.whole.lives import Story, check_story, journal
from watcher.simulator import SimulatorOptions, simulate

OPTIONS = SimulatorOptions(jobs=4, tasks=20, speed=0)
POLL = {"interval": "200ms", "requests_per_second": 100, "mode": "detail"}
LONG = "a message that needs room. " * 100


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, timeout=10, check=False)
        reason = done.stderr.decode().strip() if done.returncode else None
    except OSError as error:
        reason = str(error)
    if reason is not None:
        must = os.environ.get("WATCHER_REQUIRE_REAL") == "1"
        (pytest.fail if must else pytest.skip)(f"cannot mount a tmpfs: {reason}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], timeout=10, check=True)


@contextmanager
def filled(folder):
    """Leave no room on a disk while the block runs."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()


def told(daemon, name="task.transition"):
    return [(line["task_id"], line["from"], line["to"]) for line in daemon.events(name)]


def check(daemon, folder):
    story = Story()
    for line in daemon.lines:
        story.hear(0, line)
    assert check_story(story, journal(folder)) == 0


async def test_a_full_disk_delays_and_loses_nothing(tmp_path, small_disk):
    files = tmp_path / "jobs.d"
    files.mkdir()
    (files / "all.txt").touch()
    async with simulate(OPTIONS) as sim:
        *kept, dropped, added = sim.job_ids
        (files / "all.txt").write_text(dropped)
        prod = target(
            sim.url,
            kept,
            credentials={"kind": "none"},
            job_files=[str(files / "*.txt")],
        )
        values = {"targets": {"prod": prod}, "poll": POLL}
        environ = {"STATE_DIRECTORY": str(small_disk)}
        async with running(tmp_path, values, environ=environ) as daemon:
            await daemon.started()
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 3)
            with filled(small_disk):
                for job_id in kept:
                    sim.jobs.patch(job_id, "*", "FAILED", LONG)
                await daemon.until(lambda: daemon.events("store.failing"))
                known = told(daemon)
                (files / "all.txt").write_text(added)
                for _ in range(15):  # longer than /healthz is patient
                    await anyio.sleep(1)
                    assert (await daemon.get("/healthz"))[0] == 200
                for job_id in kept:
                    sim.jobs.patch(job_id, "*", "PROCESSING")
                asked = sim.requests.total
                await until(lambda: sim.requests.total > asked + 10)
                assert told(daemon) == known
                assert dropped not in (await daemon.get("/metrics"))[1]
            await daemon.until(lambda: len(told(daemon)) == 80)
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 4)
            assert (await daemon.get("/healthz"))[0] == 200
            code, _ = await daemon.end()
    assert (code, daemon.errors) == (0, [])
    tasks = {task.id for job_id in kept for task in sim.jobs.tasks(job_id)}
    assert sorted(told(daemon)) == sorted(
        (task_id, *change)
        for task_id in tasks
        for change in [("PROCESSING", "FAILED"), ("FAILED", "PROCESSING")]
    )
    for name in ("store.failing", "store.recovered"):
        assert len(daemon.events(name)) == 1
    check(daemon, small_disk)


async def test_a_slow_disk_delays_and_loses_nothing(tmp_path):
    command = [sys.executable, "-m", "tests.whole.faulty"]
    async with simulate(OPTIONS) as sim:
        prod = target(sim.url, sim.job_ids, credentials={"kind": "none"})
        values = {"targets": {"prod": prod}, "poll": POLL}
        environ = {"SLOW": "commit.after_write:2.5"}
        async with running(
            tmp_path, values, environ=environ, command=command
        ) as daemon:
            await daemon.started()
            for word in ("FAILED", "PROCESSING"):
                count = len(told(daemon))
                for job_id in sim.job_ids:
                    first, *_ = sim.jobs.tasks(job_id)
                    sim.jobs.patch(job_id, first.id, word)
                await daemon.until(lambda n=count: len(told(daemon)) == n + 4)
                assert (await daemon.get("/healthz"))[0] == 200
            code, seconds = await daemon.end()
    assert (code, daemon.errors) == (0, [])
    assert seconds < 6
    check(daemon, tmp_path)
