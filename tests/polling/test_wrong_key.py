"""A wrong secret key never gets the access key locked: real client, virtual time."""

import anyio
import pytest
import structlog

from tests.fakes import START, SimulatedSession, simulator
from tests.polling.test_poller import Rig
from watcher.core.model import JobKey
from watcher.daemon.targets import Targets
from watcher.settings.schema import Target
from watcher.simulator.gateway import Key

pytestmark = [pytest.mark.looptime]

WINDOW = 300.0
MOST_REFUSED = 3
AT_DEFAULT = 5  # on their way, and refused, where a key is revoked in use
ACCESS, RIGHT, WRONG = "AKIDEXAMPLE", "the-right-secret-key", "the-wrong-secret-key"
NAMES = ("a", "b", "c")
JOBS = 20


class World:
    """Three targets that share a key, with many jobs and 16 requests in flight each."""

    def __init__(self, secret, latency=0.01, interval=10.0, most=AT_DEFAULT):
        self.most = most
        self.cloud = simulator(jobs=JOBS, tasks=1, speed=0, credentials={ACCESS: RIGHT})
        self.session = SimulatedSession(self.cloud, latency)
        self.targets = Targets(self.session, lambda: START + anyio.current_time(), {})
        apis = {name: self.open(name, secret) for name in NAMES}
        self.rig = Rig(apis=apis, in_flight=16, rate=20.0, interval=interval)

    def open(self, name, secret):
        credentials = {"kind": "static", "access_key": ACCESS, "secret_key": secret}
        credentials["max_in_flight"] = self.most
        target = Target(
            endpoint="http://127.0.0.1:9",
            project_id=self.cloud.options.project_id,
            credentials=credentials,
        )
        return self.targets.open(name, target, 10.0)

    async def give(self, secret):
        for name, target in self.rig.targets.items():
            target.reopen(self.open(name, secret), anyio.current_time())

    async def change_at_the_cloud(self):
        self.cloud.gateway.set_keys({ACCESS: Key("another-secret-key")})

    async def run(self, seconds, *during):
        jobs = [JobKey(name, job_id) for job_id in self.cloud.job_ids for name in NAMES]
        await self.rig.run(jobs, seconds, *during)

    @property
    def lockings(self):
        """Whether the gateway has locked the key."""
        return self.cloud.gateway._locked_until

    @property
    def refused(self):
        return [at for at, status in self.session.answers if status == 401]

    def most_refused(self):
        return max(
            sum(start <= at < start + WINDOW for at in self.refused)
            for start in self.refused
        )


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


def count(lines, event):
    return sum(line["event"] == event for line in lines)


@pytest.mark.parametrize("latency", [0.01, 0.2, 1.0])
async def test_wrong_from_the_start_for_ten_minutes(latency, lines):
    world = World(WRONG, latency)
    await world.run(610)
    assert world.most_refused() == MOST_REFUSED
    assert MOST_REFUSED <= len(world.refused) <= 3 * MOST_REFUSED
    assert not any(status == 200 for _, status in world.session.answers)
    assert count(lines, "credentials.locked") == 1
    assert [line["target"] for line in lines if line["event"] == "poll.failing"] == [
        *NAMES
    ]


@pytest.mark.parametrize("latency", [0.01, 0.2, 1.0, 9.0])
async def test_changed_at_the_cloud_while_all_is_in_full_swing(latency):
    world = World(RIGHT, latency, interval=1.0)
    await world.run(640, (20, world.change_at_the_cloud))
    assert MOST_REFUSED <= world.most_refused() <= AT_DEFAULT
    accepted = sum(status == 200 for _, status in world.session.answers)
    assert accepted >= min(AT_DEFAULT / latency, 60.0) * 20 * 0.85 - AT_DEFAULT


@pytest.mark.parametrize(("most", "refused"), [(1, 3), (5, 5), (16, 16)])
async def test_what_a_revoked_key_costs(most, refused):
    """The table of docs/decisions/0005."""
    world = World(RIGHT, 0.4, interval=1.0, most=most)
    await world.run(300, (20.1, world.change_at_the_cloud))
    good = [at for at, status in world.session.answers if status == 200]
    assert len(world.refused) == refused
    assert bool(world.lockings) is (most > AT_DEFAULT)
    rate = sum(10 <= at < 20 for at in good) / 10
    assert rate == pytest.approx(most / 0.45, rel=0.15)


async def test_what_cannot_go_is_not_sent_to_stand_in_line():
    """Else the pace would be that of the line, whose requests go when one ends."""
    world = World(RIGHT, latency=1.0, interval=1.0)

    async def answer_fast():
        world.session.latency = 0.001

    await world.run(40, (20, answer_fast))
    answered = [at for at, _ in world.session.answers if at > 20]
    most = max(sum(start <= at < start + 1 for at in answered) for start in answered)
    assert most <= len(NAMES) * 21 + AT_DEFAULT


async def test_the_right_key_is_taken_up_at_once(lines):
    world = World(WRONG)

    async def mend():
        await world.give(RIGHT)

    await world.run(220, (200, mend))
    good = [at for at, status in world.session.answers if status == 200]
    assert 200 <= good[0] < 200.5
    assert sum(at < 204 for at in good) == len(NAMES) * JOBS, "every job, at the pace"
    assert count(lines, "credentials.accepted") == 1
    assert count(lines, "poll.recovered") == len(NAMES)
    assert not any(target.api.locked for target in world.rig.targets.values())


async def test_another_wrong_key_costs_three_more_at_most():
    world = World(WRONG)

    async def try_another():
        await world.give("one-more-wrong-secret")

    await world.run(290, (100, try_another))
    assert len(world.refused) == 2 * MOST_REFUSED
