"""Several daemons share the work: each target is one's own, and nothing is told twice."""

from itertools import groupby

import anyio
import pytest
import structlog

from tests.daemon.replicas import LEASE, House, unreachable
from watcher.core.errors import SettingsError
from watcher.core.model import JobKey
from watcher.daemon.keeper import GIVE_BACK_EVERY, MARGIN

pytestmark = [pytest.mark.looptime]


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


async def spread(house, shares, within=3 * GIVE_BACK_EVERY):
    return await house.until(
        lambda: (
            sorted(n for who, n in house.holders.items() if who is not None)
            == sorted(shares)
        ),
        within,
    )


async def test_one_that_is_alone_takes_all_at_once():
    async with House().open() as house:
        one = house.start("a")
        await anyio.sleep(1.0)
        assert len(one.held) == 4
        assert {name for _, _, name, _ in house.cloud.asked} == set(house.names)
        assert one.rooms.poller.attempted


async def test_shares_become_even_and_stay():
    async with House().open() as house:
        for name in "abc":
            house.start(name)
            await anyio.sleep(1.0)
        await spread(house, [1, 1, 2])
        before = dict(house.table.leases)
        epochs = {unit: lease.epoch for unit, lease in before.items()}
        await anyio.sleep(600.0)
        after = {unit: lease.epoch for unit, lease in house.table.leases.items()}
        assert after == epochs


async def test_one_without_a_unit_is_ready_and_takes_up_what_falls_free():
    async with House(keys=1).open() as house:
        first = house.start("a")
        await anyio.sleep(2.0)
        second = house.start("b")
        await anyio.sleep(120.0)
        assert (first.held, second.held) == (first.held, [])
        assert second.rooms.watch_list.looked
        assert second.rooms.poller.attempted
        await first.end()
        assert await house.until(lambda: second.held, 2.0) <= 2.0


@pytest.mark.parametrize("how", ["kill", "end"])
async def test_what_is_left_is_taken_over_in_time(how):
    async with House().open() as house:
        first = house.start("a")
        await anyio.sleep(30.0)
        second = house.start("b")
        await spread(house, [2, 2])
        gone = anyio.current_time()
        if how == "kill":
            first.kill()
            limit = LEASE + 5.0
        else:
            await first.end()
            limit = 2.0
        await house.until(lambda: len(second.held) == 4, limit)
        asked = lambda: {n for at, who, n, _ in house.cloud.asked if who == "b"}  # noqa: E731
        await house.until(lambda: asked() == set(house.names), limit)
        assert anyio.current_time() - gone <= limit


async def test_first_looks_after_a_take_over_are_spread():
    async with House(keys=1, targets=1, jobs=20).open() as house:
        first = house.start("a")
        await anyio.sleep(30.0)
        house.start("b")
        await anyio.sleep(5.0)
        await first.end()
        await anyio.sleep(15.0)
        times = [at for at, who in house.cloud.askers("t0") if who == "b"][:20]
        assert times[-1] - times[0] >= 9.0


async def test_every_transition_once_while_replicas_come_and_go():
    async with House().open() as house:
        ends = {}
        for number, name in enumerate(house.names):
            for job in range(house.jobs):
                ends[name, f"{name}-{job}"] = 20.0 + 17.0 * ((number * 3 + job) % 30)
        house.cloud.ends = ends
        a, b = house.start("a"), house.start("b")
        await anyio.sleep(60.0)
        c = house.start("c")
        await anyio.sleep(70.0)
        a.kill()
        await anyio.sleep(90.0)
        d = house.start("d")
        await anyio.sleep(100.0)
        await b.end()
        await anyio.sleep(60.0)
        c.kill()
        await anyio.sleep(60.0)
        house.start("e")
        await anyio.sleep(200.0)
        assert len(d.held) in {2, 3}
        events = [each.transition.event_id for each in house.store._journal]
        assert len(events) == len(set(events)) == 36 * 4
        assert set(house.told_ids()) == set(events)
        assert house.in_order()
        for name in house.names:
            hands = [
                who for who, _ in groupby(who for _, who in house.cloud.askers(name))
            ]
            assert len(hands) == len(set(hands)), (name, hands)  # never by turns


async def test_one_that_cannot_renew_stops_before_another_begins(lines):
    async with House(keys=2, interval=1).open() as house:
        first = house.start("a")
        await anyio.sleep(2.0)
        second = house.start("b")
        await spread(house, [1, 1])
        lost = [n for n in house.names if n in first.rooms.fleet.targets]
        first.cut_from_store = unreachable
        cut = anyio.current_time()
        await house.until(lambda: len(second.held) == 2, LEASE + 5.0)
        for name in lost:
            by_first = [at for at, who in house.cloud.askers(name) if who == "a"]
            by_second = [at for at, who in house.cloud.askers(name, cut) if who == "b"]
            assert by_first[-1] <= cut + LEASE - MARGIN
            assert not by_second or by_first[-1] < by_second[0]
        assert first.rooms.board.records == {}
        assert [x for x in lines if x["event"] == "lease.lost"]
        first.cut_from_store = None
        await anyio.sleep(GIVE_BACK_EVERY * 2)
        assert len(first.held) == len(second.held) == 1


async def test_a_database_that_hangs_stops_it_too():
    async with House(keys=1, interval=1).open() as house:
        one = house.start("a")
        await anyio.sleep(20.0)
        one.cut_from_store = anyio.sleep_forever
        await anyio.sleep(60.0)
        (lease,) = house.table.leases.values()
        last = max(at for at, *_ in house.cloud.asked)
        assert lease.until - MARGIN - 1.5 <= last <= lease.until - MARGIN
        assert one.rooms.fleet.targets == {}


async def test_what_is_another_s_now_is_not_committed(lines):
    """As after a stop of the process: the table says so before any clock does."""
    async with House(keys=2, targets=2, interval=1).open() as house:
        one = house.start("a")
        await anyio.sleep(5.0)
        unit = one.rooms._holding.units["t0"]
        house.table.leases[unit].owner = "z"
        house.table.leases[unit].epoch += 1
        house.table.leases[unit].until = anyio.current_time() + 300.0
        seqs = len(house.store._journal)
        house.cloud.ends = {
            (name, f"{name}-{job}"): 0.0 for name in ("t0", "t1") for job in range(3)
        }
        one.rooms.keeper._renew_at = float("inf")  # so that only the commit tells
        await anyio.sleep(4.0)
        news = {each.transition.key.target for each in house.store._journal[seqs:]}
        assert news == {"t1"}
        assert "t0" not in one.rooms.fleet.targets
        assert {key.target for key in one.rooms.board.records} == {"t1"}
        assert one.rooms.keeper.losses == 1
        lost = [line for line in lines if line["event"] == "lease.lost"]
        assert [(line["unit"], line["targets"]) for line in lost] == [(unit, ["t0"])]
        told = {key.target for at, _, key, _ in house.told if at > 5.0}
        assert told == {"t1"}


async def test_a_job_added_elsewhere_is_noticed_by_who_asks_its_target():
    async with House(keys=2).open() as house:
        a = house.start("a")
        await anyio.sleep(1.0)
        b = house.start("b")
        await spread(house, [1, 1])
        away = next(n for n in house.names if n not in b.rooms.fleet.targets)
        key = JobKey(away, "added")
        assert await b.rooms.watch_list.add(key)
        assert not await b.rooms.watch_list.add(key)
        with pytest.raises(KeyError):
            await b.rooms.watch_list.add(JobKey("nowhere", "x"))
        await house.until(lambda: key in a.rooms.board.records, 5.0)
        assert await b.rooms.watch_list.remove(key)
        await house.until(lambda: key not in a.rooms.board.records, 5.0)


async def test_what_another_watches_is_not_forgotten():
    async with House(keys=2).open() as house:
        house.start("a")
        await anyio.sleep(5.0)
        house.start("b")
        await spread(house, [1, 1])
        await anyio.sleep(60.0)
        assert len(house.store._records) == 36
        assert house.store._forgotten == {}


async def test_what_is_given_back_is_committed_first():
    async with House(keys=2, targets=2, interval=1).open() as house:
        one = house.start("a")
        await anyio.sleep(5.0)
        house.cloud.ends = {
            (name, f"{name}-{job}"): 8.0 for name in house.names for job in range(3)
        }
        commit, committed = house.store.commit, []

        async def slow(steps, fence):
            await anyio.sleep(0.8)
            news = {step.record.key.target for step in steps if step.transitions}
            committed.extend((fence.owner, name) for name in news)
            return await commit(steps, fence)

        house.store.commit = slow
        await anyio.sleep(3.05)  # the answers are there, the commit is not
        house.start("b")
        await spread(house, [1, 1])
        held = {name for name in house.names if name in one.rooms.fleet.targets}
        (given,) = set(house.names) - held
        assert {who for who, name in committed if name == given} == {"a"}
        assert one.rooms.keeper.losses == 0
        assert set(house.told_ids().values()) == {1}


async def test_what_was_read_under_an_earlier_lease_is_not_shown():
    async with House(keys=1, targets=1).open() as house:
        house.start("z")
        await anyio.sleep(5.0)
        await house.replicas[0].end()
        one = house.start("a")
        load = house.store.load

        async def slow(keys):
            known = await load(keys)
            await anyio.sleep(3.0)
            holding = one.rooms._holding
            for unit in list(holding.held):  # it went, and it came back
                holding.take({unit: 99}, holding.next_end)
            house.store.load = load
            return known

        house.store.load = slow
        await anyio.sleep(4.2)
        assert one.rooms.board.records == {}
        await anyio.sleep(5.0)
        assert len(one.rooms.board.records) == 3


async def test_none_of_them_ends_by_itself():
    """None watches all jobs, so none can say that all are done."""
    async with House(keys=1, targets=1).open() as house:
        one = house.start("a")
        await anyio.sleep(5.0)
        house.values["finished"] = {"exit_when_done": True}
        with pytest.raises(SettingsError, match="exit_when_done"):
            await one.rooms._put_in_force(one.rooms._origin.load())
        house.cloud.ends = {("t0", f"t0-{job}"): 0.0 for job in range(3)}
        await anyio.sleep(60.0)
        assert not one.over.is_set()
        assert all(record.phase.finished for record in one.rooms.board.records.values())
