"""What every store must do, over each store that there is."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.doors.store.conftest import Clock, ids, opened, step
from watcher.core.model import JobKey, JobRecord
from watcher.store import MemoryStore, Retention, open_store

A, B = JobKey("prod", "a"), JobKey("prod", "b")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def open_one(request, tmp_path, clock):
    """Open an empty store of either kind."""

    @asynccontextmanager
    async def opening(*sinks, keep_seconds=1000.0, keep_events=100):
        if request.param == "memory":
            yield MemoryStore(
                now=clock,
                sinks=sinks,
                keep_seconds=keep_seconds,
                keep_events=keep_events,
            )
            return
        retention = Retention(keep_seconds, keep_events)
        path = tmp_path / "watcher.db"
        async with opened(path, now=clock, sinks=sinks, retention=retention) as store:
            yield store

    return opening


async def test_a_committed_record_is_claimed_again(open_one):
    async with open_one() as store:
        first, second = step("a", polls=1.0), step("a", polls=2.0)
        await store.commit([first, step("b")])
        await store.commit([second])
        assert await store.claim([A, JobKey("prod", "x")]) == {A: second.record}


async def test_the_last_of_two_steps_of_one_job_counts(open_one):
    async with open_one() as store:
        steps = [step("a", "1", polls=1.0), step("a", "2", polls=2.0)]
        assert ids(await store.commit(steps)) == ["1", "2"]
        assert (await store.claim([A]))[A].last_poll_at == 2.0


async def test_a_released_job_is_forgotten_but_its_journal_stays(open_one):
    async with open_one("log") as store:
        await store.commit([step("a", "1"), step("b", "2")])
        await store.release([A])
        assert list(await store.claim([A, B])) == [B]
        assert ids(await store.events(0, 10)) == ["1", "2"]
        assert ids(await store.undelivered("log", 10)) == ["1", "2"]


async def test_what_keeps_ids_apart_outlives_a_release_as_long_as_the_journal(
    open_one, clock
):
    told = replace(step("a", "1"), record=JobRecord(A, "p", ordinals={"job.first": 1}))
    missed = replace(step("b"), record=JobRecord(B, "p", missing_answers=2))
    async with open_one(keep_seconds=10.0) as store:
        await store.commit([told, missed])
        await store.release([A])
        assert await store.claim([A]) == {A: JobRecord(A, ordinals={"job.first": 1})}
        await store.prune(clock())
        assert A in await store.claim([A])
        clock.at += 11.0
        await store.prune(clock())
        assert await store.claim([A, B]) == {B: missed.record}


async def test_commit_returns_the_events_in_order_with_their_place(open_one):
    async with open_one() as store:
        steps = [step("a", "1", "2"), step("b", "3")]
        events = await store.commit(steps)
        told = [one for each in steps for one in each.transitions]
        assert [event.transition for event in events] == told
        assert [event.seq for event in events] == [1, 2, 3]
        assert not any(event.replayed for event in events)
        assert await store.events(0, 10) == events


async def test_a_known_event_id_is_journaled_once(open_one):
    async with open_one("log") as store:
        await store.commit([step("a", "1")])
        again = await store.commit([step("a", "1", "2", "2", polls=3.0)])
        assert ids(again) == ["2"]
        assert ids(await store.events(0, 10)) == ["1", "2"]
        assert ids(await store.undelivered("log", 10)) == ["1", "2"]
        assert store.backlog("log") == 2
        assert (await store.claim([A]))[A].last_poll_at == 3.0


async def test_events_are_read_after_a_number_and_of_one_job(open_one):
    async with open_one() as store:
        await store.commit([step("a", "1"), step("b", "2"), step("a", "3", "4")])
        assert ids(await store.events(1, 2)) == ["2", "3"]
        assert ids(await store.events(1, 10, "a")) == ["3", "4"]
        assert ids(await store.events(0, 1, "b")) == ["2"]
        assert await store.events(4, 10) == []


async def test_each_sink_is_owed_each_event_until_it_took_it(open_one):
    async with open_one("log", "hook") as store:
        await store.commit([step("a", "1", "2", "3")])
        await store.delivered("log", [1, 3])
        await store.delivered("log", [1, 99])
        assert ids(await store.undelivered("log", 10)) == ["2"]
        assert ids(await store.undelivered("hook", 2)) == ["1", "2"]
        assert (store.backlog("log"), store.backlog("hook")) == (1, 3)


async def test_an_unknown_sink_is_owed_nothing(open_one):
    async with open_one("log") as store:
        await store.commit([step("a", "1")])
        assert await store.undelivered("other", 10) == []
        await store.delivered("other", [1])
        assert store.backlog("other") == 0


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
        assert ids(await store.events(0, 10)) == ["3"]
        assert ids(await store.undelivered("hook", 10)) == ["3"]
        assert (store.backlog("log"), store.backlog("hook")) == (1, 1)


async def test_a_long_journal_is_cut_but_never_what_is_undelivered(open_one, clock):
    async with open_one("log", keep_events=2) as store:
        await store.commit([step("a", "1", "2", "3", "4", "5")])
        await store.delivered("log", [1, 3, 5])
        pruned = await store.prune(clock.at)
        assert (pruned.events, pruned.dead_letters) == (2, {})
        assert ids(await store.events(0, 10)) == ["2", "4", "5"]
        assert ids(await store.undelivered("log", 10)) == ["2", "4"]


async def test_a_number_is_never_given_twice(open_one, clock):
    async with open_one() as store:
        await store.commit([step("a", "1", "2")])
        clock.at += 2000
        assert (await store.prune(clock.at)).events == 2
        (event,) = await store.commit([step("a", "3")])
        assert event.seq == 3


async def test_jobs_added_while_running_are_remembered(open_one):
    async with open_one() as store:
        assert await store.watched() == frozenset()
        await store.save_watched([A, B])
        await store.save_watched([B])
        assert await store.watched() == {B}


async def test_an_empty_commit_is_nothing(open_one):
    async with open_one("log") as store:
        assert await store.commit([]) == []


@pytest.mark.parametrize("url", ["memory:", "sqlite:///watcher.db"])
async def test_a_url_opens_a_store(url, tmp_path, clock):
    async with open_store(url, folder=tmp_path, now=clock, sinks=["log"]) as store:
        await store.commit([step("a", "1")])
        assert ids(await store.undelivered("log", 10)) == ["1"]
    assert (tmp_path / "watcher.db").exists() is url.startswith("sqlite")
