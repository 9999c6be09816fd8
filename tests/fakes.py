"""The one home of fakes: doors that do as they are told and note what was asked."""

from collections.abc import Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from urllib.parse import urlsplit

import anyio

from watcher.core.errors import ApiError, LeaseLost, ServerError, StoreError
from watcher.core.model import Job, JobKey, JournalEvent, Snapshot, Task
from watcher.ports import ALWAYS_HELD, Fence, LeaseTable
from watcher.simulator import Clock, SimulatorOptions
from watcher.simulator.answers import RawRequest
from watcher.simulator.simulation import Simulator

START = 1_700_000_000.0


def snapshot(job_id, status="PROCESSING", tasks=None):
    words = {"t1": "PROCESSING"} if tasks is None else tasks
    return Snapshot(Job(job_id, status), tuple(Task(*pair) for pair in words.items()))


class FakeApi:
    """Answers by script: `answer(job_id, seconds)` returns or raises."""

    project_id = "p"
    clock_skew = 0.0
    locked = False
    account = None
    key_limit = None

    def __init__(
        self, answer: Callable[[str, float], Snapshot] | None = None, latency=0.01
    ):
        self.answer = answer or (lambda job_id, _: snapshot(job_id))
        self.latency = latency
        self.asked: list[tuple[float, str]] = []
        self.listed: list[tuple[float, dict, int, int]] = []
        self.page = lambda *_: ServerError("no list here")
        self.in_flight = self.most_in_flight = 0

    async def fetch(self, job_id, known=None):
        now = anyio.current_time()
        self.asked.append((now, job_id))
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            await anyio.sleep(self.latency)
            outcome = self.answer(job_id, now)
        finally:
            self.in_flight -= 1
        if isinstance(outcome, ApiError):
            raise outcome
        return known if outcome == known else outcome

    async def list_jobs(self, filters, limit, offset):
        now = anyio.current_time()
        self.listed.append((now, dict(filters), limit, offset))
        await anyio.sleep(self.latency)
        outcome = self.page(limit, offset, now)
        if isinstance(outcome, ApiError):
            raise outcome
        return outcome

    def times(self, job_id=None):
        return [at for at, asked in self.asked if job_id in {None, asked}]


class FakeStore:
    """Keeps commits in a list; fails while `broken`, takes `seconds` for each."""

    def __init__(self, known=None, seconds=0.001):
        self.records = known or {}
        self.seconds = seconds
        self.commits = []
        self.forgotten = []
        self.kept = set()
        self.broken = False
        self.journal: list[JournalEvent] = []
        self.leases = None

    async def watched(self):
        return frozenset(self.kept)

    async def add(self, keys):
        self.kept.update(keys)

    async def remove(self, keys):
        self.kept.difference_update(keys)

    async def known(self):
        return frozenset(self.records)

    async def load(self, keys):
        return {key: self.records[key] for key in keys if key in self.records}

    async def forget(self, keys):
        if self.broken:
            raise StoreError("disk full")
        self.forgotten.extend(keys)

    async def commit(self, steps, fence):
        assert fence is ALWAYS_HELD
        await anyio.sleep(self.seconds)
        if self.broken:
            raise StoreError("disk full")
        self.commits.append((anyio.current_time(), list(steps)))
        told = [t for step in steps for t in step.transitions]
        events = [JournalEvent(len(self.journal) + n, t) for n, t in enumerate(told, 1)]
        self.journal.extend(events)
        return events


class FakeObserver:
    """Notes what it is told."""

    def __init__(self):
        self.polls = []
        self.pages = []
        self.commits = []
        self.transitions = []

    def polled(self, target, seconds, lag, failure):
        self.polls.append((target, seconds, lag, failure))

    def listed(self, target, failure):
        self.pages.append((target, failure))

    def committed(self, seconds):
        self.commits.append(seconds)

    def told(self, transitions):
        self.transitions.extend(transitions)


@dataclass(slots=True)
class Lease:
    owner: str | None
    epoch: int
    until: float
    targets: frozenset[str]


@dataclass(frozen=True, slots=True)
class SharedTable:
    """What the replicas of one process share.

    Attributes:
        now: The clock of all, in seconds from anywhere.
    """

    now: Callable[[], float]
    leases: dict[str, Lease] = field(default_factory=dict)
    replicas: dict[str, float] = field(default_factory=dict)

    def holder(self, unit: str) -> str | None:
        """Return who holds a unit, if anybody does."""
        lease = self.leases.get(unit)
        return lease.owner if lease and lease.until > self.now() else None

    def is_free(self, unit: str, targets: Collection[str]) -> bool:
        """Tell whether nobody holds a unit, nor one of its targets by another name."""
        return self.holder(unit) is None and not any(
            lease.targets.intersection(targets) and self.holder(name)
            for name, lease in self.leases.items()
            if name != unit
        )


class MemoryLeases:
    """The `Leases` port on a table that several of them share.

    Args:
        table: That they share.
        owner: Name of this replica.
        ttl: Seconds from a renewal to the end of a lease.
    """

    def __init__(self, table: SharedTable, owner: str, ttl: float) -> None:
        self._table = table
        self._ttl = ttl
        self.owner = owner

    async def renew(self) -> Mapping[str, int]:
        """Extend all that this replica holds, and be counted among those alive."""
        until = self._table.now() + self._ttl
        self._table.replicas[self.owner] = until
        mine = self._mine()
        for lease in mine.values():
            lease.until = until
        return {unit: lease.epoch for unit, lease in mine.items()}

    async def take(
        self, units: Mapping[str, Collection[str]], most: int
    ) -> Mapping[str, int]:
        """Take up to `most` of these units that are free."""
        taken: dict[str, int] = {}
        for unit, targets in units.items():
            if len(taken) < most and self._table.is_free(unit, targets):
                before = self._table.leases.get(unit)
                taken[unit] = before.epoch + 1 if before else 1
                self._table.leases[unit] = Lease(
                    self.owner,
                    taken[unit],
                    self._table.now() + self._ttl,
                    frozenset(targets),
                )
        return taken

    async def release(self, units: Collection[str]) -> None:
        """Let go of what is held of these."""
        for unit, lease in self._mine().items():
            if unit in units:
                lease.owner = None

    async def leave(self) -> None:
        """Let go of everything, and be counted no more."""
        await self.release(self._mine())
        self._table.replicas.pop(self.owner, None)

    async def owners(self) -> LeaseTable:
        """Return who holds what."""
        alive = [until > self._table.now() for until in self._table.replicas.values()]
        holders = {unit: self._table.holder(unit) for unit in self._table.leases}
        return LeaseTable(holders, sum(alive))

    def check(self, fence: Fence, targets: Collection[str]) -> None:
        """Let a commit of these targets through.

        Raises:
            LeaseLost: Some of them are not held under the fence any more.
        """
        lost = {
            unit
            for unit in fence.units_of(targets)
            if self._table.holder(unit) != fence.owner
            or self._table.leases[unit].epoch != fence.epochs[unit]
        }
        if lost:
            raise LeaseLost(lost)

    def _mine(self) -> dict[str, Lease]:
        return {
            unit: lease
            for unit, lease in self._table.leases.items()
            if lease.owner == self.owner
        }


class ReplicaStore:
    """One replica's view of a store that several share."""

    def __init__(self, shared, leases: MemoryLeases):
        self._shared = shared
        self.leases = leases

    def __getattr__(self, name):
        return getattr(self._shared, name)

    async def commit(self, steps, fence):
        self.leases.check(fence, {step.record.key.target for step in steps})
        return await self._shared.commit(steps, fence)


def keys(count, target="prod"):
    return [JobKey(target, f"job-{number}") for number in range(count)]


def simulator(**options):
    """A simulated cloud on the loop's own time, without a server."""
    clock = Clock(lambda: START + anyio.current_time(), anyio.current_time)
    return Simulator(SimulatorOptions(**options), clock)


class SimulatedSession:
    """Stands in for aiohttp's: requests go straight to a simulator."""

    def __init__(self, cloud, latency=0.01):
        self.cloud = cloud
        self.latency = latency
        self.answers: list[tuple[float, int]] = []

    @asynccontextmanager
    async def request(self, method, url, *, headers, data, **_):
        parts = urlsplit(str(url))
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        names = {name.lower(): value for name, value in headers.items()}
        await anyio.sleep(self.latency / 2)
        outcome = self.cloud.handle(RawRequest(method, target, names, data or b""))
        self.answers.append((anyio.current_time(), outcome.answer.status))
        await anyio.sleep(self.latency / 2)
        yield SimpleNamespace(
            status=outcome.answer.status,
            headers=outcome.headers,
            content=_Content(outcome.answer.body),
        )


class _Content:
    def __init__(self, body):
        self._body = body

    async def readany(self):
        body, self._body = self._body, b""
        return body
