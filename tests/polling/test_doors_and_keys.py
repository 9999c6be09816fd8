"""What a target does besides asking: another door, another clock, a name of its own."""

import itertools

import anyio
import pytest
import structlog

from tests.fakes import START, FakeApi, keys, snapshot
from tests.polling.test_poller import Cloud, Rig, events
from watcher.core.errors import Rejected, ServerError
from watcher.core.listing import Mode
from watcher.core.model import Job, ListPage

pytestmark = [pytest.mark.looptime]


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


class TestReopened:
    async def test_what_was_held_back_is_asked_at_once(self):
        rig = Rig(api=FakeApi(lambda *_: Rejected("held back", retry_after=300.0)))
        target, second = rig.targets["prod"], FakeApi()

        async def reopen():
            target.reopen(second, anyio.current_time())

        await rig.run(keys(20), 140, (100, reopen))
        assert {job for at, job in second.asked if at < 101} == {
            key.job_id for key in keys(20)
        }
        assert target.has_room

    async def test_a_failure_of_the_earlier_door_does_not_close_the_new_one(self):
        rig = Rig(api=FakeApi(lambda *_: ServerError("down"), latency=5.0))
        target, second = rig.targets["prod"], FakeApi()

        async def reopen():
            target.reopen(second, anyio.current_time())

        await rig.run(keys(1), 30, (2, reopen))
        assert second.times()[0] == pytest.approx(5.0, abs=0.2)
        assert target.has_room
        assert rig.observer.polls[0][3] is None

    async def test_a_failure_not_yet_taken_in_does_not_put_off_a_job(self):
        late = Rejected("held back", retry_after=300.0)
        rig = Rig(api=FakeApi(lambda *_: late, latency=0.05))
        target, second = rig.targets["prod"], FakeApi()

        async def reopen():
            target.reopen(second, anyio.current_time())

        # Between the answer and the tick that takes it in, and at moments around it.
        for moment in (0.01, 0.04, 0.06, 0.08, 0.1, 0.12, 0.3):
            target.reopen(rig.api, 0.0)
            second.asked.clear()
            begins = anyio.current_time()
            await rig.unwatch(keys(1))
            await rig.run(keys(1), begins + 15, (begins + moment, reopen))
            assert second.times()
            assert second.times()[0] < begins + moment + 1.2, moment

    async def test_discovery_resumes_at_once(self):
        rig = Rig(discover={"status": "PROCESSING"}, interval=10.0)
        rig.api.page = lambda *_: Rejected("held back", status_code=401)
        target, second = rig.targets["prod"], FakeApi()
        second.page = lambda *_: ListPage((Job("job-0", "PROCESSING"),), 1)

        async def reopen():
            target.reopen(second, anyio.current_time())

        await rig.run([], 1010, (1000, reopen))
        assert 1000 <= second.listed[0][0] < 1001.1
        assert set(target.discovered) == set(keys(1))

    async def test_a_page_of_the_earlier_list_is_not_taken_in(self):
        rig = Rig(api=FakeApi(latency=3.0), discover={"status": "PROCESSING"})
        rig.api.page = lambda *_: ListPage((Job("stranger", "PROCESSING"),), 1)
        target, second = rig.targets["prod"], FakeApi()
        second.page = lambda *_: ListPage((), 0)

        async def reopen():
            target.reopen(second, anyio.current_time())

        await rig.run([], 20, (1, reopen))
        assert second.listed
        assert not target.discovered

    async def test_a_job_that_is_watched_no_more_is_not_asked_there(self):
        rig = Rig(api=FakeApi(lambda *_: ServerError("down"), latency=5.0))
        target, second = rig.targets["prod"], FakeApi()

        async def reopen():
            target.reopen(second, anyio.current_time())
            await rig.unwatch(keys(1))

        await rig.run(keys(1), 30, (2, reopen))
        assert second.asked == []


async def test_a_wrong_clock_is_told_on_the_edges(lines):
    rig = Rig(interval=1.0)
    skews = iter([0.0] * 3 + [50.0, 61.0, 59.0, 61.0, 1200.0, 31.0, 29.0, 40.0, -61.0])

    def answer(job_id, _):
        rig.api.clock_skew = next(skews, -61.0)
        return snapshot(job_id)

    rig.api.answer = answer
    await rig.run(keys(1), 20)
    told = [
        (line["event"], line["log_level"], line["target"], line["skew_seconds"])
        for line in lines
        if line["event"].startswith("clock.")
    ]
    assert told == [
        ("clock.skewed", "warning", "prod", 61.0),
        ("clock.agreed", "info", "prod", 29.0),
        ("clock.skewed", "warning", "prod", -61.0),
    ]


async def test_a_project_that_is_looked_up_is_named_in_every_event():
    api = FakeApi()
    api.project_id = None

    def answer(job_id, _):
        api.project_id = "found"
        return snapshot(job_id)

    api.answer = answer
    rig = Rig(api=api)
    await rig.run(keys(2), 12)
    told = [event.transition.fields["project_id"] for event in rig.store.journal]
    assert told == ["found", "found"]


async def test_a_job_that_the_list_shows_as_changed_is_asked_at_once():
    ends = {f"job-{n}": 10_000 for n in range(19)} | {"job-19": 205}
    rig = Rig(api=FakeApi(), mode=Mode.LIST, task_interval=6000.0)
    cloud = Cloud(ends)
    rig.api.answer, rig.api.page = cloud.answer, cloud.page
    await rig.run(keys(20), 250)
    shown = min(at for at, *_ in rig.api.listed if at >= 205)
    asked = min(at for at in rig.api.times("job-19") if at >= 205)
    assert 0 < asked - shown < 0.15


async def test_the_last_few_jobs_of_a_list_are_asked_every_interval(lines):
    ends = {f"job-{n}": 50 for n in range(18)} | {"job-18": 205, "job-19": 305}
    rig = Rig(api=FakeApi(), mode=Mode.AUTO, task_interval=600.0)
    cloud = Cloud(ends)
    rig.api.answer, rig.api.page = cloud.answer, cloud.page
    await rig.run(keys(20), 400)
    assert [line["mode"] for line in events(lines, "poll.mode")] == ["list", "detail"]
    for key in keys(20):
        seen = rig.board.records[key].finished_at - START
        assert 0 <= seen - ends[key.job_id] <= 10.5


class Shared(FakeApi):
    """A door whose key lets three go at once, in the name of an account."""

    account, key_limit = "AK", 3


class TestSharedKey:
    async def test_no_more_go_at_once_than_the_key_allows(self):
        apis = {name: Shared(latency=2.0) for name in ("a", "b", "c")}
        rig = Rig(apis=apis, interval=1.0, in_flight=16)
        most = 0

        async def look():
            nonlocal most
            while True:
                most = max(most, sum(api.in_flight for api in apis.values()))
                await anyio.sleep(0.01)

        with anyio.move_on_after(60):
            await rig.run([k for n in apis for k in keys(20, n)], 100, (0, look))
        assert most == 3
        counts = [len(api.asked) for api in apis.values()]
        assert sum(counts) >= 0.9 * 3 / 2.0 * 60
        assert max(counts) - min(counts) <= 2, "each gets its share"

    async def test_a_slow_target_leaves_a_place_to_the_others(self):
        apis = {"slow": Shared(latency=9.0), "prod": Shared(latency=0.1)}
        rig = Rig(apis=apis)
        await rig.run([*keys(50, "slow"), *keys(20, "prod")], 100)
        assert apis["slow"].most_in_flight == 2
        assert len(apis["prod"].asked) >= 0.95 * 20 * 100 / 10
        lags = [lag for name, _, lag, _ in rig.observer.polls if name == "prod"]
        assert max(lags[20:]) < 1

    async def test_a_key_of_ones_own_is_used_in_full(self):
        apis = {"slow": Shared(latency=9.0), "prod": Shared(latency=9.0)}
        apis["prod"].account = "another"
        rig = Rig(apis=apis)
        await rig.run([*keys(50, "slow"), *keys(20, "prod")], 100)
        assert {api.most_in_flight for api in apis.values()} == {3}

    async def test_an_account_that_is_not_known_yet_is_nobody_elses(self):
        apis = {"dead": Shared(latency=60.0), "prod": Shared(latency=0.1)}
        for api in apis.values():
            api.account, api.key_limit = None, 1
        rig = Rig(apis=apis)
        await rig.run([*keys(5, "dead"), *keys(5, "prod")], 50)
        assert len(apis["prod"].asked) >= 20
        assert apis["dead"].most_in_flight == 1

    async def test_free_places_are_taken_at_once_where_nothing_else_is_on_its_way(self):
        rig = Rig(api=Shared(), rate=1000.0, interval=1.0)
        latencies = itertools.cycle([0.012, 0.014, 0.016])

        def answer(job_id, _):
            rig.api.latency = next(latencies)
            return snapshot(job_id)

        rig.api.answer = answer
        await rig.run(keys(1000), 30)
        assert len(rig.api.asked) >= 0.95 * 3 / 0.016 * 30

    async def test_free_places_wait_no_tick_where_the_key_is_full(self):
        api = Shared(latency=0.2)
        api.key_limit = 5
        rig = Rig(api=api, rate=20.0, interval=10.0)
        await rig.run(keys(1000), 60)
        assert len(api.asked) >= 20 * 60 - 5, "as fast as the rate allows"

    async def test_places_that_become_free_together_are_taken_together(self):
        latencies = itertools.cycle(0.1 + n / 1009 for n in range(31))

        class Uneven(Shared):
            async def fetch(self, job_id, *more):
                self.latency = next(latencies)
                return await super().fetch(job_id, *more)

        turns, rig = [], Rig(api=Uneven(), rate=1000.0, interval=1.0)
        rig.api.key_limit, rig.poller._turned = 64, turns.append
        await rig.run(keys(2000), 10)
        assert len(rig.api.asked) > 10 * len(turns)
