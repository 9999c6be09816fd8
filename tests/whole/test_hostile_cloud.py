"""What a broken or hostile cloud must not achieve: memory, other hosts, forged lines."""

import re
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.whole.daemon import ACCESS_KEY, SECRET_KEY, running, target
from watcher.simulator import SimulatorOptions, simulate

MOST_GROWTH = 64 * 1024
KEYS = {ACCESS_KEY: SECRET_KEY}


def peak(process):
    """Return the most kibibytes that a process ever held in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


@asynccontextmanager
async def watching(folder, sim):
    values = {
        "targets": {"prod": target(sim.url, sim.job_ids)},
        "poll": {"interval": "500ms", "backoff_max": "1s", "mode": "detail"},
    }
    async with running(folder, values) as daemon:
        await daemon.started()
        count = len(sim.job_ids)
        await daemon.until(lambda: len(daemon.events("job.first_seen")) == count)
        yield daemon


@pytest.mark.parametrize("jobs", [1, 12])
async def test_a_body_of_200_megabytes(tmp_path, jobs):
    options = SimulatorOptions(jobs=jobs, tasks=2, speed=0, credentials=KEYS)
    async with simulate(options) as sim, watching(tmp_path, sim) as daemon:
        before = peak(daemon.process)
        sim.faults.replace("big_body:size=200000000")
        await daemon.until(lambda: len(daemon.events("poll.failing")) == jobs)
        growth = peak(daemon.process) - before
        sim.faults.clear()
        await daemon.until(lambda: len(daemon.events("poll.recovered")) == jobs)
        assert (await daemon.get("/healthz"))[0] == 200
    assert {line["reason"] for line in daemon.events("poll.failing")} == {"malformed"}
    assert growth < MOST_GROWTH, f"{growth / 1024:.0f} MiB"


async def test_a_redirect_is_not_followed(tmp_path):
    options = SimulatorOptions(jobs=1, tasks=2, speed=0, credentials=KEYS)
    async with (
        simulate(options) as sim,
        simulate(SimulatorOptions(jobs=1)) as other,
        watching(tmp_path, sim) as daemon,
    ):
        sim.faults.replace(f"302:location={other.url}/login")
        await daemon.until(lambda: daemon.events("poll.failing"))
        await daemon.until(lambda: sim.requests.faults["302"] > 3)
        assert other.requests.total == 0
    (line,) = daemon.events("poll.failing")
    assert (line["reason"], line["status_code"]) == ("malformed", 302)
