"""A machine whose clock is twenty minutes wrong still watches, and says so."""

from pathlib import Path

import pytest

from tests.real.components import require
from tests.whole.daemon import ACCESS_KEY, SECRET_KEY, running, target
from tests.whole.test_main_job import _check_transitions
from watcher.simulator import SimulatorOptions, simulate

MINUTES = 20


def faked(sign):
    """Return an environment whose wall clock alone is wrong."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{sign}{MINUTES}m",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.parametrize("sign", ["+", "-"])
async def test_twenty_minutes_wrong(tmp_path, sign):
    require("faketime")
    wrong = float(f"{sign}{MINUTES * 60}")
    options = SimulatorOptions(
        jobs=4, tasks=4, speed=0, credentials={ACCESS_KEY: SECRET_KEY}
    )
    async with simulate(options) as sim:
        sim.clock.set(advance=1.0)
        values = {
            "targets": {"prod": target(sim.url, sim.job_ids)},
            "poll": {"interval": "500ms"},
        }
        async with running(tmp_path, values, environ=faked(sign)) as daemon:
            await daemon.started()
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 4)
            sim.clock.set(speed=15.0)
            await daemon.until(lambda: len(daemon.events("job.finished")) == 4)
            metrics = await daemon.metrics()
            assert (await daemon.end())[0] == 0
        truth, statuses = sim.truth(), sim.requests.statuses
    _check_transitions(daemon, truth)
    assert statuses[401] == 1, "the clock is learned from the first refusal"
    assert not daemon.events("poll.failing")
    (line,) = daemon.events("clock.skewed")
    assert (line["level"], line["target"]) == ("warning", "prod")
    assert line["skew_seconds"] == pytest.approx(wrong, abs=5)
    assert metrics["watcher_clock_skew_seconds", ("target", "prod")] == pytest.approx(
        wrong, abs=5
    )
    late = [
        line["detection_latency_seconds"] for line in daemon.events("task.transition")
    ]
    assert max(late) < 10
    assert not daemon.errors
