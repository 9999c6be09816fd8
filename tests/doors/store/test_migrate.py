"""`watcher store migrate`: from a file to a real PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.doors.store.conftest import ids, opened, step, transition
from watcher.core.model import JobKey, JobRecord, Step
from watcher.core.tracker import begin
from watcher.ports import Retention
from watcher.store.postgres import moving
from watcher.store.postgres.store import PostgresStore
from watcher.store.sqlite.lock import FileLock

A, B = JobKey("prod", "a"), JobKey("lab", "b")


@pytest.fixture
def url(postgres):
    return postgres.database()


async def filled(path):
    """A store in which everything has been used; of ten numbers 3 to 10 are kept."""
    at = [time.time() - 200]  # noqa: TID251
    options = {"sinks": ["log", "hook"], "retention": Retention(100.0, 1000)}
    async with opened(path, now=lambda: at[0], **options) as store:
        await store.commit([step("a", "1", "2")])
        await store.delivered("log", [1, 2])
        at[0] += 150
        await store.prune(at[0])
        odd = transition("3", "b", "lab")
        odd.fields["message"] = "tab\t newline\n back\\slash \\N \x00 \u2028"
        told = Step(JobRecord(B, "p", ordinals={"x": 7}), (odd,))
        await store.commit([told, step("a", "4", "5", polls=2.5)])
        await store.commit([step("c", *map(str, range(6, 11)))])
        await store.undelivered("hook", 2)
        await store.delivered("hook", [4])
        await store.forget([B])
        await store.add([A, JobKey("prod", "added")])
        await store.note("one", "text with \\N and \t")


def migrate(path, url):
    words = [sys.executable, "-m", "watcher", "store", "migrate"]
    words += [f"sqlite:////{str(path).lstrip('/')}", url]
    return subprocess.run(words, capture_output=True, text=True, check=False)


async def asked(store):
    return {
        "records": await store.load([A, B, JobKey("prod", "c"), JobKey("x", "new")]),
        "known": await store.known(),
        "journal": await store.read(0, 100),
        "of a job": await store.read(0, 100, "b"),
        "hook": await store.undelivered("hook", 100),
        "log": [await store.backlog("log"), await store.backlog("hook")],
        "watched": await store.watched(),
        "notes": await store.notes(),
        "highest": await store.grown(-1),
    }


async def test_everything_is_as_it_was(tmp_path, url):
    path = tmp_path / "watcher.db"
    await filled(path)
    done = migrate(path, url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "8 events, 15 undelivered" in done.stdout
    async with opened(path, sinks=["log", "hook"]) as file:
        before = await asked(file)
    store = PostgresStore(url, sinks=["log", "hook"])
    try:
        await store.open()
        assert await asked(store) == before
        assert before["records"][B] == begin(B, 7)
        marks = [event.replayed for event in before["hook"]]
        assert marks == [True] + [False] * 6
        assert ids(await store.commit([step("a", "4", "11")])) == ["11"]
        assert (await store.read(10, 9))[0].seq == 11
        assert (await store.prune(0)).events == 0, "nothing ages by the move"
    finally:
        await store.close()


async def test_a_store_that_a_daemon_holds_is_not_moved(tmp_path, url):
    path = tmp_path / "watcher.db"
    await filled(path)
    lock = FileLock(tmp_path / "watcher.db.lock")
    done = migrate(path, url)
    lock.close()
    assert done.returncode == 78
    assert "nothing was moved: " in done.stderr
    assert "is held by another watcher" in done.stderr


async def test_not_into_one_that_is_used_or_full(tmp_path, url):
    path = tmp_path / "watcher.db"
    await filled(path)
    store = PostgresStore(url)
    await store.open()
    await store.leases.renew()
    assert "a replica is at work" in migrate(path, url).stderr
    await store.leases.leave()
    await store.commit([step("z")])
    await store.close()
    assert "holds records or events already" in migrate(path, url).stderr


async def test_one_that_breaks_off_moves_nothing_and_can_be_repeated(
    tmp_path, url, monkeypatch
):
    path = tmp_path / "watcher.db"
    await filled(path)
    broken = ("notes", "SELECT name, NULL FROM notes", moving._TABLES[-1][2])
    monkeypatch.setattr(moving, "_TABLES", (*moving._TABLES[:-1], broken))
    with pytest.raises(moving.StoreError, match="null value"):
        await moving.move_in(path, url)
    monkeypatch.undo()
    assert migrate(path, url).returncode == 0


@pytest.mark.parametrize(
    ("source", "destination", "said"),
    [
        ("memory:", "postgresql://u@h/d", "move from sqlite"),
        ("sqlite:///none.db", "postgresql://u@h/d", "is not there"),
        ("sqlite:///none.db", "sqlite:///other.db", "move from sqlite"),
        (
            "sqlite:///none.db",
            "postgresql://u:s3cr3t@h/d",
            "POSTGRESQL_URL: must hold no password",
        ),
        ("mysql://h/d", "postgresql://u@h/d", "SQLITE_URL: 'mysql' is not"),
    ],
)
def test_what_cannot_be_moved_is_said(source, destination, said):
    words = [sys.executable, "-m", "watcher", "store", "migrate", source, destination]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert said in done.stderr
    assert "s3cr3t" not in done.stderr
