"""The real loop and the simulated cloud: what a list earns, and what its lie costs."""

from datetime import datetime

import anyio
import pytest
import structlog

from tests.fakes import START
from tests.polling.test_poller import Rig
from watcher.core.listing import Mode
from watcher.core.model import JobKey
from watcher.core.wire import decode_job, decode_page
from watcher.simulator import Clock, Dialect, SimulatorOptions, parse_faults
from watcher.simulator.answers import RawRequest
from watcher.simulator.simulation import Simulator

pytestmark = [pytest.mark.looptime]

JOBS, TASKS, LONGEST, LIE = 12, 40, 240.0, 400


class Cloud:
    """The simulated cloud as an API, without a network; every two seconds a task ends."""

    clock_skew = 0.0
    account = key_limit = None

    def __init__(self, **options):
        clock = Clock(lambda: START + anyio.current_time(), anyio.current_time)
        options = {"jobs": JOBS, "tasks": TASKS, "failing": 0.0, **options}
        self.simulator = Simulator(SimulatorOptions(**options), clock)
        self.project_id = self.simulator.options.project_id
        self.ids = self.simulator.job_ids
        for job_id in self.ids:
            self.simulator.jobs.patch(job_id, "*", "PROCESSING")
        self.waiting = [
            (job_id, task.id)
            for number in range(TASKS - 1)
            for job_id in self.ids
            for task in self.simulator.jobs.tasks(job_id)[number : number + 1]
        ]

    async def fetch(self, job_id, known=None):
        outcome = decode_job(await self.ask(f"/{job_id}"), job_id)
        return known if outcome == known else outcome

    async def list_jobs(self, filters, limit, offset):
        query = "&".join(f"{name}={value}" for name, value in filters.items())
        return decode_page(await self.ask(f"?{query}&limit={limit}&offset={offset}"))

    async def ask(self, rest):
        await anyio.sleep(0.05)
        target = f"/v1/{self.project_id}/dev-servers/jobs{rest}"
        return self.simulator.handle(RawRequest("GET", target, {})).answer.body

    async def end_one(self):
        job_id, task_id = self.waiting.pop(0)
        self.simulator.jobs.patch(job_id, task_id, "SUCCESS")


async def watched(seconds, **options):
    """Watch the cloud; return it, the rig and when each task's end was seen how late."""
    cloud = Cloud(**options)
    rig = Rig(api=cloud, mode=Mode.LIST, task_interval_max=LONGEST)
    steps = [(at, cloud.end_one) for at in range(2, seconds, 2)]
    await rig.run([JobKey("prod", job_id) for job_id in cloud.ids], seconds, *steps)
    ended = {
        change.task_id: change.at
        for truth in cloud.simulator.truth().values()
        for change in truth.transitions
    }
    late = [
        (ended[task_id] - START, seen - ended[task_id])
        for task_id, seen in told(rig).items()
    ]
    return cloud, rig, late


def told(rig):
    """When each task's end was seen, by task."""
    moves = [event.transition.fields for event in rig.store.journal]
    return {
        fields["task_id"]: datetime.fromisoformat(fields["observed_at"]).timestamp()
        for fields in moves
        if fields.get("to") == "SUCCESS"
    }


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


def intervals(lines):
    return [line["interval"] for line in lines if line["event"] == "poll.trust"]


async def test_a_list_that_tells_everything_is_relied_on_ever_more(lines):
    cloud, rig, late = await watched(LIE)
    assert intervals(lines) == [60, 120, 240]
    assert max(seconds for _, seconds in late) <= 10.5
    assert rig.targets["prod"].trust.misses == 0
    looks = [r for r in cloud.simulator.requests if r.call == "detail"]
    by_itself = sum(r.elapsed > 330 for r in looks) - sum(at > 330 for at, _ in late)
    assert by_itself <= JOBS, "what is looked at is what moved"


async def test_a_list_that_lies_from_some_moment_on_is_found_out(lines):
    faults = parse_faults(f"stale_rows:after={LIE}")
    _, rig, late = await watched(LIE + 400, faults=faults)
    assert intervals(lines)[:4] == [60, 120, 240, 30]
    assert max(s for _, s in late) <= LONGEST + 1
    found_out = min(at + s for at, s in late if at > LIE and s > 20)
    assert found_out <= LIE + LONGEST + 1
    assert max(s for at, s in late if at > found_out + 10) <= 31
    assert rig.targets["prod"].trust.needed > 50
    assert len(late) >= (LIE + 400 - 31) / 2 - 1, "none is lost"


async def test_a_list_that_tells_of_ends_only_earns_nothing(lines):
    _, rig, late = await watched(LIE, dialect=Dialect(rows="ends"))
    assert intervals(lines) == []
    assert max(seconds for _, seconds in late) <= 31
    trust = rig.targets["prod"].trust
    assert (trust.interval, trust.hits) == (30.0, 0)
    assert trust.misses > 0
