"""What leases must do, wherever they are kept."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.doors.store.conftest import step, transition
from tests.fakes import MemoryLeases, ReplicaStore, SharedTable
from watcher.core.errors import LeaseLost
from watcher.core.model import JobKey, JobRecord, Step
from watcher.ports import Fence, Leases, LeaseTable
from watcher.store import MemoryStore
from watcher.store.postgres.store import PostgresStore

TTL = 15.0


@dataclass
class InMemory:
    at: float = 100.0

    def __post_init__(self):
        self.shared = MemoryStore(now=lambda: self.at, sinks=["log"])
        self.table = SharedTable(lambda: self.at)

    async def replica(self, name):
        return ReplicaStore(self.shared, MemoryLeases(self.table, name, TTL))

    async def wait(self, seconds):
        self.at += seconds


class InPostgres:
    def __init__(self, server):
        self.server, self.url = server, server.database()
        self.opened = []

    async def replica(self, name):
        store = PostgresStore(self.url, owner=name, lease=TTL, sinks=["log"])
        self.opened.append(store)
        await store.open()
        return store

    async def wait(self, seconds):
        """Let what is kept be so much older, as the database's clock is not ours."""
        for table, ends in [("leases", "leased_until"), ("replicas", "alive_until")]:
            change = f"SET {ends} = {ends} - interval '{seconds} s'"
            self.server.sql(f"UPDATE watcher.{table} {change}", self.url.split("/")[-1])

    async def close(self):
        for store in self.opened:
            await store.close()


@pytest.fixture(params=["in_memory", "in_postgres"])
async def cluster(request):
    if request.param == "in_memory":
        yield InMemory()
        return
    replicas = InPostgres(request.getfixturevalue("postgres"))
    yield replicas
    await replicas.close()


UNITS = {"one": ["prod", "test"], "two": ["lab"], "three": ["spare"]}


async def both(cluster) -> tuple[Leases, Leases]:
    a, b = [await cluster.replica(name) for name in "ab"]
    await a.leases.renew()
    await b.leases.renew()
    return a.leases, b.leases


async def test_what_is_free_is_taken_once(cluster):
    a, b = await both(cluster)
    assert await a.take(UNITS, 2) == {"one": 1, "two": 1}
    assert await b.take(UNITS, 3) == {"three": 1}
    assert await a.take(UNITS, 3) == {}
    assert await a.renew() == {"one": 1, "two": 1}
    assert await a.owners() == LeaseTable(
        {"one": a.owner, "two": a.owner, "three": b.owner}, replicas=2
    )


async def test_nothing_is_taken_of_nothing(cluster):
    a, _ = await both(cluster)
    assert await a.take({}, 3) == {}
    assert await a.take(UNITS, 0) == {}
    assert await a.renew() == {}
    assert (await a.owners()).holders == {}


async def test_a_lease_lasts_while_it_is_renewed(cluster):
    a, b = await both(cluster)
    await a.take(UNITS, 3)
    for _ in range(3):
        await cluster.wait(TTL * 0.6)
        await a.renew()
        assert await b.take(UNITS, 3) == {}
    assert (await b.owners()).replicas == 1, "b said nothing for too long"
    await cluster.wait(TTL + 1)
    assert set((await b.owners()).holders.values()) == {None}
    assert await b.take(UNITS, 1) == {"one": 2}
    assert await a.renew() == {"two": 1, "three": 1}, "nobody came for these"
    assert await b.take(UNITS, 3) == {}


async def test_what_is_let_go_is_free_at_once(cluster):
    a, b = await both(cluster)
    await a.take(UNITS, 3)
    await b.release(["one"])
    await a.release(["one", "unknown"])
    assert await a.renew() == {"two": 1, "three": 1}
    assert await b.take(UNITS, 3) == {"one": 2}
    await a.leave()
    assert await b.owners() == LeaseTable(
        {"one": b.owner, "two": None, "three": None}, replicas=1
    )
    assert await b.take(UNITS, 3) == {"two": 2, "three": 2}
    assert await a.renew() == {}


async def test_a_target_is_in_one_unit_that_is_held(cluster):
    a, b = await both(cluster)
    await a.take({"old": ["prod", "test"]}, 1)
    assert await b.take({"new": ["test"], "other": ["lab"]}, 2) == {"other": 1}
    await a.release(["old"])
    assert await b.take({"new": ["test"]}, 2) == {"new": 1}
    assert await a.take({"old": ["prod", "test"]}, 1) == {}
    assert await a.take({"old": ["prod"]}, 1) == {"old": 2}, "as it is written now"


async def test_within_one_take_too(cluster):
    a, _ = await both(cluster)
    assert await a.take({"x": ["prod"], "y": ["prod"]}, 2) == {"x": 1}


def of(leases, epochs, units):
    return Fence(leases.owner, epochs, {t: u for u in units for t in units[u]})


def told(target, event_id):
    record = JobRecord(JobKey(target, "a"))
    return Step(record, (transition(event_id, "a", target),))


async def refused(store, steps, fence):
    with pytest.raises(LeaseLost) as lost:
        await store.commit(steps, fence)
    assert await store.read(0, 10) == []
    assert await store.known() == frozenset()
    return lost.value.units


async def test_a_commit_under_ones_own_lease(cluster):
    a = await cluster.replica("a")
    fence = of(a.leases, await a.leases.take(UNITS, 3), UNITS)
    events = await a.commit([told("prod", "1"), told("lab", "2"), step("b")], fence)
    assert [event.seq for event in events] == [1, 2]


async def test_a_commit_under_a_lease_that_is_past(cluster):
    a = await cluster.replica("a")
    fence = of(a.leases, await a.leases.take(UNITS, 3), UNITS)
    await cluster.wait(TTL + 1)
    lost = await refused(a, [told("prod", "1"), told("lab", "2")], fence)
    assert lost == {"one", "two"}
    await a.leases.renew()
    assert len(await a.commit([told("prod", "1")], fence)) == 1


async def test_a_commit_under_a_lease_that_was_let_go(cluster):
    a = await cluster.replica("a")
    fence = of(a.leases, await a.leases.take(UNITS, 3), UNITS)
    await a.leases.release(["one"])
    assert await refused(a, [told("prod", "1"), told("lab", "2")], fence) == {"one"}


async def test_a_commit_under_a_lease_that_is_anothers(cluster):
    a, b = [await cluster.replica(name) for name in "ab"]
    fence = of(a.leases, await a.leases.take(UNITS, 3), UNITS)
    await a.leases.release(["one"])
    held = of(b.leases, await b.leases.take(UNITS, 3), UNITS)
    assert await refused(a, [told("prod", "1"), told("lab", "2")], fence) == {"one"}
    assert len(await b.commit([told("prod", "1")], held)) == 1


async def test_a_commit_under_an_earlier_lease_of_ones_own(cluster):
    a, b = [await cluster.replica(name) for name in "ab"]
    fence = of(a.leases, await a.leases.take(UNITS, 1), UNITS)
    await a.leases.release(["one"])
    await b.leases.take(UNITS, 1)
    await b.leases.release(["one"])
    again = of(a.leases, await a.leases.take(UNITS, 1), UNITS)
    assert again.epochs == {"one": 3}
    assert await refused(a, [told("prod", "1")], fence) == {"one"}
    assert len(await a.commit([told("prod", "1")], again)) == 1


async def test_a_commit_of_what_no_lease_names(cluster):
    a = await cluster.replica("a")
    epochs = await a.leases.take({"two": ["lab"]}, 1)
    assert await refused(a, [told("prod", "1")], of(a.leases, epochs, UNITS)) == {"one"}
    other = Fence(a.leases.owner, epochs, {"lab": "two"})
    assert await refused(a, [told("prod", "1")], other) == {"prod"}
