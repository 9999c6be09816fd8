"""What every store must do, over each store that there is."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from tests.doors.store.conftest import Clock, ids, opened, step, transition
from watcher.core.model import Job, JobKey, JobRecord, Snapshot
from watcher.core.tracker import advance, begin
from watcher.ports import ALWAYS_HELD, Pruned, Retention
from watcher.store import MemoryStore, open_store

A, B = JobKey("prod", "a"), JobKey("prod", "b")


@asynccontextmanager
async def in_memory(_, **options):
    yield MemoryStore(**options)


def in_sqlite(folder, **options):
    return opened(folder / "watcher.db", **options)


@asynccontextmanager
async def in_postgres(server, **options):
    from watcher.store.postgres.store import PostgresStore  # noqa: PLC0415

    store = PostgresStore(server.database(), **options)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


OPENERS = [in_memory, in_sqlite, in_postgres]
"""Each opens an empty store: (folder, now=, sinks=, retention=). One line a kind."""
SHORT = Retention(1000.0, 100)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=OPENERS, ids=lambda opener: opener.__name__)
def open_one(request, tmp_path, clock):
    """Open an empty store of each kind."""
    where = tmp_path
    if request.param is in_postgres:
        where = request.getfixturevalue("postgres")

    def opening(*sinks, retention=SHORT):
        return request.param(where, now=clock, sinks=sinks, retention=retention)

    return opening


async def test_a_committed_record_is_loaded_again(open_one):
    async with open_one() as store:
        first, second = step("a", polls=1.0), step("a", polls=2.0)
        await store.commit([first, step("b")])
        await store.commit([second])
        assert await store.load([A, JobKey("prod", "x")]) == {A: second.record}


async def test_many_records_of_several_targets_are_loaded_at_once(open_one):
    async with open_one() as store:
        steps = [step(f"job-{number}") for number in range(1100)]
        await store.commit(steps)
        known = {each.record.key: each.record for each in steps}
        others = [JobKey("other", key.job_id) for key in known]
        assert await store.load([*known, *others]) == known
        await store.forget(known.keys())
        assert await store.known() == frozenset()


async def test_which_jobs_there_are_records_of(open_one):
    async with open_one() as store:
        assert await store.known() == frozenset()
        await store.commit([step("a", "1"), step("b")])
        await store.forget([A])
        assert await store.known() == {B}


async def test_notes_are_kept_by_name(open_one):
    async with open_one() as store:
        assert await store.notes() == {}
        await store.note("one", "1")
        await store.note("two", "2")
        await store.note("one", "3")
        assert await store.notes() == {"one": "3", "two": "2"}


async def test_the_last_of_two_steps_of_one_job_counts(open_one):
    async with open_one() as store:
        steps = [step("a", "1", polls=1.0), step("a", "2", polls=2.0)]
        assert ids(await store.commit(steps)) == ["1", "2"]
        assert (await store.load([A]))[A].last_poll_at == 2.0


async def test_a_forgotten_job_is_gone_but_its_journal_stays(open_one):
    async with open_one("log") as store:
        await store.commit([step("a", "1"), step("b", "2")])
        await store.forget([A])
        assert list(await store.load([A, B])) == [B]
        assert ids(await store.read(0, 10)) == ["1", "2"]
        assert ids(await store.undelivered("log", 10)) == ["1", "2"]


async def test_what_keeps_ids_apart_outlives_the_job_and_its_journal(open_one, clock):
    told = replace(step("a", "1"), record=JobRecord(A, "p", ordinals={"x": 3, "y": 1}))
    missed = replace(step("b"), record=JobRecord(B, "p", missing_answers=2))
    new = JobKey("prod", "new")
    async with open_one(retention=Retention(10.0)) as store:
        await store.commit([told, missed])
        await store.forget([A])
        assert await store.load([A, new]) == {A: begin(A, 3)}
        await store.prune(clock())
        assert await store.load([A, new]) == {A: begin(A, 3)}
        clock.at += 11.0
        await store.prune(clock())
        told_again = {A: begin(A, 3), B: missed.record, new: begin(new, 3)}
        assert await store.load([A, B, new]) == told_again


async def test_event_ids_do_not_repeat_after_remove_prune_and_return(open_one, clock):
    seen = Snapshot(Job("a", "PROCESSING"), ())
    ids_told = set()
    async with open_one(retention=Retention(10.0)) as store:
        for _ in range(3):
            record = (await store.load([A])).get(A, JobRecord(A))
            made = advance(record, seen, clock())
            ids_told |= set(ids(await store.commit([made])))
            await store.forget([A])
            clock.at += 11.0
            await store.prune(clock())
    assert len(ids_told) == 3


async def test_a_clock_that_is_put_right_gives_up_nothing_undelivered(open_one, clock):
    right, clock.at = clock.at, 1000.0
    month = Retention(30 * 86_400.0)
    async with open_one("log", retention=month) as store:
        await store.commit([step("a", "1")])
        for clock.at in (right, 0.0, right + 86_400):  # and wrong again meanwhile
            assert await store.prune(clock.at) == Pruned()
        assert ids(await store.undelivered("log", 10)) == ["1"]
        for _ in range(29):
            clock.at += 86_400.0
            pruned = await store.prune(clock.at)
        assert pruned.dead_letters == {"log": 1}, "it ages all the same"


async def test_commit_returns_the_events_in_order_with_their_place(open_one):
    async with open_one() as store:
        steps = [step("a", "1", "2"), step("b", "3")]
        events = await store.commit(steps)
        told = [one for each in steps for one in each.transitions]
        assert [event.transition for event in events] == told
        assert [event.seq for event in events] == [1, 2, 3]
        assert not any(event.replayed for event in events)
        assert await store.read(0, 10) == events


async def test_a_known_event_id_is_journaled_once(open_one):
    async with open_one("log") as store:
        await store.commit([step("a", "1")])
        again = await store.commit([step("a", "1", "2", "2", polls=3.0)])
        assert ids(again) == ["2"]
        assert ids(await store.read(0, 10)) == ["1", "2"]
        assert ids(await store.undelivered("log", 10)) == ["1", "2"]
        assert await store.backlog("log") == 2
        assert (await store.load([A]))[A].last_poll_at == 3.0


async def test_events_are_read_after_a_number_and_of_one_job(open_one):
    async with open_one() as store:
        await store.commit([step("a", "1"), step("b", "2"), step("a", "3", "4")])
        assert ids(await store.read(1, 2)) == ["2", "3"]
        assert ids(await store.read(1, 10, "a")) == ["3", "4"]
        assert ids(await store.read(0, 1, "b")) == ["2"]
        assert await store.read(4, 10) == []


async def test_each_sink_is_owed_each_event_until_it_took_it(open_one):
    async with open_one("log", "hook") as store:
        await store.commit([step("a", "1", "2", "3")])
        await store.delivered("log", [1, 3])
        await store.delivered("log", [1, 99])
        assert ids(await store.undelivered("log", 10)) == ["2"]
        assert ids(await store.undelivered("hook", 2)) == ["1", "2"]
        assert [await store.backlog(name) for name in ("log", "hook")] == [1, 3]


async def test_an_unknown_sink_is_owed_nothing(open_one):
    async with open_one("log") as store:
        await store.commit([step("a", "1")])
        assert await store.undelivered("other", 10) == []
        await store.delivered("other", [1])
        assert await store.backlog("other") == 0


async def test_held_jobs_are_left_out_before_the_limit_counts(open_one):
    async with open_one("log") as store:
        await store.commit([step("a", "1", "2"), step("b", "3"), step("c", "4")])
        held = {A, JobKey("other", "b")}
        assert ids(await store.undelivered("log", 2, held)) == ["3", "4"]


async def test_within_one_life_nothing_is_replayed(open_one):
    async with open_one("log") as store:
        await store.commit([step("a", "1")])
        await store.undelivered("log", 10)
        assert not (await store.undelivered("log", 10))[0].replayed


async def test_old_events_go_and_undelivered_ones_are_counted(open_one, clock):
    async with open_one("log", "hook") as store:
        await store.commit([step("a", "1", "2")])
        clock.at += 900
        await store.commit([step("a", "3")])
        await store.delivered("log", [1])
        assert (await store.prune(clock.at)).events == 0
        clock.at += 101
        pruned = await store.prune(clock.at)
        assert pruned.events == 2
        assert pruned.dead_letters == {"log": 1, "hook": 2}
        assert ids(await store.read(0, 10)) == ["3"]
        assert ids(await store.undelivered("hook", 10)) == ["3"]
        assert [await store.backlog(name) for name in ("log", "hook")] == [1, 1]


async def test_a_long_journal_is_cut_but_never_what_is_undelivered(open_one, clock):
    async with open_one("log", retention=Retention(1000.0, 2)) as store:
        await store.commit([step("a", "1", "2", "3", "4", "5")])
        await store.delivered("log", [1, 3, 5])
        pruned = await store.prune(clock.at)
        assert (pruned.events, pruned.dead_letters) == (2, {})
        assert ids(await store.read(0, 10)) == ["2", "4", "5"]
        assert ids(await store.undelivered("log", 10)) == ["2", "4"]


async def test_a_number_is_never_given_twice(open_one, clock):
    async with open_one() as store:
        await store.commit([step("a", "1", "2")])
        clock.at += 2000
        assert (await store.prune(clock.at)).events == 2
        (event,) = await store.commit([step("a", "3")])
        assert event.seq == 3


async def test_jobs_added_while_running_are_remembered_one_by_one(open_one):
    async with open_one() as store:
        assert await store.watched() == frozenset()
        await store.add([A])
        await store.add([A, B])
        assert await store.watched() == {A, B}
        await store.remove([A, JobKey("other", "b")])
        assert await store.watched() == {B}


async def highest(store, after):
    with anyio.fail_after(10):
        return await store.grown(after)


async def test_growth_is_told_at_once_and_counted_from_nothing(open_one):
    async with open_one() as store:
        assert await highest(store, -1) == 0
        await store.commit([step("a", "1", "2")])
        assert await highest(store, 0) == await highest(store, 1) == 2
        assert await highest(store, 5000) == 2, "a number of another journal"


async def test_who_waits_for_growth_wakes_with_the_commit(open_one):
    woken = []

    async def wait(store):
        woken.append(await store.grown(0))

    async with open_one() as store, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait, store)
        await store.commit([step("a", polls=1.0)])
        await anyio.wait_all_tasks_blocked()
        assert woken == []
        await store.commit([step("a", "1")])
        with anyio.fail_after(10):
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert woken == [1, 1, 1]


async def test_growth_goes_by_numbers_given_and_not_by_what_is_kept(open_one, clock):
    async with open_one() as store:
        await store.commit([step("a", "1", "2")])
        clock.at += 2000
        await store.prune(clock.at)
        assert await highest(store, 0) == 2


def is_shared(store):
    return type(store).__name__ == "PostgresStore"


async def test_a_store_that_one_daemon_opens_has_no_leases(open_one):
    async with open_one() as store:
        assert (store.leases is None) is not is_shared(store)
        assert len(await store.commit([step("a", "1")], ALWAYS_HELD)) == 1


async def test_what_a_sink_is_owed_of_some_targets(open_one):
    elsewhere = replace(step("b", "2"), transitions=(transition("2", "b", "test"),))
    async with open_one("log") as store:
        await store.commit([step("a", "1"), elsewhere, step("c", "3")])
        assert ids(await store.undelivered("log", 10, targets=["prod"])) == ["1", "3"]
        assert ids(await store.undelivered("log", 10, {A}, ["prod"])) == ["3"]
        assert ids(await store.undelivered("log", 10, targets=["test"])) == ["2"]
        assert await store.undelivered("log", 10, targets=[]) == []
        counts = [["prod"], ["test", "prod"], ["x"], [], None]
        owed = [await store.backlog("log", targets) for targets in counts]
        assert owed == [2, 3, 0, 0, 3]


async def test_an_empty_commit_is_nothing(open_one):
    async with open_one("log") as store:
        assert await store.commit([]) == []


@pytest.mark.parametrize("url", ["memory:", "sqlite:///watcher.db"])
async def test_a_url_opens_a_store_in_the_state_folder(
    url, tmp_path, clock, monkeypatch
):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    kept = Retention(events=1)
    async with open_store(url, now=clock, sinks=["log"], retention=kept) as store:
        await store.commit([step("a", "1", "2")])
        assert ids(await store.undelivered("log", 10)) == ["1", "2"]
        await store.delivered("log", [1, 2])
        assert (await store.prune(clock.at)).events == 1
    assert (tmp_path / "watcher.db").exists() is url.startswith("sqlite")
