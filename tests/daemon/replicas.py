"""Several whole daemons over one store and one table of leases, on virtual time."""

import math
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from tests.fakes import (
    START,
    FakeApi,
    MemoryLeases,
    ReplicaStore,
    SharedTable,
    snapshot,
)
from watcher.core.errors import StoreError, Unreachable
from watcher.daemon.notify import Notifier
from watcher.daemon.rooms import Outside, Rooms
from watcher.daemon.signals import Wishes
from watcher.settings.loading import Origin
from watcher.store import MemoryStore

LEASE = 15.0


def wall():
    return START + anyio.current_time()


@dataclass
class Cloud:
    """Ends a job when it is told to, and notes who asked for what, and when."""

    ends: dict[tuple[str, str], float] = field(default_factory=dict)
    asked: list[tuple[float, str, str, str]] = field(default_factory=list)

    def askers(self, target, since=0.0, until=math.inf):
        return [
            (at, who)
            for at, who, name, _ in self.asked
            if name == target and since <= at < until
        ]

    def door(self, replica, target):
        def answer(job_id, now):
            self.asked.append((now, replica.name, target, job_id))
            if replica.cut_off:
                return Unreachable("no route")
            over = now >= self.ends.get((target, job_id), math.inf)
            word = "SUCCESS" if over else "PROCESSING"
            return snapshot(job_id, "FINISHED" if over else "PROCESSING", {"t1": word})

        return FakeApi(answer)


class Doors:
    def __init__(self, cloud, replica):
        self.cloud, self.replica = cloud, replica

    def open(self, name, _target, _timeout, _on_request=None):
        return self.cloud.door(self.replica, name)


class Receiver:
    """A sink that notes what it is told by whom."""

    per_job = True

    def __init__(self, house, replica):
        self.name = "log"
        self.house, self.replica = house, replica

    async def deliver(self, events):
        await anyio.sleep(0.01)
        for event in events:
            told = event.transition
            self.house.told.append(
                (anyio.current_time(), self.replica.name, told.key, told.event_id)
            )


class Cut:
    """A store that cannot be reached while its replica is cut from it."""

    def __init__(self, replica, inner):
        self._replica, self._inner = replica, inner

    def __getattr__(self, name):
        there = getattr(self._inner, name)
        if not callable(there):
            return Cut(self._replica, there) if name == "leases" else there

        async def ask(*args, **kwargs):
            while True:
                try:
                    await self._replica.reach()
                except StoreError:
                    if name != "grown":  # which waits for a store that cannot be read
                        raise
                    await anyio.sleep(1.0)
                else:
                    return await there(*args, **kwargs)

        return ask


class Replica:
    """One daemon."""

    def __init__(self, house, name):
        self.house, self.name = house, name
        self.cut_off = False
        self.cut_from_store = None
        self.over = anyio.Event()
        self.scope = anyio.CancelScope()
        self.wishes = Wishes(lambda _: None)
        leases = MemoryLeases(house.table, name, LEASE)
        store = Cut(self, ReplicaStore(house.store, leases))
        outside = Outside(
            store=store,
            doors=Doors(house.cloud, self),
            sinks=[Receiver(house, self)],
            notifier=Notifier(None, "", math.inf),
            wall=wall,
            chance=house.chance,
        )
        origin = Origin(None, values=house.values, environ={})
        self.rooms = Rooms(outside, origin, origin.load(), self.wishes)
        self.rooms.reloader.run = anyio.sleep_forever  # it looks in a thread

    @property
    def held(self):
        return sorted(self.rooms._holding.held)

    async def reach(self):
        if self.cut_from_store is not None:
            await self.cut_from_store()

    async def live(self):
        with self.scope:
            await self.rooms.begin()
            await self.rooms.work()
        self.over.set()

    def kill(self):
        self.scope.cancel()

    async def end(self):
        self.wishes.ask_for_end()
        await self.over.wait()


class House:
    """What the replicas share, and they."""

    def __init__(self, keys=4, targets=12, jobs=3, interval=10, chance=lambda: 0.5):
        self.names = [f"t{number}" for number in range(targets)]
        self.values = {
            "targets": {
                name: {
                    "endpoint": "http://127.0.0.1:9",
                    "project_id": "p",
                    "credentials": {
                        "kind": "static",
                        "access_key": f"AK{number % keys}",
                        "secret_key": "s",
                    },
                    "jobs": [f"{name}-{job}" for job in range(jobs)],
                }
                for number, name in enumerate(self.names)
            },
            "poll": {"interval": interval, "mode": "detail"},
        }
        self.jobs = jobs
        self.chance = chance
        self.cloud = Cloud()
        self.table = SharedTable(anyio.current_time)
        self.store = MemoryStore(now=wall, sinks=["log"])
        self.told = []
        self.replicas = []
        self._tasks = None

    @asynccontextmanager
    async def open(self):
        async with anyio.create_task_group() as self._tasks:
            yield self
            self._tasks.cancel_scope.cancel()

    def start(self, name):
        replica = Replica(self, name)
        self.replicas.append(replica)
        self._tasks.start_soon(replica.live)
        return replica

    @property
    def holders(self):
        return Counter(self.table.holder(unit) for unit in self.table.leases)

    async def until(self, condition, within):
        """Wait until something holds; return the seconds it took."""
        began = anyio.current_time()
        while not condition():
            assert anyio.current_time() - began <= within, (self.holders, condition)
            await anyio.sleep(0.05)
        return anyio.current_time() - began

    def told_ids(self):
        return Counter(event_id for *_, event_id in self.told)

    def in_order(self):
        """Whether each job's events were first told in the order of the journal."""
        places = {each.transition.event_id: each.seq for each in self.store._journal}
        seqs = defaultdict(list)
        for _, _, key, event_id in self.told:
            if places[event_id] not in seqs[key]:
                seqs[key].append(places[event_id])
        return all(each == sorted(each) for each in seqs.values())


async def unreachable():
    raise StoreError("no route to the database")
