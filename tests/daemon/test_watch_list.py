"""What is watched follows what the sources say, what was added and what is found."""

import pytest
import structlog

from tests.fakes import START, FakeApi, FakeObserver, FakeStore, keys
from watcher.core.listing import Mode
from watcher.core.model import Job, JobRecord, ListPage, Phase
from watcher.daemon.watch_list import LEAST_UNSEEN, WatchList
from watcher.polling.board import Board
from watcher.polling.committer import Committer
from watcher.polling.release import release
from watcher.polling.target import Manner, PageLook, Target
from watcher.ports import Reading

A, B, C = keys(3)


class Source:
    def __init__(self, *jobs):
        self.keys = jobs
        self.problems = ()

    async def read(self):
        return Reading(self.keys, self.problems)


class House:
    """A watch list over a board, one target and a store."""

    def __init__(self, store=None, **manner):
        self.now = START
        self.store = store or FakeStore()
        self.target = Target("prod", FakeApi(), Manner(**manner))
        self.targets = {"prod": self.target}
        self.board = Board()
        self.served = set()
        self.woken = 0
        committer = Committer(
            self.board, self.store, FakeObserver(), wall=lambda: self.now
        )
        self.list = WatchList(
            self.targets,
            self.board,
            committer,
            self.store,
            self.store.known,
            wake=self.wake,
            served=self.served.__contains__,
            wall=lambda: self.now,
        )

    def wake(self):
        self.woken += 1

    async def give(self, *jobs, retention=60.0):
        await self.list.change([Source(*jobs)], retention)

    def find(self, *jobs, status="PROCESSING"):
        """Let the list call find jobs."""
        self.now += 1000.0
        requests = [request for _, request in release([self.target], self.now)]
        asked = next(each for each in requests if isinstance(each, PageLook))
        rows = tuple(Job(key.job_id, status) for key in jobs)
        page = ListPage(rows, len(rows))
        records = self.board.records
        list(self.target.take_page(asked, page, records, self.now, 0.0))


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_sources_are_watched_in_their_order():
    house = House()
    await house.give(C, A, B)
    assert list(house.board.records) == [C, A, B]
    assert [request.key for _, request in release([house.target], 1e9)] == [C, A, B]
    assert house.woken == 1
    assert house.list.looked


async def test_what_they_no_longer_say_is_forgotten(lines):
    house = House()
    await house.give(A, B)
    await house.give(B, C)
    assert set(house.board.records) == {B, C}
    assert house.store.forgotten == [A]
    (line,) = [line for line in lines if line["event"] == "jobs.changed"]
    assert (line["added"], line["removed"]) == (1, 1)
    assert (line["added_jobs"], line["removed_jobs"]) == (
        ["prod/job-2"],
        ["prod/job-0"],
    )


async def test_added_jobs_stay_over_lives():
    house = House()
    await house.give()
    assert await house.list.add(A)
    assert not await house.list.add(A)
    again = House(house.store)
    await again.list.load()
    await again.give(B)
    assert set(again.board.records) == {A, B}


async def test_what_was_added_in_earlier_lives_outlives_an_early_addition():
    house = House()
    house.store.kept = {A}
    await house.list.load()
    assert await house.list.add(B)
    await house.give()
    assert house.store.kept == {A, B}
    assert set(house.board.records) == {A, B}


async def test_added_jobs_wait_for_their_target_to_return():
    house = House()
    await house.give()
    await house.list.add(A)
    del house.targets["prod"]
    await house.list.look()
    assert set(house.board.records) == set()
    house.targets["prod"] = house.target
    await house.list.look()
    assert set(house.board.records) == {A}


async def test_removing():
    house = House(mode=Mode.DETAIL, discover={})
    await house.give(A)
    await house.list.add(B)
    assert await house.list.remove(B)
    assert not await house.list.remove(B)
    with pytest.raises(ValueError, match="configuration"):
        await house.list.remove(A)
    house.find(C)
    await house.list.look()
    with pytest.raises(ValueError, match="discovered"):
        await house.list.remove(C)
    assert house.store.kept == {C}
    with pytest.raises(KeyError):
        await house.list.add(keys(1, "nowhere")[0])


async def test_what_was_found_is_watched_to_its_end():
    house = House(mode=Mode.DETAIL, discover={})
    await house.give()
    house.find(A, B)
    await house.list.look()
    house.find(B)
    await house.list.look()
    assert set(house.board.records) == {A, B}


async def test_what_was_found_leaves_with_its_retirement():
    house = House(mode=Mode.DETAIL, discover={})
    await house.give()
    house.find(A)
    await house.list.look()
    house.board.show([JobRecord(A, phase=Phase.SUCCEEDED, finished_at=START)])
    house.target.forget(A)
    house.find()
    house.served.add(A)
    house.now += 60
    for _ in range(2):
        await house.list.look()
    assert house.board.watched == set()
    assert house.store.kept == set()


@pytest.mark.parametrize(
    ("age", "served", "shown"),
    [
        (59, True, True),
        (60, True, False),
        (60, False, True),
        (LEAST_UNSEEN - 1, False, True),
        (LEAST_UNSEEN, False, False),
    ],
)
async def test_finished_jobs_leave_when_old_and_seen(age, served, shown):
    house = House()
    await house.give(A)
    house.board.show([JobRecord(A, phase=Phase.FAILED, finished_at=START)])
    house.target.forget(A)
    if served:
        house.served.add(A)
    house.now += age
    await house.list.look()
    assert (A in house.board.records) is shown
    assert A in house.board.watched


async def test_a_finished_job_that_is_said_to_run_again_stays_until_it_was_asked():
    house = House(mode=Mode.DETAIL, discover={})
    await house.give(A)
    done = JobRecord(A, phase=Phase.GONE, finished_at=START)
    house.board.show([done])
    house.target.forget(A)
    house.served.add(A)
    house.find(A)
    assert house.target.asks(A)
    house.now += 60
    await house.list.look()
    assert A in house.board.records
    house.find(A)


@pytest.mark.parametrize(
    ("status", "back"), [("PROCESSING", True), ("FINISHED", False)]
)
async def test_a_job_that_left_comes_back_where_it_is_listed_as_running(status, back):
    house = House(mode=Mode.DETAIL, discover={})
    await house.give(A)
    house.board.show([JobRecord(A, phase=Phase.SUCCEEDED, finished_at=START)])
    house.target.forget(A)
    house.board.retire([A])
    house.find(A, status=status)
    await house.list.look()
    assert (A in house.board.records) is back
    assert A in house.board.watched


async def test_a_store_that_fails_loses_nothing(lines):
    house = House()
    await house.give(A, B)
    house.store.broken = True
    await house.give(B)
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == [
        "jobs.not_kept"
    ]
    house.store.broken = False
    await house.list.look()
    assert house.store.forgotten == [A]


async def test_what_was_taken_away_while_nothing_ran_is_forgotten():
    house = House(FakeStore({key: JobRecord(key) for key in (A, B)}))
    await house.list.load()
    await house.give(B)
    await house.list.look()
    assert house.store.forgotten == [], "it may stand in a file that is being written"
    await house.list.look()
    assert house.store.forgotten == [A]


async def test_not_while_a_source_cannot_be_read():
    house, source = House(FakeStore({key: JobRecord(key) for key in (A, B)})), Source(B)
    source.problems = ("a.txt",)
    await house.list.load()
    await house.list.change([source], 60.0)
    for _ in range(3):
        await house.list.look()
    assert house.store.forgotten == []
    source.problems, source.keys = (), (A,)
    await house.list.look()
    assert set(house.store.forgotten) == {B}


async def test_a_target_removed_while_its_jobs_are_loaded():
    house = House()
    load = house.store.load

    async def slow(wanted):
        del house.targets["prod"]
        return await load(wanted)

    house.store.load = slow
    await house.give(A)
    house.store.load = load
    assert house.target.running == 0
    await house.list.look()
    assert house.board.watched == set()


async def test_complete_once_all_sources_are_read_and_watched():
    house, source = House(), Source(A)
    assert not house.list.complete
    source.problems = ("a.txt:3",)
    await house.list.change([source], 60.0)
    assert not house.list.complete
    source.problems = ()
    house.store.broken = True
    source.keys = (B,)
    await house.list.look()
    assert not house.list.complete
    house.store.broken = False
    await house.list.look()
    assert house.list.complete


async def test_another_project_while_the_store_takes_nothing():
    house = House()
    await house.give(A)
    house.target.api.project_id = "q"
    house.store.broken = True
    await house.give(A)
    house.store.broken = False
    await house.list.look()
    assert house.board.records[A].project_id == "q"


async def test_problems_are_told_once(lines):
    house, source = House(), Source(A)
    source.problems = ("a.txt:3",)
    await house.list.change([source], 60.0)
    await house.list.look()
    told = [line["problem"] for line in lines if line["event"] == "jobs.unreadable"]
    assert told == ["a.txt:3"]
