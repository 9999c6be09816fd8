"""What the list call saves: API calls, and how soon the end of a job is seen.

The real poller asks the real simulator, in one process and on virtual time, so the
figures are exact and the same each time. `--real` runs the daemon instead, over sockets
and in real time, with fewer jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import anyio
import looptime
import structlog

from benchmarks.row import Row
from tests.whole.daemon import running
from watcher.client.classify import classify
from watcher.core.listing import Mode
from watcher.core.model import JobKey
from watcher.core.wire import decode_job, decode_page
from watcher.polling.board import Board
from watcher.polling.committer import Committer
from watcher.polling.poller import Poller
from watcher.polling.target import Manner, Target
from watcher.simulator import Clock, SimulatorOptions, simulate
from watcher.simulator.answers import RawRequest
from watcher.simulator.simulation import Simulator
from watcher.store.memory import MemoryStore

START = 1_750_000_000.0
ANSWER_TIME = 0.05
MINUTE = 60.0


@dataclass(frozen=True)
class Way:
    """One way to ask.

    Attributes:
        seconds: How long it is measured.
        earning: How long jobs have ended before, so that the list could earn trust.
    """

    title: str
    mode: Mode
    task_interval: float = 30.0
    task_interval_max: float = 600.0
    paging: str = "honoured"
    seconds: float = 5 * MINUTE
    earning: float = 0.0


WAYS = (
    Way("detail", Mode.DETAIL, seconds=MINUTE),
    Way("list, nothing earned yet", Mode.LIST, task_interval_max=30.0, seconds=MINUTE),
    Way("list, while trust is earned", Mode.LIST),
    Way(
        "list, trust earned (begun 15 minutes before)",
        Mode.LIST,
        earning=15 * MINUTE,
        seconds=10 * MINUTE,
    ),
    Way(
        "list, defaults, but paging is ignored",
        Mode.LIST,
        paging="ignored",
        seconds=MINUTE,
    ),
)


class InProcess:
    """The API of a simulated cloud without a network."""

    clock_skew = 0.0
    locked = False
    account = None
    key_limit = None

    def __init__(self, cloud):
        self.cloud = cloud
        self.project_id = cloud.options.project_id
        self._path = f"/v1/{self.project_id}/dev-servers/jobs"

    async def fetch(self, job_id, _known=None):
        return decode_job(await self._ask(f"{self._path}/{job_id}"), job_id)

    async def list_jobs(self, filters, limit, offset):
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        where = f"{self._path}?{query}&limit={limit}&offset={offset}"
        return decode_page(await self._ask(where))

    async def _ask(self, target):
        await anyio.sleep(ANSWER_TIME)
        answer = self.cloud.handle(RawRequest("GET", target, {})).answer
        if answer.status != 200:
            raise classify(answer.status, answer.headers, answer.body, 0.0)
        return answer.body


class Silence:
    """An observer that notes when each job was seen finished."""

    def __init__(self):
        self.finished = {}

    def polled(self, *_, **__):
        return None

    def listed(self, *_):
        return None

    def committed(self, _):
        return None

    def told(self, transitions):
        for each in transitions:
            if each.event == "job.finished":
                seen = _seconds(each.fields["observed_at"])
                self.finished[each.key.job_id] = seen


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    title: str
    calls: float
    late: list[float]
    lost: int


def prod(cloud, way, interval):
    manner = Manner(
        interval=interval,
        task_interval=way.task_interval,
        task_interval_max=way.task_interval_max,
        requests_per_second=5000.0,
        max_in_flight=5000,
        mode=way.mode,
    )
    return Target("prod", InProcess(cloud), manner)


async def measure(way, jobs, interval):
    clock = Clock(lambda: START + anyio.current_time(), anyio.current_time)
    cloud = Simulator(
        SimulatorOptions(jobs=jobs, tasks=2, failing=0.0, paging=way.paging), clock
    )
    for job_id in cloud.job_ids:
        cloud.jobs.patch(job_id, "*", "PROCESSING")
    observer, board = Silence(), Board()
    chance = random.Random(0)
    store = MemoryStore(now=clock.wall)
    targets = {"prod": prod(cloud, way, interval)}
    committer = Committer(board, store, observer, wall=clock.wall)
    poller = Poller(targets, board, committer, observer, chance=chance.random)
    keys = [JobKey("prod", job_id) for job_id in cloud.job_ids]
    await committer.begin(dict.fromkeys(keys, cloud.options.project_id))
    for key in keys:
        targets["prod"].watch(board.records[key], anyio.current_time())
    calls = 0
    ending = chance.sample(cloud.job_ids, int(way.earning + way.seconds))
    first, ending = ending[: int(way.earning)], ending[int(way.earning) :]

    async def end(job_ids):  # one a second, at any moment of it
        for job_id in job_ids:
            moment = chance.random()
            await anyio.sleep(moment)
            cloud.jobs.finish(job_id)
            await anyio.sleep(1 - moment)

    async def script():
        nonlocal calls
        await anyio.sleep(3 * interval)
        await end(first)
        before = cloud.requests.total
        await end(ending)
        calls = cloud.requests.total - before
        await anyio.sleep(3 * interval)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(committer.run)
        tasks.start_soon(poller.run)
        await script()
        tasks.cancel_scope.cancel()
    return figures(way.title, calls * MINUTE / way.seconds, ending, cloud, observer)


def figures(title, calls, ending, cloud, observer):
    late = [
        observer.finished[job_id] - cloud.jobs.truth(job_id).finished_at
        for job_id in ending
        if job_id in observer.finished
    ]
    return Figures(title, calls, late, len(ending) - len(late))


def table(found):
    yield "| asking | API calls a minute | of those of detail | end of a job seen after: median | latest | not seen |"
    yield "|---|--:|--:|--:|--:|--:|"
    base = found[0].calls
    for each in found:
        share = "" if each is found[0] else f"1/{base / each.calls:.0f}"
        yield (
            f"| {each.title} | {each.calls:,.0f} | {share} | {median(each.late):.1f} s "
            f"| {max(each.late):.1f} s | {each.lost} |"
        )


def rows(hasty):
    """Compare the calls of list mode with those of detail mode, trust being earned."""
    if hasty:
        return
    detail, earned = virtual(10_000, 10.0, (WAYS[0], WAYS[3]))
    yield Row(
        "10,000 active jobs, defaults, a list that tells task changes",
        50.0,
        "× fewer calls than detail mode, trust being earned",
        detail.calls / earned.calls,
        least=True,
        note=f"{earned.calls:,.0f} calls a minute, {detail.calls:,.0f}; the end of a job seen "
        f"after {median(earned.late):.1f} s, {median(detail.late):.1f} s (median)",
        tried=TRIED,
    )


TRIED = """The real poller and the real simulator on virtual time, so the figures are the
same each time. Trust was earned in the fifteen minutes before, of which it needs about four
where one job a second ends. [More](list-mode.md)."""


def virtual(jobs, interval, ways=WAYS):
    for way in ways:
        loop = looptime.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            yield loop.run_until_complete(measure(way, jobs, interval))
        finally:
            loop.close()


async def real(jobs, interval, seconds):
    """Measure the daemon over sockets; yields the same figures."""
    found = []
    for way in (WAYS[0], WAYS[1]):
        async with simulate(SimulatorOptions(jobs=jobs, tasks=2, failing=0.0)) as cloud:
            for job_id in cloud.job_ids:
                cloud.jobs.patch(job_id, "*", "PROCESSING")
            found.append(await _daemon(way, cloud, interval, seconds))
    return found


async def _daemon(way, cloud, interval, seconds):
    chance = random.Random(0)
    values = {
        "targets": {
            "prod": {
                "endpoint": cloud.url,
                "project_id": cloud.options.project_id,
                "credentials": {"kind": "none"},
                "jobs": list(cloud.job_ids),
            }
        },
        "poll": {
            "interval": interval,
            "mode": str(way.mode),
            "task_interval": way.task_interval,
            "requests_per_second": 1000,
        },
    }
    ending = chance.sample(cloud.job_ids, int(seconds))
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), values) as daemon:
            await daemon.started()
            jobs = len(cloud.job_ids)
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == jobs)
            await anyio.sleep(3 * interval)
            before, began = cloud.requests.total, anyio.current_time()
            for job_id in ending:
                await anyio.sleep(1)
                cloud.jobs.finish(job_id)
            calls = cloud.requests.total - before
            passed = anyio.current_time() - began
            await anyio.sleep(5 * interval)
            observer = Silence()
            for line in daemon.events("job.finished"):
                seen = _seconds(line["observed_at"])
                observer.finished[line["job_id"]] = seen
    return figures(way.title, calls * MINUTE / passed, ending, cloud, observer)


def _seconds(text):
    return datetime.fromisoformat(text).timestamp()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--interval", type=float)
    parser.add_argument("--real", action="store_true", help="the daemon, over sockets")
    args = parser.parse_args()
    errors_only = structlog.make_filtering_bound_logger("error")
    structlog.configure(wrapper_class=errors_only)
    if args.real:
        found = anyio.run(real, args.jobs or 300, args.interval or 1.0, 30.0)
    else:
        found = list(virtual(args.jobs or 10_000, args.interval or 10.0))
    print("\n".join(table(found)))
    return int(any(each.lost for each in found))


if __name__ == "__main__":
    sys.exit(main())
