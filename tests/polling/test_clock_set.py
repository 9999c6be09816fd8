"""The loop while somebody sets the wall clock: no job ends for it, none is held open."""

import anyio
import pytest

from tests.fakes import START, FakeApi, keys, snapshot
from tests.polling.test_poller import Rig
from watcher.core.errors import JobNotFound
from watcher.core.model import Phase

pytestmark = [pytest.mark.looptime]

DAY = 86_400.0
SET_AT = 5.0


def missing(_, __):
    return JobNotFound("none", status_code=400)


def lagging(job_id, _):
    return snapshot(job_id, "FINISHED", {"t1": "PROCESSING"})


@pytest.mark.parametrize("step", [600.0, -DAY])
@pytest.mark.parametrize(
    ("answer", "early", "late", "end"),
    [(missing, 25, 45, Phase.GONE), (lagging, 290, 315, Phase.SUCCEEDED)],
)
async def test_what_decides_is_time_that_passed(step, answer, early, late, end):
    rig, phases = Rig(api=FakeApi(answer)), []

    def wall():
        now = anyio.current_time()
        return START + now + (step if now >= SET_AT else 0.0)

    async def look():
        phases.append(rig.board.records[keys(1)[0]].phase)

    rig.committer._wall = wall
    await rig.run(keys(1), late + 1, (early, look), (late, look))
    assert not phases[0].finished
    assert phases[1] is end
