"""Couriers in virtual time, over the store in memory."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from itertools import cycle, pairwise

import anyio
import pytest

from tests.doors.sinks.conftest import ScriptedSink, refusing, step
from watcher.core.errors import SinkError, StoreError
from watcher.ports import Mendable, Postponed, Retention, Undeliverable
from watcher.sinks.courier import Courier, RetryPolicy, prune_regularly
from watcher.store import MemoryStore

pytestmark = pytest.mark.looptime

POLICY = RetryPolicy(
    first_retry=1.0, longest_retry=8.0, parallel_jobs=3, batch=4, drain=3.0
)


def no_jitter() -> float:
    return 0.0


def memory(*sinks: str) -> MemoryStore:
    return MemoryStore(now=lambda: 0.0, sinks=sinks or ("hook",))


def courier(
    sink: ScriptedSink, store: MemoryStore, policy: RetryPolicy = POLICY
) -> Courier:
    return Courier(sink, store, store, jitter=no_jitter, policy=policy)


@asynccontextmanager
async def running(*couriers: Courier):
    async with anyio.create_task_group() as tasks:
        for one in couriers:
            tasks.start_soon(one.run)
        yield
        for one in couriers:
            one.stop()


async def test_events_come_in_order_and_are_marked():
    store, sink = memory(), ScriptedSink()
    await store.commit([step("a", *(f"a{n}" for n in range(10)))])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(1)
        assert sink.taken == [f"a{n}" for n in range(10)]
        await store.commit([step("b", "b0")])
        await anyio.sleep(0.001)
        assert sink.taken[-1] == "b0"
    assert (one.delivered, one.failed) == (11, 0)
    assert await store.backlog("hook") == 0
    assert not await store.undelivered("hook", 1)


async def test_a_batch_sink_gets_journal_order_over_all_jobs():
    store, sink = memory(), ScriptedSink(per_job=False)
    await store.commit([step("a", "1"), step("b", "2"), step("a", "3")])
    async with running(courier(sink, store)):
        await anyio.sleep(1)
    assert sink.taken == ["1", "2", "3"]


async def test_a_batch_sink_that_fails_gets_the_whole_batch_again():
    store, sink = memory(), ScriptedSink(per_job=False)
    sink.refuse = refusing("2")
    await store.commit([step("a", "1"), step("b", "2"), step("c", "3")])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(0.5)
        assert sink.taken == []
        assert one.backlog == 3
        sink.refuse = refusing()
        await anyio.sleep(1)
        assert sink.taken == ["1", "2", "3"]
        assert not one.failing


async def test_a_failing_job_holds_back_only_its_own_later_events():
    store, sink = memory(), ScriptedSink()
    sink.refuse = refusing("a1")
    await store.commit([step("a", "a0", "a1", "a2"), step("b", "b0", "b1")])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(0.5)
        assert sorted(sink.taken) == ["a0", "b0", "b1"]
        await store.commit([step("b", "b2")])
        await anyio.sleep(0.1)
        assert "b2" in sink.taken
        assert len(sink.times("a1")) == 1
        assert not sink.times("a2")
        sink.refuse = refusing()
        await anyio.sleep(1)
        assert sink.taken[-2:] == ["a1", "a2"]


async def test_a_long_blocked_job_does_not_fill_the_batch():
    store, sink = memory(), ScriptedSink()
    sink.refuse = refusing("a0")
    await store.commit([step("a", *(f"a{n}" for n in range(9))), step("b", "b0")])
    async with running(courier(sink, store)):
        await anyio.sleep(0.5)
        assert sink.taken == ["b0"]


async def test_retries_double_up_to_the_ceiling():
    store, sink = memory(), ScriptedSink()
    sink.refuse = refusing("a0")
    await store.commit([step("a", "a0")])
    async with running(courier(sink, store)):
        await anyio.sleep(30)
    times = sink.times("a0")
    gaps = [round(b - a, 3) for a, b in pairwise(times)]
    assert gaps == [1, 2, 4, 8, 8]


async def test_jitter_takes_up_to_half_of_the_wait():
    store, sink = memory(), ScriptedSink()
    sink.refuse = refusing("a0")
    await store.commit([step("a", "a0")])
    async with running(Courier(sink, store, store, jitter=lambda: 1.0, policy=POLICY)):
        await anyio.sleep(2)
    times = sink.times("a0")
    assert [round(at - times[0], 3) for at in times] == [0, 0.5, 1.5]


async def test_a_dead_sink_rests_as_a_whole_and_is_probed_by_one():
    store, sink = memory(), ScriptedSink()
    sink.refuse = lambda _: SinkError("down")
    await store.commit([step(f"j{n}", f"e{n}") for n in range(4)])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(0.9)
        assert len(sink.attempts) == 3  # parallel_jobs
        await store.commit([step("new", "n0")])
        await anyio.sleep(0.05)
        assert len(sink.attempts) == 3
        await anyio.sleep(0.9)
        assert len(sink.attempts) == 4
        sink.refuse = refusing()
        await anyio.sleep(3)
        assert sorted(sink.taken) == ["e0", "e1", "e2", "e3", "n0"]


async def test_when_a_dead_sink_is_back_no_job_waits_for_its_own_retry():
    store, sink = memory(), ScriptedSink()
    sink.refuse = lambda _: SinkError("down")
    await store.commit([step(f"j{n}", f"e{n}") for n in range(4)])
    draws = cycle([0.0, 1.0])  # a job's own wait outlasts the sink's
    one = Courier(sink, store, store, jitter=lambda: next(draws), policy=POLICY)
    async with running(one):
        await anyio.sleep(60)
        sink.refuse = refusing()
        asked = len(sink.attempts)
        await anyio.sleep(10)
    again = [at for at, _ in sink.attempts[asked:]]
    assert len(sink.taken) == 4
    assert again[-1] - again[0] < 0.1


async def test_failures_with_successes_between_are_not_a_dead_sink():
    store, sink = memory(), ScriptedSink()
    sink.refuse = refusing("p1", "p2", "p3", "p4")
    one = courier(sink, store)
    async with running(one):
        for poison, good in [("p1", "a"), ("p2", "b"), ("p3", "c"), ("p4", "d")]:
            await store.commit([step(poison, poison)])
            await anyio.sleep(0.01)
            await store.commit([step(good, good)])
            await anyio.sleep(0.01)
            assert sink.taken[-1] == good


async def test_refusals_side_by_side_count_as_one_pause():
    store, sink = memory(), ScriptedSink()
    sink.refuse = lambda _: Postponed("429", retry_after=0.1)
    sink.seconds = lambda _: 0.01
    await store.commit([step(f"j{n}", f"e{n}") for n in range(3)])
    async with running(courier(sink, store)):
        await anyio.sleep(1.5)
    assert len(sink.attempts) == 4


async def test_news_during_a_look_at_the_journal_is_not_missed():
    class Slow(MemoryStore):
        async def undelivered(self, sink, limit, held=(), targets=None):
            events = await super().undelivered(sink, limit, held, targets)
            await anyio.sleep(0.1)
            return events

    store, sink = Slow(now=lambda: 0.0, sinks=["hook"]), ScriptedSink()
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(0.05)
        await store.commit([step("a", "a0")])
        await anyio.sleep(1)
        assert sink.taken == ["a0"]


async def test_a_pause_asked_for_is_kept_by_all_jobs():
    store, sink = memory(), ScriptedSink()
    sink.refuse = lambda _: Postponed("429", retry_after=60)
    await store.commit([step("a", "a0")])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(1)
        sink.refuse = refusing()
        await store.commit([step("b", "b0")])
        await anyio.sleep(58)
        assert len(sink.attempts) == 1
        await anyio.sleep(2)
        assert sorted(sink.taken) == ["a0", "b0"]


def never(*event_ids: str):
    """Refuse these for ever."""
    return lambda event: (
        Undeliverable("answered 400", status_code=400)
        if event.transition.event_id in event_ids
        else None
    )


async def test_what_can_never_be_taken_is_given_up_and_holds_nothing_back(lines):
    store, sink = memory(), ScriptedSink()
    sink.refuse = never("a0", "b0")
    await store.commit([step("a", "a0", "a1"), step("b", "b0"), step("c", "c0")])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(0.01)
        assert sorted(sink.taken) == ["a1", "c0"]
        assert not await store.undelivered("hook", 1)
        await anyio.sleep(1000)
    assert len(sink.attempts) == 4
    assert (one.delivered, one.failed, one.undeliverable) == (2, 0, 2)
    assert not one.failing
    assert {line["event"] for line in lines} == {"sink.undeliverable"}
    assert lines[0] == {
        "event": "sink.undeliverable",
        "log_level": "warning",
        "sink": "hook",
        "events": 1,
        "error": "answered 400",
        "status_code": 400,
        "at_seq": 1,
        "at_event_id": "a0",
        "target": "prod",
        "job_id": "a",
    }


async def test_many_refused_for_ever_are_no_dead_sink(lines):
    store, sink = memory(), ScriptedSink()
    names = [f"e{n}" for n in range(20)]
    sink.refuse = never(*names)
    await store.commit([step(f"j{n}", name) for n, name in enumerate(names)])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(0.01)
        assert one.undeliverable == 20
        assert [line["events"] for line in lines] == [1]
        await anyio.sleep(59)
        assert len(lines) == 1, "a flood is told by the minute"
        await anyio.sleep(2)
        assert [line["events"] for line in lines] == [1, 19]
        await store.commit([step("late", "e0-again", "e1-again")])
        sink.refuse = never("e0-again", "e1-again")
        await anyio.sleep(0.01)
        assert len(lines) == 2
    assert [line["events"] for line in lines] == [1, 19, 2], "the end tells the rest"


async def test_one_that_is_refused_for_ever_shows_that_a_dead_sink_is_back():
    store, sink = memory(), ScriptedSink()
    sink.refuse = lambda _: SinkError("down")
    await store.commit([step(f"j{n}", f"e{n}") for n in range(4)])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(20)
        sink.refuse = never("e0", "e1", "e2", "e3")
        await anyio.sleep(20)
        assert one.undeliverable == 4
        assert not one.failing


async def test_a_refusal_that_somebody_can_mend_pauses_no_other_job():
    store, sink = memory(), ScriptedSink()
    sink.refuse = lambda event: (
        Mendable("answered 404") if event.transition.event_id.startswith("x") else None
    )
    refused = [step(f"x{n}", f"x{n}") for n in range(2 * POLICY.parallel_jobs)]
    await store.commit([*refused, step("b", "b0", "b1")])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(0.1)
        assert sink.taken == ["b0", "b1"]
        await anyio.sleep(10)
        assert len(sink.times("x0")) == 4, "it is tried again, ever more seldom"
        await store.commit([step("b", "b2")])
        await anyio.sleep(0.01)
        assert sink.taken[-1] == "b2"
        assert one.failing
        sink.refuse = refusing()
        await anyio.sleep(10)
        assert one.backlog == 0
        assert not one.failing


async def test_the_more_jobs_wait_the_more_seldom_the_journal_is_searched():
    class Counting(MemoryStore):
        looks = 0

        async def undelivered(self, sink, limit, held=(), targets=None):
            self.looks += 1
            return await super().undelivered(sink, limit, held, targets)

    store, sink = Counting(now=lambda: 0.0, sinks=["hook"]), ScriptedSink()
    sink.refuse = lambda _: Mendable("answered 404")
    await store.commit([step(f"j{n}", f"e{n}") for n in range(500)])
    policy = RetryPolicy(longest_retry=20.0)
    one = Courier(sink, store, store, jitter=random.Random(1).random, policy=policy)
    async with running(one):
        await anyio.sleep(60)
        before, tried = store.looks, len(sink.attempts)
        await anyio.sleep(10)
    assert len(sink.attempts) - tried > 200
    assert store.looks - before <= 2 * 10 / 0.05 + 10, "a look finds, the next nothing"
    assert min(sink.times("e0")) == 0


async def test_a_success_side_by_side_does_not_end_a_pause():
    store, sink = memory(), ScriptedSink()
    sink.refuse = lambda event: (
        Postponed("429", retry_after=60) if event.transition.event_id == "a0" else None
    )
    sink.seconds = lambda event: 0.1 if event.transition.event_id == "b0" else 0.0
    await store.commit([step("a", "a0"), step("b", "b0", "b1")])
    async with running(courier(sink, store)):
        await anyio.sleep(50)
        assert sink.taken == ["b0"]
        assert len(sink.attempts) == 2


async def test_a_hanging_sink_delays_no_other():
    store = memory("dead", "log")
    dead, alive = ScriptedSink(name="dead"), ScriptedSink(name="log", per_job=False)
    dead.seconds = lambda _: 1e6
    await store.commit([step("a", "a0")])
    couriers = courier(dead, store), courier(alive, store)
    started = 0.0
    async with running(*couriers):
        await anyio.sleep(0.1)
        assert alive.taken == ["a0"]
        started = anyio.current_time()
    assert anyio.current_time() - started == pytest.approx(POLICY.drain, abs=0.1)
    assert await store.backlog("dead") == 1


async def test_stopping_delivers_what_can_be_delivered():
    store, sink = memory(), ScriptedSink()
    sink.seconds = lambda _: 0.5
    one = courier(sink, store)
    await store.commit([step("a", *(f"a{n}" for n in range(10)))])
    async with running(one):
        await anyio.sleep(0.1)
        stopped = anyio.current_time()
    assert anyio.current_time() - stopped == pytest.approx(POLICY.drain, abs=0.1)
    assert sink.taken == [f"a{n}" for n in range(6)]
    assert await store.backlog("hook") == 4


async def test_stopping_does_not_wait_for_a_retry():
    store, sink = memory(), ScriptedSink()
    sink.refuse = refusing("a0")
    await store.commit([step("a", "a0")])
    async with running(courier(sink, store)):
        await anyio.sleep(8)
        stopped = anyio.current_time()
    assert anyio.current_time() - stopped < 0.1


async def test_failing_and_recovered_are_logged_once(lines):
    store, sink = memory(), ScriptedSink()
    sink.refuse = lambda _: SinkError("down")
    await store.commit([step("a", "a0"), step("b", "b0")])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(5)
        assert one.failing
        assert [line["event"] for line in lines] == ["sink.failing"]
        assert lines[0]["sink"] == "hook"
        assert lines[0]["error"] == "down"
        assert lines[0]["log_level"] == "warning"
        assert lines[0]["at_seq"] == 1
        assert "event_id" not in lines[0], "it is no journal event"
        sink.refuse = refusing()
        await anyio.sleep(20)
        assert not one.failing
    assert [line["event"] for line in lines] == ["sink.failing", "sink.recovered"]
    assert one.failed > 2
    assert one.delivered == 2


class BrokenMarks(MemoryStore):
    """A store that can be read but not written."""

    broken = True

    async def delivered(self, sink, seqs):
        if self.broken:
            raise StoreError("disk full")
        await super().delivered(sink, seqs)


@pytest.mark.parametrize("per_job", [True, False])
async def test_what_cannot_be_marked_is_not_delivered_twice(lines, per_job):
    store = BrokenMarks(now=lambda: 0.0, sinks=["hook"])
    sink = ScriptedSink(per_job=per_job)
    await store.commit([step("a", "a0"), step("b", "b0")])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(10)
        assert sorted(sink.taken) == ["a0", "b0"]
        assert one.backlog == 2
        store.broken = False
        await anyio.sleep(10)
        assert one.backlog == 0
        assert not one.failing
    assert sorted(sink.taken) == ["a0", "b0"]
    assert [line["event"] for line in lines] == ["sink.failing", "sink.recovered"]


async def test_the_backlog_is_counted_every_second_while_the_store_answers():
    class Locked(MemoryStore):
        locked = False

        async def backlog(self, sink, targets=None):
            if self.locked:
                raise StoreError("locked")
            return await super().backlog(sink, targets)

    store, sink = Locked(now=lambda: 0.0, sinks=["hook"]), ScriptedSink()
    sink.refuse = lambda _: Postponed("429", retry_after=100)
    one = courier(sink, store)
    async with running(one):
        for count in (1, 2):
            await store.commit([step("a", f"a{count}")])
            await anyio.sleep(1.1)
            assert one.backlog == count
        store.locked = True
        await store.commit([step("b", "b0")])
        await anyio.sleep(5)
        assert one.backlog == 2
        store.locked = False
        await anyio.sleep(1)
        assert one.backlog == 3


async def test_an_event_past_retention_is_given_up_and_counted(lines):
    kept = Retention(3600.0)
    store = MemoryStore(now=lambda: 0.0, sinks=["hook"], retention=kept)
    sink = ScriptedSink()
    sink.refuse = refusing("a0")
    await store.commit([step("a", "a0")])
    one = courier(sink, store)
    clock = iter([0.0, 1e9, 1e9, 1e9])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        tasks.start_soon(
            lambda: prune_regularly(
                store, [one], now=lambda: next(clock), interval=10.0
            )
        )
        await anyio.sleep(25)
        assert one.dead_lettered == 1
        assert one.backlog == 0
        assert not one.failing
        tasks.cancel_scope.cancel()
    events = [line["event"] for line in lines]
    assert events == ["sink.failing", "sink.dead_lettered", "sink.recovered"]


async def test_a_store_that_cannot_prune_is_no_disaster(lines):
    class Full(MemoryStore):
        async def prune(self, now):  # noqa: ARG002
            raise StoreError("disk full")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(
            lambda: prune_regularly(Full(now=lambda: 0.0), [], now=lambda: 0.0)
        )
        await anyio.sleep(700)
        tasks.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["journal.prune_failed"] * 2


async def test_a_fault_point_lies_on_either_side_of_a_delivery():
    store, sink, seen = memory(), ScriptedSink(), []
    await store.commit([step("a", "a0")])
    one = Courier(
        sink,
        store,
        store,
        jitter=no_jitter,
        fault_point=lambda name: seen.append((name, len(sink.taken))),
    )
    async with running(one):
        await anyio.sleep(1)
    assert seen == [("deliver.before", 0), ("deliver.after", 1)]


async def test_only_what_is_one_s_own_is_delivered():
    store, sink = memory(), ScriptedSink()
    await store.commit([step("a", "1")])
    own = set()
    one = Courier(sink, store, store, jitter=no_jitter, own=lambda: own)
    async with running(one):
        await anyio.sleep(2)
        assert (sink.taken, one.backlog) == ([], 0)
        own.add("prod")
        one.wake()
        await anyio.sleep(2)
        assert sink.taken == ["1"]


async def test_what_is_another_s_meanwhile_is_not_handed_over():
    store, sink = memory(), ScriptedSink()
    own = {"prod"}
    await store.commit([step("a", "1", "2", "3")])
    one = Courier(sink, store, store, jitter=no_jitter, own=lambda: own)
    sink.refuse = lambda _: own.clear()  # while the first is being handed over
    async with running(one):
        await anyio.sleep(2)
        assert sink.taken == ["1"]
        await one.finish(["prod"])


async def test_who_gives_back_waits_for_what_is_being_handed_over():
    store, sink = memory(), ScriptedSink()
    sink.seconds = lambda _: 5.0
    await store.commit([step("a", "1")])
    one = courier(sink, store)
    async with running(one):
        await anyio.sleep(1)
        await one.finish(["elsewhere"])
        assert sink.taken == []
        await one.finish(["prod"])
        assert sink.taken == ["1"]
