"""A store whose commits hang for a while: looks go on, and all is told after."""

import sys

import anyio

from tests.whole.daemon import running, target
from watcher.simulator import SimulatorOptions, simulate

OPTIONS = SimulatorOptions(jobs=20, tasks=2, speed=0)
POLL = {"interval": "1s", "requests_per_second": 100, "mode": "detail"}
HANGS = 15.0


async def test_a_commit_that_hangs_fails_no_probe_and_delays_no_look(tmp_path):
    command = [sys.executable, "-m", "tests.whole.faulty"]
    async with simulate(OPTIONS) as sim:
        prod = target(sim.url, sim.job_ids, credentials={"kind": "none"})
        values = {"targets": {"prod": prod}, "poll": POLL}
        environ = {"SLOW": f"commit.before:{HANGS}"}
        async with running(
            tmp_path, values, environ=environ, command=command
        ) as daemon:
            await daemon.started()
            for job_id in sim.job_ids:
                sim.jobs.patch(job_id, "*", "FAILED")
            await anyio.sleep(12)
            assert (await daemon.get("/healthz"))[0] == 200
            assert (await daemon.get("/readyz"))[0] == 200
            seen = await daemon.metrics()
            assert seen[("watcher_store_commit_age_seconds",)] > 10
            assert seen["watcher_polls_total", ("target", "prod")] >= 0.95 * 20 * 11
            assert daemon.events("job.first_seen") == []
            await daemon.until(lambda: len(daemon.events("task.transition")) == 40)
            assert (await daemon.get("/healthz"))[0] == 200
            told = [line["event_id"] for line in daemon.events("task.transition")]
            assert len(set(told)) == 40
            await daemon.end()


async def test_slow_commits_delay_no_look(tmp_path):
    command = [sys.executable, "-m", "tests.whole.faulty"]
    async with simulate(OPTIONS) as sim:
        prod = target(sim.url, sim.job_ids, credentials={"kind": "none"})
        values = {"targets": {"prod": prod}, "poll": POLL}
        async with running(
            tmp_path, values, environ={"SLOW": "commit.before:1"}, command=command
        ) as daemon:
            await daemon.started()
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 20)
            before = await daemon.metrics()
            began = anyio.current_time()
            for turn in range(10):
                for job_id in sim.job_ids[turn % 10 :: 10]:
                    word = "PROCESSING" if turn > 5 else "FAILED"
                    sim.jobs.patch(job_id, "*", word)
                await anyio.sleep(1)
            after, passed = await daemon.metrics(), anyio.current_time() - began
            code, _ = await daemon.end()
    polls = ("watcher_polls_total", ("target", "prod"))
    assert after[polls] - before[polls] >= 0.95 * 20 * passed
    punctual = (
        "watcher_poll_lag_seconds_bucket",
        ("le", "0.5"),
        ("target", "prod"),
    )
    assert after[punctual] >= 0.98 * after[polls]
    assert code == 0
