"""The loop on virtual time: when it asks, how it slows down, and in which order."""

import asyncio
import itertools
import random

import anyio
import pytest
import structlog

from tests.fakes import START, FakeApi, FakeObserver, FakeStore, keys, snapshot
from watcher.core.errors import (
    JobNotFound,
    Malformed,
    Rejected,
    ServerError,
    StoreError,
    Throttled,
    Unreachable,
)
from watcher.core.listing import Mode
from watcher.core.model import Job, JobKey, JobRecord, ListPage, Phase
from watcher.polling.board import Board
from watcher.polling.committer import MOST_PENDING, SAVE_EVERY, SHOWN_AT_ONCE, Committer
from watcher.polling.poller import Poller
from watcher.polling.target import Manner, Target

pytestmark = [pytest.mark.looptime]


class Rig:
    """A poller and a committer with fake doors."""

    def __init__(
        self,
        *,
        rate=1000.0,
        in_flight=1000,
        chance=0.0,
        apis=None,
        api=None,
        store=None,
        **manner,
    ):
        self.apis = apis or {"prod": api or FakeApi()}
        self.api = next(iter(self.apis.values()))
        self.store = store or FakeStore()
        self.observer = FakeObserver()
        manner.setdefault("mode", Mode.DETAIL)
        self.manner = Manner(
            requests_per_second=rate, max_in_flight=in_flight, **manner
        )
        self.targets = {
            name: Target(name, each, self.manner) for name, each in self.apis.items()
        }
        self.board = Board()
        wall = lambda: START + anyio.current_time()  # noqa: E731
        self.committer = Committer(self.board, self.store, self.observer, wall=wall)
        self.poller = Poller(
            self.targets,
            self.board,
            self.committer,
            self.observer,
            chance=chance if callable(chance) else lambda: chance,
        )

    async def watch(self, jobs):
        new = [job for job in jobs if job not in self.board.watched]
        await self.committer.begin(
            {
                job: self.targets[job.target].api.project_id
                for job in new
                if job.target in self.targets
            }
        )
        for job in new:
            if job.target in self.targets:
                record = self.board.records[job]
                self.targets[job.target].watch(record, anyio.current_time())
        self.poller.wake()

    async def unwatch(self, jobs):
        for job in jobs:
            if job.target in self.targets:
                self.targets[job.target].forget(job)
        await self.committer.forget(jobs)

    async def run(self, jobs, seconds, *during):
        """Watch jobs for some virtual seconds; `during` holds (second, action)."""
        await self.watch(jobs)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.committer.run)
            async with anyio.create_task_group() as polling:
                polling.start_soon(self.poller.run)
                for at, action in during:
                    await anyio.sleep(at - anyio.current_time())
                    await action()
                await anyio.sleep(seconds - anyio.current_time())
                polling.cancel_scope.cancel()
            self.committer.stop()

    def told(self):
        return [event.transition.event for event in self.store.journal]


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


def asked_at_once(times):
    return [sum(abs(at - other) < 0.5 for other in times) for at in times]


def events(lines, name):
    return [line for line in lines if line["event"] == name]


async def test_one_job_is_asked_every_interval():
    rig = Rig()
    await rig.run(keys(1), 55)
    gaps = [b - a for a, b in zip(rig.api.times(), rig.api.times()[1:], strict=False)]
    assert len(rig.api.times()) == 6
    assert all(9.8 <= gap <= 10 for gap in gaps)


async def test_jitter_makes_looks_early_and_never_late():
    rig = Rig(chance=0.999)
    await rig.run(keys(1), 55)
    times = rig.api.times()
    gaps = [b - a for a, b in itertools.pairwise(times[1:])]
    assert all(8.8 <= gap <= 9.1 for gap in gaps)


async def test_every_job_is_looked_at_once_at_the_start():
    rig = Rig(interval=600.0)
    await rig.run(keys(100), 1)
    assert [job for _, job in rig.api.asked] == [key.job_id for key in keys(100)]
    assert max(rig.api.times()) < 0.1


async def test_the_first_round_keeps_to_the_rate_and_the_order():
    rig = Rig(interval=600.0, rate=20)
    await rig.run(keys(100), 10)
    assert [job for _, job in rig.api.asked] == [key.job_id for key in keys(100)]
    assert 4.5 <= max(rig.api.times()) <= 5


async def test_the_second_round_is_spread_over_one_interval():
    chances = random.Random(1)
    rig = Rig(chance=chances.random)
    await rig.run(keys(1000), 11)
    later = [at for at in rig.api.times() if at >= 0.5]
    per_second = [sum(s <= at < s + 1 for at in later) for s in range(1, 10)]
    assert all(70 <= count <= 230 for count in per_second)


async def test_a_finished_job_is_never_asked_again():
    rig = Rig(
        api=FakeApi(
            lambda j, t: snapshot(
                j,
                "FINISHED" if t > 25 else "PROCESSING",
                {"t1": "SUCCESS" if t > 15 else "PROCESSING"},
            )
        )
    )
    await rig.run(keys(1), 3600)
    assert len(rig.api.asked) == 4
    assert rig.told() == [
        "job.first_seen",
        "task.transition",
        "job.transition",
        "job.finished",
    ]
    assert rig.board.phases == [Phase.SUCCEEDED]


async def test_the_ceiling_of_requests_holds_whatever_is_due():
    rig = Rig(rate=20, in_flight=16, interval=1.0)
    await rig.run(keys(60), 30)
    times = rig.api.times()
    assert max(sum(t <= at < t + 1 for at in times) for t in times) <= 23
    assert len(times) >= 0.95 * 20 * 30
    assert len({job for _, job in rig.api.asked}) == 60
    counts = [len(rig.api.times(key.job_id)) for key in keys(60)]
    assert max(counts) - min(counts) <= 2, "earliest deadline first starves nobody"
    assert max(lag for _, _, lag, _ in rig.observer.polls) > 0.5


async def test_the_cap_on_what_is_in_flight_holds():
    rig = Rig(in_flight=3, interval=1.0, api=FakeApi(latency=2.0))
    await rig.run(keys(20), 30)
    assert rig.api.most_in_flight == 3
    assert len({job for _, job in rig.api.asked}) == 20


async def test_targets_do_not_hold_back_one_another():
    slow = FakeApi(lambda *_: Unreachable("no answer"), latency=10.0)
    rig = Rig(apis={"slow": slow, "prod": FakeApi()}, in_flight=1)
    await rig.run([*keys(3, "slow"), *keys(3, "prod")], 60)
    assert len(rig.apis["prod"].asked) >= 15


class TestOrder:
    async def test_committed_before_shown_before_told(self):
        rig = Rig()
        seen = []
        commit, told = rig.store.commit, rig.observer.told

        async def noting_commit(steps, fence):
            seen.append("commit")
            assert rig.board.records[keys(1)[0]].job is None
            return await commit(steps, fence)

        def noting_told(transitions):
            assert rig.board.records[keys(1)[0]].job is not None
            seen.append("tell")
            told(transitions)

        rig.store.commit, rig.observer.told = noting_commit, noting_told
        await rig.run(keys(1), 1)
        assert seen == ["commit", "tell"]

    async def test_a_burst_is_shown_in_lots_and_others_have_their_turn(self):
        rig, lots, turns = Rig(), [], []
        told = rig.observer.told

        def noting_told(transitions):
            assert len(turns) == len(lots), (
                "somebody else had a turn since the last lot"
            )
            asyncio.get_running_loop().call_soon(turns.append, None)
            lots.append(len(transitions))
            told(transitions)

        rig.observer.told = noting_told
        await rig.run(keys(100), 0.5)
        assert sum(lots) == 100
        assert max(lots) <= SHOWN_AT_ONCE

    async def test_a_commit_that_failed_and_yet_happened_is_told(self):
        rig = Rig()
        commit = rig.store.commit

        async def failing_late(steps, fence):
            await commit(steps, fence)
            rig.store.commit = known
            raise StoreError("the last fsync failed")

        async def known(*_):
            return []

        rig.store.commit = failing_late
        await rig.run(keys(1), 1)
        assert len(rig.observer.transitions) == 1

    async def test_one_commit_a_tick(self):
        rig = Rig(interval=0.01)
        await rig.run(keys(50), 0.5)
        at = [when for when, _ in rig.store.commits]
        assert len(at) <= 7
        assert len(rig.told()) == 50

    async def test_looks_without_news_are_saved_together_now_and_then(self):
        rig = Rig(interval=1.0)
        await rig.run(keys(1), 60)
        assert 60 / SAVE_EVERY - 2 <= len(rig.store.commits) <= 60 / SAVE_EVERY + 2
        last = rig.store.commits[-1][1][0].record
        assert last.last_success_at > START + 58

    async def test_what_is_known_at_the_end_is_committed(self):
        rig = Rig()
        await rig.run(keys(1), 0.02)
        assert rig.told() == ["job.first_seen"]


class TestStoreFailing:
    async def test_nothing_is_announced_or_lost_or_told_twice(self, lines):
        words = iter(["PROCESSING", "FAILED", "PROCESSING"])
        last = ["PROCESSING"]

        def answer(job_id, _):
            last[0] = next(words, last[0])
            return snapshot(job_id, tasks={"t1": last[0]})

        rig = Rig(api=FakeApi(answer), interval=2.0)
        rig.store.broken = True
        key = keys(1)[0]

        async def mend():
            assert rig.observer.transitions == []
            assert rig.board.records[key].job is None
            rig.store.broken = False

        await rig.run([key], 40, (20, mend))
        assert rig.told() == ["job.first_seen", "task.transition", "task.transition"]
        assert len(rig.api.asked) >= 15, "it goes on asking"
        assert len(events(lines, "store.failing")) == 1
        assert len(events(lines, "store.recovered")) == 1

    async def test_with_too_much_pending_it_stops_asking(self):
        rig = Rig(interval=1.0)
        rig.store.broken = True
        await rig.run(keys(MOST_PENDING + 5000), 30)
        assert MOST_PENDING <= len(rig.api.asked) < MOST_PENDING + 2500


class TestSlowStore:
    """Commits take their time; what is asked does not wait for them."""

    @staticmethod
    def busy(job_id, now):
        """Change a tenth of the jobs from one look to the next."""
        turn = int(now // 10) % 10 == int(job_id.removeprefix("job-")) % 10
        return snapshot(job_id, tasks={"t1": "FAILED" if turn else "PROCESSING"})

    async def test_a_store_that_takes_a_second_delays_no_look(self):
        rig = Rig(api=FakeApi(self.busy), store=FakeStore(seconds=1.0), rate=20)
        await rig.run(keys(100), 125)
        looks = [at for at in rig.api.times() if at >= 5]
        assert len(looks) >= 0.98 * 100 * 12
        lags = sorted(lag for _, _, lag, _ in rig.observer.polls[100:])
        assert lags[len(lags) // 2] <= 0.2
        assert min(rig.observer.commits) == pytest.approx(1.0)

    async def test_a_commit_that_hangs_delays_no_look_and_is_told_after(self):
        rig = Rig(api=FakeApi(self.busy))
        ages = []

        async def hang():
            rig.store.seconds = 15.0

        async def go_on():
            ages.append(rig.committer.commit_age(anyio.current_time()))
            assert anyio.current_time() - rig.poller.turned_at <= 1.0
            rig.store.seconds = 0.001

        await rig.run(keys(100), 100, (9, hang), (24, go_on))
        assert 13 <= ages[0] <= 15
        assert len(rig.api.times()) >= 990
        told = [event.transition for event in rig.store.journal]
        assert len({each.event_id for each in told}) == len(told)
        assert rig.observer.transitions == told
        for key in keys(100):
            steps = [
                (each.fields["from"], each.fields["to"])
                for each in told
                if each.key == key and each.event == "task.transition"
            ]
            assert all(a[1] == b[0] for a, b in itertools.pairwise(steps))
        assert rig.committer.pending == 0

    async def test_what_comes_while_a_commit_fails_keeps_its_order(self):
        rig = Rig(api=FakeApi(self.busy), store=FakeStore(seconds=3.0))
        rig.store.broken = True

        async def mend():
            rig.store.broken = False

        await rig.run(keys(30), 100, (50, mend))
        told = [event.transition for event in rig.store.journal]
        assert len({each.event_id for each in told}) == len(told)
        assert rig.observer.transitions == told
        assert told[0].event == "job.first_seen"

    async def test_a_job_that_is_dropped_while_it_is_committed_is_not_shown(self):
        rig = Rig(store=FakeStore(seconds=5.0))

        async def drop():
            await rig.unwatch(keys(1))

        await rig.run(keys(2), 20, (2, drop))
        assert set(rig.board.records) == {keys(2)[1]}

    async def test_a_job_that_is_dropped_while_its_look_is_saved_is_not_written_back(
        self,
    ):
        rig = Rig(interval=1.0)

        async def fail_slowly():
            rig.store.seconds, rig.store.broken = 3.0, True

        async def drop():
            rig.store.broken = False
            await rig.unwatch(keys(1))
            rig.store.broken = True

        async def mend():
            rig.store.broken = False
            rig.store.commits.clear()

        await rig.run(keys(2), 30, (4, fail_slowly), (6, drop), (12, mend))
        written = {s.record.key for _, steps in rig.store.commits for s in steps}
        assert written == {keys(2)[1]}

    async def test_jobs_of_a_commit_under_way_are_not_retired(self):
        done = FakeApi(lambda j, _: snapshot(j, "FINISHED", {"t1": "SUCCESS"}))
        rig = Rig(api=done, store=FakeStore(seconds=5.0))

        async def retire():
            rig.committer.retire(lambda _: True)
            assert set(rig.board.records) == set(keys(2))

        await rig.run(keys(2), 20, (2, retire))
        assert {r.phase for r in rig.board.records.values()} == {Phase.SUCCEEDED}


class TestFailures:
    async def test_a_failing_target_is_asked_less_and_less_by_one_probe(self, lines):
        rig = Rig(api=FakeApi(lambda *_: Unreachable("no answer")))
        await rig.run(keys(50), 600)
        assert max(asked_at_once(rig.api.times()[50:])) == 1
        assert len(rig.api.asked) <= 62
        assert len(events(lines, "poll.failing")) == 1
        assert events(lines, "poll.failing")[0]["jobs"] == 50
        assert {failure for *_, failure in rig.observer.polls} == {"unreachable"}

    async def test_after_an_outage_all_is_asked_within_an_interval(self, lines):
        def answer(job_id, now):
            if 20 < now < 1000:
                return ServerError("down", status_code=502)
            return snapshot(job_id, tasks={"t1": "SUCCESS"} if now > 20 else None)

        rig = Rig(api=FakeApi(answer))
        await rig.run(keys(10), 1400)
        back = min(at for at in rig.api.times() if at >= 1000)
        assert back <= 1000 + 300
        later = [at for at, _ in rig.api.asked if back <= at <= back + 10.5]
        assert len(later) >= 10
        assert rig.told().count("task.transition") == 10
        assert len(events(lines, "poll.failing")) == 1
        assert len(events(lines, "poll.recovered")) == 1

    async def test_one_bad_job_does_not_hold_back_the_others(self):
        def answer(job_id, _):
            return ServerError("bug") if job_id == "job-0" else snapshot(job_id)

        rig = Rig(api=FakeApi(answer))
        await rig.run(keys(10), 600)
        assert len(rig.api.times("job-0")) <= 12
        assert all(len(rig.api.times(key.job_id)) >= 55 for key in keys(10)[1:])

    async def test_retry_after_is_honoured_for_the_whole_target(self):
        def answer(job_id, now):
            if 9 < now < 16:
                return Throttled("slow down", status_code=429, retry_after=120)
            return snapshot(job_id)

        rig = Rig(api=FakeApi(answer))
        await rig.run(keys(20), 200)
        throttled_at = max(at for at in rig.api.times() if at < 17)
        assert min(at for at in rig.api.times() if at > 17) >= throttled_at + 120
        assert len({job for at, job in rig.api.asked if at > 17}) == 20

    async def test_a_throttle_halves_the_rate(self):
        def answer(job_id, now):
            return Throttled("slow") if 10 < now < 10.2 else snapshot(job_id)

        rig = Rig(api=FakeApi(answer), rate=20, interval=1.0)
        await rig.run(keys(60), 100)
        per_second = [
            sum(s <= at < s + 1 for at in rig.api.times()) for s in range(100)
        ]
        assert per_second[5] >= 19
        assert per_second[13] <= 12
        assert per_second[90] >= 19

    async def test_good_answers_of_the_same_volley_do_not_lift_a_throttle(self):
        def answer(job_id, now):
            if now < 1:
                return (
                    Throttled("slow", retry_after=30)
                    if job_id == "job-0"
                    else (snapshot(job_id))
                )
            return snapshot(job_id)

        api = FakeApi(answer, latency=0.5)
        rig = Rig(api=api, interval=0.2)
        await rig.run(keys(5), 40)
        assert not [at for at in api.times() if 0.6 < at < 30]

    async def test_a_rejected_target_is_told_once(self, lines):
        rig = Rig(api=FakeApi(lambda *_: Rejected("bad key", status_code=401)))
        await rig.run(keys(5), 3600)
        (line,) = events(lines, "poll.failing")
        assert (line["reason"], line["status_code"]) == ("rejected", 401)
        assert len(rig.api.asked) <= 27

    async def test_malformed_is_told_once_for_each_job_and_backs_off(self, lines):
        rig = Rig(api=FakeApi(lambda *_: Malformed("not JSON", status_code=200)))
        await rig.run(keys(2), 600)
        assert {line["job_id"] for line in events(lines, "poll.failing")} == {
            "job-0",
            "job-1",
        }
        assert len(events(lines, "poll.failing")) == 2
        assert len(rig.api.times("job-0")) <= 8
        assert rig.poller.attempted

    async def test_a_missing_job_is_confirmed_and_then_left_alone(self, lines):
        rig = Rig(api=FakeApi(lambda *_: JobNotFound("no such job", status_code=400)))
        await rig.run(keys(1), 3600)
        assert 30 <= rig.api.times()[-1] <= 41
        assert rig.told() == ["job.finished"]
        assert rig.board.records[keys(1)[0]].phase is Phase.GONE
        assert len(events(lines, "poll.failing")) == 1

    async def test_an_unexpected_error_ends_the_run(self):
        class BugError(Exception):
            pass

        def answer(*_):
            raise BugError

        with pytest.RaisesGroup(BugError, flatten_subgroups=True):
            await Rig(api=FakeApi(answer)).run(keys(1), 10)


class TestWatched:
    async def test_known_records_go_on_from_the_store(self):
        first = Rig()
        await first.run(keys(1), 1)
        record = first.board.records[keys(1)[0]]
        done = JobRecord(keys(2)[1], phase=Phase.SUCCEEDED, finished_at=START)
        rig = Rig(store=FakeStore({record.key: record, done.key: done}))
        await rig.run(keys(2), 25)
        assert rig.told() == []
        assert {job for _, job in rig.api.asked} == {"job-0"}

    async def test_watching_twice_changes_nothing(self):
        rig = Rig()

        async def again():
            await rig.watch(keys(3))

        await rig.run(keys(3), 25, (5, again), (6, again))
        assert len(rig.api.asked) == 9

    async def test_unwatched_jobs_are_dropped_even_while_asked(self):
        rig = Rig(api=FakeApi(latency=5.0))

        async def drop():
            await rig.unwatch(keys(1))

        await rig.run(keys(2), 60, (2, drop))
        assert rig.api.times("job-0") == [0.0]
        assert set(rig.board.records) == {JobKey("prod", "job-1")}
        assert rig.store.forgotten == keys(1)
        assert set(rig.board.records) == rig.board.watched == {keys(2)[1]}

    async def test_what_the_store_could_not_forget_it_forgets_with_the_next(self):
        rig = Rig()

        async def fail():
            rig.store.broken = True
            with pytest.raises(StoreError):
                await rig.unwatch(keys(2))
            await rig.watch(keys(1))

        async def mend():
            rig.store.broken = False
            await rig.unwatch([])

        await rig.run(keys(3), 30, (2, fail), (20, mend))
        assert rig.store.forgotten == [keys(2)[1]], "the other is watched again"
        assert rig.board.watched == {keys(3)[0], keys(3)[2]}

    async def test_attempted_once_the_first_round_is_over(self):
        rig = Rig()
        seen = []

        async def look():
            seen.append(rig.poller.attempted)

        rig.api.latency = 5.0
        await rig.run(keys(2), 12, (4, look), (6, look))
        assert seen == [False, True]

    async def test_jobs_held_back_by_their_target_count_as_attempted(self):
        rig = Rig(api=FakeApi(lambda *_: Throttled("slow", retry_after=600)))
        seen = []

        async def look():
            seen.append(rig.poller.attempted)

        await rig.run(keys(9), 5, (1, look))
        assert seen == [True]

    async def test_retired_jobs_stay_watched_and_known(self):
        rig = Rig(api=FakeApi(lambda j, _: snapshot(j, "FINISHED", {"t1": "SUCCESS"})))
        await rig.run(keys(2), 15)
        rig.committer.retire(lambda record: record.key == keys(1)[0])
        assert set(rig.board.records) == {keys(2)[1]}
        assert rig.board.watched == set(keys(2))
        assert rig.board.phases == [Phase.SUCCEEDED] * 2
        assert rig.store.forgotten == []
        await rig.run(keys(2), 40)
        assert len(rig.api.asked) == 2


async def test_the_loop_turns_while_nothing_is_due():
    rig = Rig(interval=3600.0)
    ages = []

    async def look():
        ages.append(anyio.current_time() - rig.poller.turned_at)

    await rig.run(keys(1), 500, *((at, look) for at in range(100, 400, 7)))
    assert max(ages) <= 1.0


async def test_an_idle_loop_turns_rarely():
    rig = Rig()
    turns = 0

    def counting(_):
        nonlocal turns
        turns += 1

    rig.poller._turned = counting
    await rig.run(keys(1), 100)
    assert turns < 100 + 4 * 10 + 5


class TestListing:
    """Ten or more jobs of a project, and a list call."""

    def rig(self, cloud, **more):
        api = FakeApi(cloud.answer)
        api.page = cloud.page
        return Rig(api=api, mode=more.pop("mode", Mode.LIST), **more)

    async def test_few_calls_and_every_end_within_an_interval(self):
        cloud = Cloud({f"job-{n}": 50 + 7 * n for n in range(20)})
        rig = self.rig(cloud, task_interval=600.0)
        await rig.run(keys(20), 300)
        assert len(rig.api.asked) <= 20 * 3
        assert len(rig.api.listed) <= 31
        for key in keys(20):
            seen = rig.board.records[key].finished_at - START
            assert 0 <= seen - cloud.ends[key.job_id] <= 10.5
        assert rig.told().count("job.finished") == 20

    async def test_single_tasks_are_seen_within_the_task_interval(self):
        cloud = Cloud({f"job-{n}": 500 for n in range(20)}, task_ends=100)
        rig = self.rig(cloud, task_interval=30.0)
        await rig.run(keys(20), 140)
        seen = [
            when
            for when, steps in rig.store.commits
            for step in steps
            for told in step.transitions
            if told.event == "task.transition"
        ]
        assert len(seen) == 20
        assert max(seen) <= 131

    async def test_a_target_removed_while_its_list_is_on_its_way(self):
        cloud = Cloud({f"job-{n}": 500 for n in range(3)})
        rig = self.rig(cloud)
        rig.api.latency = 2.0

        async def remove():
            del rig.targets["prod"]
            await rig.unwatch(keys(3))

        await rig.run(keys(3), 15, (1, remove))
        assert not rig.board.watched

    async def test_auto_chooses_by_arithmetic_and_says_so_once(self, lines):
        cloud = Cloud({f"job-{n}": 5000 for n in range(20)})
        rig = self.rig(cloud, mode=Mode.AUTO)
        await rig.run(keys(20), 200)
        (line,) = events(lines, "poll.mode")
        assert (line["mode"], line["reason"]) == ("list", "1 pages for 20 jobs")
        few = self.rig(cloud, mode=Mode.AUTO)
        await few.run(keys(3), 200)
        assert few.api.listed == []

    @pytest.mark.parametrize("how", ["refused", "ignored", "silent"])
    async def test_falls_back_and_loses_nothing(self, how):
        cloud = Cloud({f"job-{n}": 100 + n for n in range(40)}, paging=how)
        rig = self.rig(cloud)
        await rig.run(keys(40), 200)
        assert rig.told().count("job.finished") == 40
        for key in keys(40):
            seen = rig.board.records[key].finished_at - START
            assert seen - cloud.ends[key.job_id] <= 10.5
        assert len(rig.api.listed) <= 4
        assert Phase.GONE not in {r.phase for r in rig.board.records.values()}

    async def test_from_the_list_back_to_detail_within_an_interval(self, lines):
        cloud = Cloud({f"job-{n}": 5000 for n in range(20)}, breaks_at=100)
        rig = self.rig(cloud, task_interval=600.0)
        await rig.run(keys(20), 300)
        assert [line["mode"] for line in events(lines, "poll.mode")] == [
            "list",
            "detail",
        ]
        late = [at for at in rig.api.times() if at > 200]
        assert len(late) >= 20 * 9

    async def test_pages_keep_to_the_ceiling_too(self):
        cloud = Cloud({f"job-{n}": 5000 for n in range(300)}, size=10)
        rig = self.rig(cloud, rate=20)
        await rig.run(keys(300), 60)
        times = sorted([*rig.api.times(), *(at for at, *_ in rig.api.listed)])
        assert max(sum(t <= at < t + 1 for at in times) for t in times) <= 23
        assert len(rig.api.listed) >= 30

    async def test_a_throttled_list_waits(self):
        cloud = Cloud({f"job-{n}": 5000 for n in range(20)})
        rig = self.rig(cloud)
        rig.api.page = lambda *_: Throttled("slow", retry_after=50)
        await rig.run(keys(20), 45)
        assert len(rig.api.listed) == 1

    async def test_a_gone_job_that_is_listed_again_is_watched_again(self):
        cloud = Cloud({f"job-{n}": 5000 for n in range(20)})

        def answer(job_id, now):
            if job_id == "job-0" and now < 200:
                return JobNotFound("none", status_code=400)
            return cloud.answer(job_id, now)

        rig = self.rig(cloud)
        rig.api.answer = answer
        cloud.hidden = {"job-0"}

        async def show():
            assert rig.board.records[keys(1)[0]].phase is Phase.GONE
            cloud.hidden = set()

        await rig.run(keys(20), 260, (200, show))
        assert rig.board.records[keys(1)[0]].phase is Phase.ACTIVE

    async def test_discovery_finds_what_is_listed(self):
        cloud = Cloud({f"job-{n}": 5000 for n in range(3)})
        rig = self.rig(cloud, mode=Mode.DETAIL, discover={"status": "PROCESSING"})
        await rig.run([], 5)
        assert set(rig.targets["prod"].discovered) == set(keys(3))
        assert rig.api.asked == []


class Cloud:
    """Jobs that run until their end, with a list call."""

    def __init__(
        self, ends, *, size=1000, paging="honoured", task_ends=1e9, breaks_at=1e9
    ):
        self.ends, self.size, self.paging = ends, size, paging
        self.task_ends, self.breaks_at = task_ends, breaks_at
        self.hidden = set()

    def answer(self, job_id, now):
        over = now >= self.ends[job_id]
        done = over or now >= self.task_ends
        return snapshot(
            job_id,
            "FINISHED" if over else "PROCESSING",
            {"t1": "SUCCESS" if done else "PROCESSING"},
        )

    def page(self, limit, offset, now):
        if self.paging == "refused" or now >= self.breaks_at:
            return Rejected("no such parameter", status_code=400)
        rows = [
            Job(each, "PROCESSING", None)
            for each, end in self.ends.items()
            if now < end and each not in self.hidden
        ]
        if self.paging == "silent":
            return ListPage((), 0)
        if self.paging == "ignored":
            return ListPage(tuple(rows[:10]), len(rows))
        return ListPage(tuple(rows[offset : offset + min(limit, self.size)]), len(rows))
