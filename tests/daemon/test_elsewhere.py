"""Any replica shows what all watch, and whose it is."""

import json
import subprocess
import sys

import anyio
import pytest

from tests.daemon.replicas import House, unreachable, wall
from tests.daemon.test_replicas import spread
from watcher.core.model import JobKey
from watcher.daemon.elsewhere import ALL_EVERY
from watcher.pages.api import JobPage, JobsPage, Rows, StreamPage
from watcher.ports import Request

pytestmark = [pytest.mark.looptime]


def rows_of(replica):
    rooms = replica.rooms
    return Rows(rooms.shown, lambda _: None, wall, rooms.replica_of)


async def body(response):
    chunks = response.body
    if hasattr(chunks, "__aiter__"):
        return b"".join([chunk async for chunk in chunks])
    return b"".join(chunks)


async def listed(page):
    answer = json.loads(await body(await page.respond(Request("/api/v1/jobs"))))
    assert answer["total"] == len(answer["jobs"])
    return {(job["target"], job["job_id"]): job for job in answer["jobs"]}


def all_of(house):
    return {
        (name, f"{name}-{job}") for name in house.names for job in range(house.jobs)
    }


async def test_each_shows_all_jobs_and_who_watches_them():
    async with House().open() as house:
        for name in "abc":
            house.start(name)
            await anyio.sleep(1.0)
        await spread(house, [1, 1, 2])
        await anyio.sleep(ALL_EVERY + 3.0)
        for replica in house.replicas:
            jobs = await listed(JobsPage(rows_of(replica)))
            assert jobs.keys() == all_of(house)
            units = replica.rooms._holding.units
            assert {job["replica"] for job in jobs.values()} == {"a", "b", "c"}
            for (target, _), job in jobs.items():
                assert job["replica"] == house.table.holder(units[target])
                assert job["phase"] == "active"
            own = {key.target for key in replica.rooms.board.records}
            assert own == replica.rooms._holding.targets()  # the metrics' board


async def test_what_another_finds_is_shown_within_seconds():
    async with House(keys=2, interval=1).open() as house:
        a = house.start("a")
        await anyio.sleep(1.0)
        b = house.start("b")
        await spread(house, [1, 1])
        away = next(n for n in house.names if n not in b.rooms.fleet.targets)
        key = JobKey(away, f"{away}-0")
        await anyio.sleep(ALL_EVERY + 5.0)
        house.cloud.ends = {key: 0.0}
        await house.until(lambda: a.rooms.board.records[key].phase.finished, 3.0)
        shown = b.rooms.shown.records
        await house.until(lambda: shown[key].phase.finished, 3.0)
        page = JobPage(rows_of(b))
        request = Request("", params={"target": away, "job_id": key.job_id})
        job = json.loads(await body(await page.respond(request)))
        assert (job["replica"], job["phase"]) == ("a", "succeeded")
        assert [task["status"] for task in job["tasks"]] == ["SUCCESS"]


@pytest.mark.parametrize("how", ["kill", "end", "cut"])
async def test_jobs_that_change_hands_stay_shown(how):
    async with House(keys=2, targets=4).open() as house:
        a = house.start("a")
        await anyio.sleep(1.0)
        b = house.start("b")
        await spread(house, [1, 1])
        await anyio.sleep(ALL_EVERY + 3.0)
        page, gaps = JobsPage(rows_of(b)), []

        async def look():
            while True:
                if (shown := (await listed(page)).keys()) != all_of(house):
                    gaps.append((anyio.current_time(), shown))
                await anyio.sleep(0.05)

        async with anyio.create_task_group() as looking:
            looking.start_soon(look)
            if how == "kill":
                a.kill()
            elif how == "end":
                await a.end()
            else:
                b.cut_from_store = unreachable
                await anyio.sleep(30.0)
                assert b.rooms.board.records == {}
                b.cut_from_store = None
            await anyio.sleep(3 * ALL_EVERY)
            looking.cancel_scope.cancel()
        assert gaps == []
        jobs = await listed(page)
        assert {job["replica"] for job in jobs.values()} == (
            {"a", "b"} if how == "cut" else {"b"}
        )


async def test_a_new_owner_is_told_to_who_follows_a_third():
    async with House(keys=1, targets=1, jobs=1).open() as house:
        a = house.start("a")
        await anyio.sleep(1.0)
        b, c = house.start("b"), house.start("c")
        await anyio.sleep(ALL_EVERY + 3.0)
        told = {"b": [], "c": []}

        async def follow(replica):
            stream = await StreamPage(rows_of(replica)).respond(Request(""))
            async for chunk in stream.body:
                told[replica.name].extend(
                    json.loads(line.removeprefix(b"data: "))["replica"]
                    for line in chunk.splitlines()
                    if line.startswith(b"data: ") and b'"job_id"' in line
                )

        async with anyio.create_task_group() as following:
            following.start_soon(follow, b)
            following.start_soon(follow, c)
            await anyio.sleep(1.0)
            await a.end()
            await anyio.sleep(5.0)
            following.cancel_scope.cancel()
        owner = "b" if b.held else "c"
        assert told["b"][-1] == told["c"][-1] == owner


async def test_what_was_read_before_a_take_over_does_not_undo_what_came_after():
    async with House(keys=1, targets=1, interval=1).open() as house:
        a = house.start("a")
        await anyio.sleep(1.0)
        b = house.start("b")
        await anyio.sleep(10.0)
        key, shown = JobKey("t0", "t0-0"), b.rooms.shown.records
        load, returned = house.store.load, anyio.Event()

        async def slow(keys):
            house.store.load = load
            found = await load(keys)
            await anyio.sleep(8.0)
            returned.set()
            return found

        house.store.load = slow
        await house.until(lambda: house.store.load is load, ALL_EVERY + 5.0)
        await a.end()
        house.cloud.ends = {key: 0.0}
        await house.until(lambda: key in shown and shown[key].phase.finished, 7.0)
        assert not returned.is_set()
        await returned.wait()
        await anyio.sleep(0.5)
        assert shown[key].phase.finished


async def test_a_store_that_does_not_answer_for_a_while_ends_nothing():
    async with House(keys=1, targets=1, jobs=1, interval=1).open() as house:
        a = house.start("a")
        await anyio.sleep(1.0)
        b = house.start("b")
        await anyio.sleep(10.0)
        b.cut_from_store = unreachable
        key, shown = JobKey("t0", "t0-0"), b.rooms.shown.records
        house.cloud.ends = {key: 0.0}
        await anyio.sleep(2 * ALL_EVERY)
        assert a.rooms.board.records[key].phase.finished
        assert not shown[key].phase.finished
        b.cut_from_store = None
        await house.until(lambda: shown[key].phase.finished, 5.0)


async def test_that_another_is_not_answered_is_shown_in_a_minute_or_two():
    async with House(keys=1, targets=1, jobs=1).open() as house:
        a = house.start("a")
        await anyio.sleep(1.0)
        b = house.start("b")
        await anyio.sleep(ALL_EVERY)
        key, shown = JobKey("t0", "t0-0"), b.rooms.shown.records
        assert shown[key].failure is None
        a.cut_off = True
        await house.until(lambda: shown[key].failure, 2 * ALL_EVERY)
        assert shown[key].failure.reason == "unreachable"


async def test_what_nobody_watches_is_shown_as_nobody_s():
    async with House(keys=1, targets=1).open() as house:
        a = house.start("a")
        await anyio.sleep(10.0)
        a.cut_from_store = unreachable
        await anyio.sleep(30.0)
        assert house.table.leases  # it is named there, but past its lease
        jobs = await listed(JobsPage(rows_of(a)))
        assert jobs.keys() == all_of(house)
        assert {job["replica"] for job in jobs.values()} == {None}
        (unit,) = a.rooms.keeper.shown()["units"]
        assert (unit["state"], unit["replica"]) == ("free", None)


async def test_what_is_watched_no_more_goes():
    """Taken away elsewhere, or while it changed hands, or finished long ago."""
    async with House(keys=2, targets=2).open() as house:
        house.values["finished"] = {"retention": "5m"}
        a = house.start("a")
        await anyio.sleep(1.0)
        b = house.start("b")
        await spread(house, [1, 1])
        away = next(n for n in house.names if n not in b.rooms.fleet.targets)
        gone, ended = JobKey(away, "added"), JobKey(away, f"{away}-0")
        await a.rooms.watch_list.add(gone)
        shown = b.rooms.shown.records
        await house.until(lambda: gone in shown, ALL_EVERY + 10.0)
        house.cloud.ends = {ended: 0.0}
        await a.rooms.watch_list.remove(gone)
        await house.until(lambda: gone not in shown, ALL_EVERY + 10.0)
        await house.until(lambda: shown[ended].phase.finished, 30.0)
        await anyio.sleep(200.0)
        assert ended in shown
        await house.until(lambda: ended not in shown, 200.0)
        # The next owner's settings do not name one that the last one's did.
        stale = JobKey(away, f"{away}-1")
        a.kill()
        house.values["targets"][away]["jobs"] = [f"{away}-2"]
        await b.rooms._put_in_force(b.rooms._origin.load())
        await anyio.sleep(3 * ALL_EVERY + 15.0)
        assert stale not in shown
        assert JobKey(away, f"{away}-2") in shown


async def test_a_target_that_the_settings_name_no_more_is_not_shown():
    async with House(keys=2, targets=2).open() as house:
        a = house.start("a")
        await anyio.sleep(1.0)
        b = house.start("b")
        await spread(house, [1, 1])
        await anyio.sleep(ALL_EVERY + 3.0)
        away = next(n for n in house.names if n not in b.rooms.fleet.targets)
        assert away in {key.target for key in b.rooms.shown.records}
        del house.values["targets"][away]
        a.kill()
        await b.rooms._put_in_force(b.rooms._origin.load())
        await anyio.sleep(ALL_EVERY + 15.0)
        assert away in {key.target for key in await house.store.known()}
        assert {key.target for key in b.rooms.shown.records} == {*house.names} - {away}


def test_nothing_of_it_is_loaded_where_nothing_is_shared():
    code = "import watcher.daemon.app, sys; sys.exit('watcher.daemon.elsewhere' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
