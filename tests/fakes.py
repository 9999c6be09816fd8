"""The one home of fakes: doors that do as they are told and note what was asked."""

from collections.abc import Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit

import anyio

from watcher.core.errors import ApiError, ServerError, StoreError
from watcher.core.model import Job, JobKey, JournalEvent, Snapshot, Task
from watcher.ports import ALWAYS_HELD
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

    async def fetch(self, job_id):
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
        return outcome

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

    async def hold(self):
        return ALWAYS_HELD

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
        parts = urlsplit(url)
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

    async def iter_any(self):
        yield self._body
