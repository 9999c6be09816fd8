"""The file itself: locks, versions, damage, full disks, kills, cancellation."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
import structlog

from tests.doors.store.conftest import Clock, ids, opened, step
from watcher.core.errors import StoreError
from watcher.core.model import JobKey
from watcher.ports import Pruned
from watcher.store import (
    JournalFile,
    SqliteStore,
    check_url,
    database_path,
    open_store,
)
from watcher.store.codec import encode
from watcher.store.sqlite import rescue, schema
from watcher.store.sqlite import store as sqlite

KEYS = [JobKey("prod", job) for job in "abc"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "watcher.db"


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def run_child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run Python code in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


async def filled(path: Path, jobs: int = 3, events: int = 40) -> None:
    """Leave a store with some records and a journal, the last job's undelivered."""
    async with opened(path) as store:
        for job in "abcdefgh"[:jobs]:
            ours = [f"{job}{n}" for n in range(events)]
            await store.commit([step(job, *ours, polls=1.0)])
        taken = await store.undelivered("log", events * (jobs - 1))
        await store.delivered("log", [event.seq for event in taken])


# -- addresses


def test_a_relative_url_starts_from_the_folder_and_an_absolute_one_does_not():
    state = {"STATE_DIRECTORY": "/var/lib/watcher"}
    folder = Path("/var/lib/watcher")
    assert database_path("sqlite:///w.db", state) == folder / "w.db"
    assert database_path("sqlite:///sub/w.db", state) == folder / "sub" / "w.db"
    assert database_path("sqlite:////srv/w.db", state) == Path("/srv/w.db")
    assert database_path("sqlite:///w.db", {}) == Path("w.db")
    assert database_path("memory:", state) is None


@pytest.mark.parametrize(
    "url", ["", "sqlite:", "sqlite://w.db", "sqlite:///", "mysql://u:secret@h/d"]
)
def test_any_other_url_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="is not understood") as caught:
        check_url(url)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="is not understood"):
        database_path(url, {})


async def test_a_file_name_may_hold_what_a_uri_may_not(tmp_path):
    odd = tmp_path / "a b?mode=memory#100%.db"
    async with opened(odd) as store:
        await store.commit([step("a", "1")])
    assert odd.exists()


# -- one writer


HOLD = """
import asyncio, sys, time, pathlib
from watcher.store import SqliteStore
async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]), now=time.time)
    await store.open()
    print("open", flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


async def test_a_second_daemon_gets_one_line_naming_file_and_holder(path):
    holder = run_child(HOLD, path)
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(StoreError) as caught:
        async with opened(path):
            pass
    message = str(caught.value)
    assert "\n" not in message
    assert f"{path}.lock" in message
    assert str(holder.pid) in message
    holder.kill()
    holder.communicate()
    async with opened(path):
        pass


async def test_the_lock_goes_with_the_store_and_not_before(path):
    async with opened(path):
        with pytest.raises(StoreError, match=str(os.getpid())):
            async with opened(path):
                pass
        with pytest.raises(StoreError):
            async with opened(path):
                pass
    async with opened(path):
        pass


@pytest.mark.parametrize("kind", ["link", "pipe"])
async def test_a_lock_that_is_no_file_of_its_own_is_not_followed(path, tmp_path, kind):
    lock, elsewhere = beside(path, ".lock"), tmp_path / "precious"
    elsewhere.write_text("precious")
    if kind == "link":
        lock.symlink_to(elsewhere)
    else:
        os.mkfifo(lock)
    with pytest.raises(StoreError, match=r"cannot write .*\.lock: it is"):
        async with opened(path):
            pass
    assert elsewhere.read_text() == "precious"
    assert not path.exists()


async def test_a_store_by_two_names_has_one_lock(path):
    other = path.with_name("other.db")
    async with opened(path):
        other.symlink_to(path)
        with pytest.raises(StoreError, match="held by another"):
            async with opened(other):
                pass


# -- other users


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


async def test_the_files_of_a_store_are_for_its_user_alone(path):
    before = os.umask(0)
    try:
        for _ in range(2):
            async with opened(path) as store:
                await store.commit([step("a", "1")])
                found = modes(path.parent)
                assert len(found) == 4
                assert set(found.values()) == {0o600}
            for file in path.parent.iterdir():
                file.chmod(0o644)  # as an earlier version left them
    finally:
        os.umask(before)


async def test_a_rescued_store_and_what_is_put_aside_are_for_its_user_alone(path):
    before = os.umask(0)
    try:
        await filled(path)
        garble(path, 0.5)
        path.chmod(0o644)
        async with opened(path, on_damage=lambda _: None):
            assert set(modes(path.parent).values()) == {0o600}
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mode", "told"), [(0o700, 0), (0o1777, 0), (0o777, 1)])
async def test_a_folder_in_which_anybody_may_replace_the_store_is_told(
    path, mode, told
):
    path.parent.chmod(mode)
    with structlog.testing.capture_logs() as lines:
        async with opened(path):
            pass
    assert [line["event"] for line in lines] == ["store.exposed"] * told
    assert all(line["mode"] == "777" for line in lines)


# -- versions


async def test_a_newer_schema_is_refused_and_left_alone(path):
    await filled(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer watcher: its schema is 99"):
        async with opened(path):
            pass
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.damaged*"))


async def test_a_database_of_something_else_is_refused_and_left_alone(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE precious (x)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not one of the watcher"):
        async with opened(path):
            pass
    assert path.read_bytes() == before


async def test_an_older_schema_is_brought_forward_step_by_step(path):
    await filled(path)
    steps = (*schema.STEPS, ("ALTER TABLE watched ADD COLUMN note TEXT",))
    with closing(schema.connect(path)) as db:
        schema.migrate(db, schema.VERSION, steps)
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION + 1,)
        assert db.execute("SELECT count(note) FROM watched").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM journal").fetchone() == (120,)


def written_by_the_first_version(path: Path, committed_at: float) -> None:
    """Leave a store as the first schema has it, with two events and one of them owed."""
    steps = [step("a", "1", polls=1.0), step("b", "2")]
    path.touch()
    with closing(schema.connect(path)) as db:
        schema.migrate(db, 0, schema.STEPS[:1])
        for seq, each in enumerate(steps, 1):
            record, (told,) = each.record, each.transitions
            row = (*record.key, encode(record))
            db.execute("INSERT INTO records VALUES (?, ?, ?)", row)
            row = (seq, told.event_id, committed_at, *told.key, encode(told))
            db.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", row)
        db.execute("INSERT INTO sinks VALUES ('log', 1)")
        db.execute("INSERT INTO outbox VALUES ('log', 2)")
        db.execute("INSERT INTO watched VALUES ('prod', 'a')")


@pytest.mark.parametrize("wrong_by", [0.0, -1.6e9, 1e9])
async def test_a_store_of_the_first_version_goes_on_whatever_its_clock_was(
    path, wrong_by
):
    clock = Clock()
    written_by_the_first_version(path, clock.at + wrong_by)
    async with opened(path, now=clock) as store:
        assert await store.prune(clock.at) == Pruned()
        assert ids(await store.read(0, 10)) == ["1", "2"]
        assert (await store.load(KEYS))[KEYS[0]].last_poll_at == 1.0
        assert await store.watched() == {KEYS[0]}
        assert ids(await store.undelivered("log", 10)) == ["2"]
        for _ in range(31):
            clock.at += 86_400
            pruned = await store.prune(clock.at)
        assert pruned == Pruned(2, {"log": 1}), "it ages all the same"


async def test_the_time_of_a_journal_is_kept_over_restarts(path):
    clock = Clock()
    async with opened(path, now=clock) as store:
        await store.commit([step("a", "1")])
    given_up = 0
    for _ in range(31):
        clock.at += 86_400
        async with opened(path, now=clock) as store:
            given_up += (await store.prune(clock.at)).dead_letters.get("log", 0)
    assert given_up == 1


def test_a_step_that_fails_leaves_the_earlier_schema(path):
    path.touch()
    with closing(schema.connect(path)) as db:
        schema.migrate(db, 0)
        steps = (*schema.STEPS, ("CREATE TABLE new (x)", "nonsense"))
        with pytest.raises(sqlite3.Error):
            schema.migrate(db, schema.VERSION, steps)
        assert schema.refuse_foreign(db, path) == schema.VERSION
        tables = db.execute("SELECT name FROM sqlite_schema").fetchall()
        assert ("new",) not in tables


# -- across lives


async def test_the_commit_is_synced_and_the_log_is_written_ahead(path):
    async with opened(path) as store:
        await store.commit([step("a", "1")])
        db = store._ledger._db

        def ask(what):
            return asyncio.get_running_loop().run_in_executor(
                store._thread, lambda: db.execute(f"PRAGMA {what}").fetchone()[0]
            )

        assert await ask("journal_mode") == "wal"
        assert await ask("synchronous") == 2


async def test_only_what_was_handed_out_before_is_replayed(path):
    async with opened(path) as store:
        await store.commit([step("a", "1", "2"), step("b", "3")])
        handed = await store.undelivered("log", 2)
        assert not any(event.replayed for event in handed)
        await store.delivered("log", [1])
    async with opened(path) as store:
        await store.commit([step("b", "4")])
        events = await store.undelivered("log", 10)
        assert [event.replayed for event in events] == [True, False, False]
        assert ids(events) == ["2", "3", "4"]
        again = await store.undelivered("log", 10)
        assert [event.replayed for event in again] == [True, False, False]


async def test_a_new_sink_is_owed_only_what_comes(path):
    async with opened(path) as store:
        await store.commit([step("a", "1")])
    async with opened(path, sinks=["log", "hook"]) as store:
        await store.commit([step("a", "2")])
        assert ids(await store.undelivered("hook", 10)) == ["2"]
        assert ids(await store.undelivered("log", 10)) == ["1", "2"]


async def test_a_sink_that_comes_back_still_gets_what_it_was_owed(path):
    async with opened(path) as store:
        await store.commit([step("a", "1")])
    async with opened(path, sinks=[]) as store:
        await store.commit([step("a", "2")])
    async with opened(path) as store:
        assert ids(await store.undelivered("log", 10)) == ["1"]


KILLED = """
import asyncio, os, sys, time, pathlib
from tests.doors.store.conftest import step
from watcher.store import SqliteStore
path, point, call = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
seen = 0
def fault(name):
    global seen
    seen += name == point
    if name == point and seen == call:
        os.kill(os.getpid(), 9)
async def main():
    store = SqliteStore(path, now=time.time, sinks=["log"], fault_point=fault)
    await store.open()
    for n in range(5):
        for event in await store.commit([step("a", f"e{n}", polls=float(n))]):
            print(event.seq, event.transition.event_id, flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("point", "written"),
    [("commit.before", 2), ("commit.after_write", 2), ("commit.after_commit", 3)],
)
async def test_a_kill_leaves_a_commit_whole_or_not_at_all(path, point, written):
    child = run_child(KILLED, path, point, 3)
    announced, _ = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    async with opened(path) as store:
        events = await store.read(0, 10)
        record = (await store.load(KEYS))[KEYS[0]]
        assert ids(events) == [f"e{n}" for n in range(written)]
        assert record.last_poll_at == written - 1
        assert ids(await store.undelivered("log", 10)) == ids(events)
        told = [f"{event.seq} {event.transition.event_id}" for event in events]
        assert set(announced.splitlines()) <= set(told)
        (redone,) = await store.commit([step("a", f"e{written}")])
        assert redone.seq == written + 1


async def test_a_kill_after_marking_does_not_repeat(path):
    code = KILLED.replace(
        "for n in range(5):",
        'await store.commit([step("a", "x")])\n'
        '    await store.delivered("log", [1])\n'
        "    os.kill(os.getpid(), 9)\n"
        "    for n in range(0):",
    )
    run_child(code, path, "-", 0).communicate(timeout=30)
    async with opened(path) as store:
        assert await store.backlog("log") == 0


# -- growth


async def test_growth_of_an_earlier_life_is_known(path):
    await filled(path)
    async with opened(path) as store:
        with anyio.fail_after(10):
            assert await store.grown(0) == 120


async def test_a_commit_whose_asker_has_left_is_told_all_the_same(path):
    async with opened(path) as store:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.commit([step("a", "1")])
        with anyio.fail_after(10):
            assert await store.grown(0) == 1


async def test_a_commit_that_failed_and_yet_came_true_is_told(path):
    fails = iter([True])

    def fail_late(name):
        if name == "commit.after_commit" and next(fails, False):
            raise sqlite3.OperationalError("disk I/O error")

    async with opened(path, fault_point=fail_late) as store:
        with pytest.raises(StoreError, match="disk I/O"):
            await store.commit([step("a", "1")])
        assert await store.commit([step("a", "1")]) == []
        with anyio.fail_after(10):
            assert await store.grown(0) == 1


# -- cancellation


@pytest.mark.parametrize("native", [True, False])
async def test_a_cancelled_commit_is_whole_and_close_waits_for_it(path, native):
    entered, leave = threading.Event(), threading.Event()

    def slow(name: str) -> None:
        if name == "commit.after_write":
            entered.set()
            leave.wait(5)

    store = SqliteStore(path, now=Clock(), sinks=["log"], fault_point=slow)
    await store.open()
    if native:
        task = asyncio.ensure_future(store.commit([step("a", "1")]))  # noqa: TID251
        await asyncio.to_thread(entered.wait, 5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        threading.Timer(0.1, leave.set).start()
    else:
        threading.Timer(0.1, leave.set).start()
        told = []
        with anyio.move_on_after(0.01):
            told = await store.commit([step("a", "1")])
        assert ids(told) == ["1"]
    await store.close()
    async with opened(path) as store:
        assert ids(await store.read(0, 10)) == ["1"]


async def test_an_event_that_cannot_be_written_takes_its_commit_with_it(path):
    """A fault of ours, so no `StoreError`; the file must not keep half of it."""
    good = step("a", "1")
    odd = replace(good.transitions[0], event_id="2", fields={"odd": object()})
    async with opened(path) as store:
        with pytest.raises(TypeError):
            await store.commit([replace(good, transitions=(*good.transitions, odd))])
        assert await store.read(0, 10) == []
        assert await store.load(KEYS) == {}
        assert ids(await store.commit([step("a", "3")])) == ["3"]


async def test_a_closed_store_leaves_no_thread_behind(path):
    async with opened(path):
        pass
    assert not [one for one in threading.enumerate() if one.name.startswith("store")]


async def test_calls_side_by_side_do_not_mix(path):
    async with opened(path) as store, anyio.create_task_group() as tasks:
        for n in range(20):
            tasks.start_soon(store.commit, [step("a", f"{n}a", f"{n}b")])
            tasks.start_soon(store.undelivered, "log", 5)
            tasks.start_soon(store.delivered, "log", [n])
    told = ids(await JournalFile(path).read(0, 100))
    assert len(told) == 40
    assert all(a[:-1] == b[:-1] for a, b in zip(told[::2], told[1::2], strict=True))


# -- disks


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    options = ["-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mounted)]
    done = subprocess.run(
        ["mount", *options], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def fill_up(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def test_a_full_disk_is_a_store_error_and_passes(disk):
    async with opened(disk / "watcher.db") as store:
        await store.commit([step("a", "1")])
        ballast = disk / "ballast"
        fill_up(ballast)
        many = [step("b", *(f"b{n}" for n in range(500)))]
        for _ in range(3):
            with pytest.raises(StoreError, match="full"):
                await store.commit(many)
        assert ids(await store.read(0, 1000)) == ["1"]
        assert list(await store.load(KEYS)) == [KEYS[0]]
        assert await store.backlog("log") == 1
        ballast.unlink()
        assert len(await store.commit([step("b", "b0")])) == 1
    async with opened(disk / "watcher.db") as store:
        assert ids(await store.read(0, 1000)) == ["1", "b0"]


async def test_a_read_only_disk_is_a_store_error_and_passes(disk):
    path = disk / "watcher.db"

    def remount(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)

    await filled(path)
    remount("ro")
    with pytest.raises(StoreError, match="Read-only"):
        async with opened(path):
            pass
    remount("rw")
    async with opened(path) as store:
        assert len(await store.commit([step("c", "new")])) == 1


async def test_a_missing_folder_is_one_clear_line(tmp_path):
    with pytest.raises(StoreError, match=r"nowhere.*No such file"):
        async with opened(tmp_path / "nowhere" / "watcher.db"):
            pass


async def test_a_folder_in_its_place_is_one_clear_line(path):
    path.mkdir()
    with pytest.raises(StoreError, match="is not a file"):
        async with opened(path):
            pass


# -- what a killed process leaves


def begun(path: Path) -> None:
    """Leave a file as a process does that is killed while it changes many pages."""
    away = path.with_name("away")
    shutil.copy(path, away)
    with closing(sqlite3.connect(away, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("CREATE TABLE pages (x)")
        db.executemany("INSERT INTO pages VALUES (?)", [(bytes(9000),)] * 30)
        shutil.copy(away, path)
        shutil.copy(f"{away}-journal", f"{path}-journal")
        db.execute("ROLLBACK")
    away.unlink()


async def test_a_first_start_of_an_earlier_version_that_was_killed_is_undone(path):
    path.touch()
    begun(path)
    assert path.stat().st_size > 9000
    async with opened(path) as store:
        assert len(await store.commit([step("a", "1")])) == 1
    assert sorted(modes(path.parent)) == ["watcher.db", "watcher.db.lock"]


async def test_a_change_that_was_killed_is_undone(path):
    await filled(path)
    begun(path)
    async with opened(path) as store:
        assert len(await store.read(0, 1000)) == 120


@pytest.mark.parametrize("kind", ["absent", "empty"])
async def test_a_log_without_its_file_is_not_replayed_over_a_new_one(path, kind):
    async with opened(path) as store:
        await store.commit([step("a", "1")])
        logged = beside(path, "-wal").read_bytes()
    path.unlink()
    beside(path, "-wal").write_bytes(logged)
    if kind == "empty":
        path.touch()
    async with opened(path) as store:
        assert await store.read(0, 10) == []
        assert len(await store.commit([step("a", "1")])) == 1


async def test_a_journal_without_its_file_is_not_rolled_back_into_a_new_one(path):
    await filled(path, events=200)
    begun(path)
    path.unlink()
    for _ in range(2):
        async with opened(path, on_damage=pytest.fail) as store:
            await store.commit([step("a", "1")])
            assert ids(await store.read(0, 1000)) == ["1"]


# -- damage


def garble(path: Path, start: float, length: int = 4096) -> None:
    """Overwrite pages from a place given as a share of the file."""
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * start) // 4096 * 4096)
        file.write(bytes(range(256)) * (length // 256))


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


DAMAGE = {
    "garbage": lambda path: path.write_bytes(b"not a database at all\n" * 999),
    "zeros": lambda path: path.write_bytes(bytes(65536)),
    "header": lambda path: garble(path, 0.0),
    "middle": lambda path: garble(path, 0.5),
    "three quarters": lambda path: garble(path, 0.75, 8192),
    "cut in half": lambda path: truncate(path, 0.5),
    "cut by a tenth": lambda path: truncate(path, 0.9),
    "cut short": lambda path: truncate(path, 0.001),
}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_a_damaged_file_is_put_aside_and_numbering_goes_on(path, kind):
    await filled(path)
    DAMAGE[kind](path)
    broken = path.read_bytes()
    clock, notices = Clock(), []
    async with opened(path, now=clock, on_damage=notices.append) as store:
        (damage,) = notices
        assert damage.aside.name == "watcher.db.damaged-20231114T221320.000000Z"
        assert damage.aside.read_bytes() == broken
        kept = await store.read(0, 1000)
        assert len(kept) == damage.events
        assert len(await store.load(KEYS)) == damage.records
        owed = await store.undelivered("log", 1000)
        assert len(owed) == damage.undelivered
        assert all(event.replayed for event in owed)
        assert {event.seq for event in owed} <= set(range(81, 121))
        (new,) = await store.commit([step("a", "quite new")])
        assert new.seq == damage.last_seq + 1
        assert new.seq > (1_000_000 if kept else Clock().at * 1000)
        if kept:
            assert await store.commit([step("a", kept[0].transition.event_id)]) == []
    notices.clear()
    async with opened(path, now=clock, on_damage=notices.append) as store:
        assert len(await store.read(0, 1000)) == len(kept) + 1
    assert notices == []


async def test_most_of_a_large_journal_survives_a_broken_page(path):
    await filled(path, events=400)
    garble(path, 0.5)
    notices = []
    async with opened(path, on_damage=notices.append):
        pass
    assert notices[0].events > 1000
    assert notices[0].records == 3


async def test_what_the_write_ahead_log_held_is_carried_over_too(path, tmp_path):
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    await filled(path)
    async with opened(path) as store:
        await store.commit([step("a", "late")])
        for part in ("", "-wal"):
            shutil.copy(f"{path}{part}", crashed)
    path = crashed / "watcher.db"
    garble(path, 0.6)
    notices = []
    async with opened(path, on_damage=notices.append) as store:
        assert "late" in ids(await store.read(0, 1000))
    assert list(crashed.glob("*.damaged-*-wal"))


async def test_jobs_added_while_running_survive_damage(path):
    await filled(path, events=400)
    async with opened(path) as store:
        await store.add(KEYS)
    garble(path, 0.5)
    async with opened(path, on_damage=lambda _: None) as store:
        assert await store.watched() == set(KEYS)


async def test_rows_with_nonsense_in_them_are_not_carried_over(path):
    await filled(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE journal SET body = 'x' WHERE seq = 7")
        db.execute("UPDATE journal SET event_id = 'x' WHERE seq = 8")
        db.execute(f"UPDATE journal SET seq = {2**60} WHERE seq = 9")
        for seq in (10, 100):  # not UTF-8
            db.execute(
                f"UPDATE journal SET body = CAST(x'ff' AS TEXT) WHERE seq = {seq}"
            )
        db.execute("UPDATE records SET body = '{}' WHERE job_id = 'a'")
        db.execute("UPDATE records SET job_id = 'z' WHERE job_id = 'b'")
        db.execute("UPDATE records SET body = x'ff00' WHERE job_id = 'c'")
        db.execute("DELETE FROM sinks")
        db.execute("INSERT INTO sinks VALUES (CAST(x'ff' AS TEXT), 1)")
    damage = rescue.rescue(path, "test", 0.0)
    assert (damage.records, damage.events, damage.undelivered) == (0, 115, 39)
    assert damage.last_seq == 120 + 1_000_000
    async with opened(path, on_damage=pytest.fail) as store:
        owed = await store.undelivered("log", 100)
        assert len(owed) == 39
        assert all(event.replayed for event in owed)


@pytest.fixture
def state():
    """A folder in memory, where there is one: what is written is not waited for."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        made = Path(folder) / "state"
        made.mkdir()
        yield made


def killed_at_every_step(folder: Path) -> list[dict]:
    """Open a store killed at each step in turn; say what a later start found."""
    command = [sys.executable, "-m", "tests.doors.store.killing", str(folder)]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_first_start_killed_at_any_step_leaves_what_can_be_opened(state):
    rounds = killed_at_every_step(state)
    assert len(rounds) > 30
    for found in rounds:
        assert found == {
            "whole": True,
            "events": [],
            "owed": [],
            "records": 0,
            "watched": 0,
            "names": ["watcher.db", "watcher.db.lock"],
            "modes": [0o600],
            "damages": 0,
        }


async def test_a_rescue_killed_at_any_step_loses_nothing(state, tmp_path):
    path = state / "watcher.db"
    await filled(path, events=3)
    async with opened(path) as store:
        await store.add(KEYS)
        for part in ("", "-wal", "-shm"):  # as a killed daemon leaves them
            shutil.copy(f"{path}{part}", tmp_path)
    for part in ("", "-wal", "-shm"):
        shutil.copy(f"{tmp_path / path.name}{part}", state)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE watched SET job_id = x'00ff' WHERE job_id = 'c'")
    shutil.copy(path, f"{path}-journal")  # of no use, and not to be believed
    rounds = killed_at_every_step(state)
    assert len(rounds) > 50
    for found in rounds:
        assert found["events"] == [f"{job}{n}" for job in "abc" for n in range(3)]
        assert found["owed"] == ["c0", "c1", "c2"]
        assert (found["records"], found["watched"]) == (3, 2)
        kept = [name for name in found["names"] if ".damaged-" not in name]
        assert kept == ["watcher.db", "watcher.db.lock"]
        assert found["modes"] == [0o600]


@pytest.mark.parametrize("seen_by_check", [True, False])
async def test_damage_met_while_running_is_mended_within_the_call(
    path, monkeypatch, seen_by_check
):
    await filled(path, events=2000)
    notices = []
    if not seen_by_check:
        monkeypatch.setattr(sqlite, "find_damage", lambda _: None)
    async with opened(path, on_damage=notices.append) as store:
        garble(path, 0.2, 4096 * 20)
        assert 100 < len(await store.read(0, 100_000)) < 6000
        await store.commit([step("a", "quite new")])
        assert ids(await store.read(notices[0].last_seq, 10)) == ["quite new"]
    assert len(notices) == 1


async def test_a_rescue_that_the_disk_refuses_is_a_store_error(path, monkeypatch):
    await filled(path)
    garble(path, 0.5)

    def rename(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(StoreError, match="Permission denied"):
            async with opened(path):
                pass
    async with opened(path, on_damage=lambda _: None):
        pass


async def test_a_file_that_cannot_be_looked_at_is_not_taken_for_damaged(
    path, monkeypatch
):
    await filled(path)
    real, calls = rescue.connect, iter(range(9))

    def refuse(*arguments, **options):
        if next(calls) == 0:
            raise sqlite3.OperationalError("database is locked")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(rescue, "connect", refuse)
        with pytest.raises(StoreError, match="locked"):
            async with opened(path):
                pass
    assert not list(path.parent.glob("*.damaged*"))


async def test_a_missing_table_is_damage(path):
    await filled(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE sinks")
    notices = []
    async with opened(path, on_damage=notices.append) as store:
        assert len(await store.undelivered("log", 100)) == 40
    assert [damage.reason for damage in notices] == ["table sinks is missing"]


NONSENSE = {
    "a blob for a job id": "UPDATE watched SET job_id = x'00ff' WHERE job_id = 'c'",
    "no UTF-8 for a job id": (
        "UPDATE watched SET job_id = CAST(x'ff' AS TEXT) WHERE job_id = 'c'"
    ),
    "what cannot be asked for": "UPDATE watched SET job_id = '../x' WHERE job_id = 'c'",
    "text for a number": "UPDATE sinks SET offered = 'many'",
    "text for a time": "UPDATE journal SET committed_at = 'now' WHERE seq = 120",
    "endless time": "UPDATE facts SET value = 9e999",
    "text for the last number": "UPDATE sqlite_sequence SET seq = 'x'",
    "a number owed that is none": (
        "UPDATE outbox SET seq = 'x' WHERE seq = (SELECT max(seq) FROM outbox)"
    ),
    "a record that is none": "UPDATE records SET body = '{' WHERE job_id = 'c'",
    "a record in bytes": "UPDATE records SET body = x'7b7d' WHERE job_id = 'c'",
    "a record of another job": "UPDATE records SET job_id = 'c' WHERE job_id = 'b'",
    "a time that is no date": (
        "UPDATE records SET body = json_set(body, '$.finished_at', 1e300)"
        " WHERE job_id = 'c'"
    ),
    "a count without an end": (
        "UPDATE records SET body = replace(body, '\"ordinals\":{',"
        f" '\"ordinals\":{{\"x\":{10**30}') WHERE job_id = 'c'"
    ),
    "an event that is none": "UPDATE journal SET body = '{' WHERE seq = 120",
}


@pytest.mark.parametrize("kind", NONSENSE)
async def test_nonsense_is_put_aside_said_and_gone_on_from(path, kind):
    await filled(path)
    async with opened(path) as store:
        await store.add(KEYS)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "DELETE FROM records WHERE job_id = 'c' AND ?", ["of another" in kind]
        )
        assert db.execute(NONSENSE[kind]).rowcount
    broken, notices = path.read_bytes(), []
    async with opened(path, on_damage=notices.append) as store:
        assert set(KEYS[:2]) <= await store.watched()
        assert set(await store.load(KEYS)) >= {KEYS[0]}
        assert len(await store.read(0, 1000)) >= 119
        assert len(await store.undelivered("log", 1000)) >= 39
        assert await store.backlog("log") >= 39
        await store.prune(Clock().at)
        (new,) = await store.commit([step("c", "quite new")])
        assert new.seq > 120
        assert KEYS[2] in await store.load(KEYS)
    (damage,) = notices
    assert damage.aside.read_bytes() == broken
    async with opened(path, on_damage=notices.append):
        assert len(notices) == 1


async def test_many_unreadable_events_stop_nobody_who_reads_page_by_page(path):
    await filled(path, events=200)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE journal SET body = '{' WHERE seq BETWEEN 2 AND 151")
    async with opened(path, on_damage=lambda _: None) as store:
        assert [event.seq for event in await store.read(0, 2)] == [1, 152]
        assert (await store.read(1, 100))[-1].seq == 251


async def test_a_reader_beside_the_daemon_passes_over_what_it_cannot_read(path):
    await filled(path, events=200)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE journal SET body = '{' WHERE seq BETWEEN 2 AND 151")
        db.execute("UPDATE journal SET body = x'7b' WHERE seq = 152")
    told = await JournalFile(path).read(0, 2)
    assert [event.seq for event in told] == [1, 153]


async def test_damage_is_logged_by_default(path):
    path.write_bytes(b"garbage" * 1000)
    with structlog.testing.capture_logs() as lines:
        async with open_store(f"sqlite:///{path}", now=Clock(), sinks=["log"]):
            pass
    (line,) = lines
    assert line["event"] == "store.damaged"
    assert line["reason"] == "file is not a database"
    assert line["log_level"] == "error"


# -- readers beside the daemon


async def test_the_journal_is_read_beside_the_daemon(path):
    journal = JournalFile(path)
    async with opened(path) as store:
        await store.commit([step("a", "1")])
        assert ids(await journal.read(0, 10)) == ["1"]
        await store.commit([step("b", "2")])
        assert ids(await journal.read(1, 10)) == ["2"]
        assert ids(await journal.read(0, 10, "a")) == ["1"]
        assert await journal.grown(1) == 2


async def test_a_journal_that_is_not_there_yet_is_waited_for_and_found_empty(path):
    journal = JournalFile(path, look_every=0.001)
    with anyio.move_on_after(0.02) as waiting:
        await journal.grown(-1)
    assert waiting.cancelled_caught
    assert await journal.read(0, 10) == []
    assert not path.exists()
    async with opened(path):
        assert await journal.grown(-1) == 0


async def test_a_commit_by_another_process_ends_the_wait(path):
    journal, highest = JournalFile(path, look_every=0.001), []

    async def wait():
        highest.append(await journal.grown(0))

    async with opened(path) as store, anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await store.commit([step("a", "1")])
    assert highest == [1]


async def test_a_journal_that_is_none_is_a_store_error(path):
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError):
        await JournalFile(path).read(0, 10)
    with pytest.raises(StoreError):
        await JournalFile(path).grown(0)
