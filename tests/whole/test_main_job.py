"""The main job: every transition once, the gauges true, the ceiling kept."""

import bisect
import json
from collections import Counter

import anyio
import pytest
from aiohttp import web

from tests.core.test_wire import PAGE_EXAMPLE
from tests.whole.daemon import ACCESS_KEY, SECRET_KEY, running, target
from watcher.simulator import SimulatorOptions, simulate

OPTIONS = SimulatorOptions(
    jobs=30, tasks=8, speed=8.0, failing=0.4, credentials={ACCESS_KEY: SECRET_KEY}
)
CEILING = 20


def finished_in(sim, seconds):
    """Ids of the jobs that end within so many seconds from the start."""
    started = sim.clock.wall()
    return [
        job_id
        for job_id, truth in sim.truth().items()
        if truth.finished_at is not None and truth.finished_at < started + seconds
    ]


async def test_thirty_jobs_of_eight_tasks(tmp_path):
    async with simulate(OPTIONS) as sim:
        values = {
            "targets": {"prod": target(sim.url, sim.job_ids)},
            "poll": {"interval": "1s", "requests_per_second": CEILING},
        }
        async with running(tmp_path, values) as daemon:
            await daemon.started()
            sim.clock.set(speed=60)
            await daemon.until(lambda: len(daemon.events("job.finished")) == 30)
            truth = sim.truth()
            asked_until_then = sim.requests.total
            await anyio.sleep(3)
            assert sim.requests.total == asked_until_then, (
                "finished jobs are left alone"
            )
            metrics = await daemon.metrics()
            assert (await daemon.get("/readyz"))[0] == 200
            code, seconds = await daemon.end()
    assert (code, daemon.errors) == (0, [])
    assert seconds < 5
    assert SECRET_KEY not in daemon.output
    _check_transitions(daemon, truth)
    _check_ends(daemon, truth)
    _check_gauges(metrics, truth)
    _check_ceiling([request.monotonic for request in sim.requests])
    seqs = [line["seq"] for line in daemon.lines if "seq" in line]
    assert seqs == sorted(set(seqs))
    ids = [line["event_id"] for line in daemon.lines if "event_id" in line]
    assert len(ids) == len(set(ids))


def _check_transitions(daemon, truth):
    told = Counter(
        (line["job_id"], line["task_id"], line["to"], line["level"], line["message"])
        for line in daemon.events("task.transition")
    )
    expected = Counter(
        (
            job.job_id,
            each.task_id,
            each.to_status,
            "warning" if each.to_status == "FAILED" else "info",
            each.message,
        )
        for job in truth.values()
        for each in job.transitions
        if each.from_status is not None
    )
    assert told == expected
    before = {line["from"] for line in daemon.events("task.transition")}
    assert before <= {"PROCESSING", None}
    sightings = daemon.events("job.first_seen")
    assert {line["job_id"] for line in sightings} == set(truth)
    assert len(sightings) == len(truth)


def _check_ends(daemon, truth):
    ends = {line["job_id"]: line for line in daemon.events("job.finished")}
    assert len(daemon.events("job.finished")) == len(ends) == len(truth)
    for job_id, job in truth.items():
        line = ends[job_id]
        assert line["phase"] == job.phase
        assert line["abnormal_count"] == job.abnormal_count
        assert line["tasks"] == Counter(job.tasks.values())
        assert line["level"] == ("info" if job.phase == "succeeded" else "warning")
        assert line["duration_seconds"] > 0


def _check_gauges(metrics, truth):
    for job_id, job in truth.items():
        key = ("job_id", job_id), ("target", "prod")
        for phase in ("active", "succeeded", "failed", "deleted", "gone", "unknown"):
            shown = metrics["devserver_job_phase", key[0], ("phase", phase), key[1]]
            assert shown == (phase == job.phase)
        assert (
            metrics["devserver_job_status", key[0], ("status", job.status), key[1]] == 1
        )
        assert metrics["devserver_job_abnormal_count", *key] == job.abnormal_count
        counts = Counter(job.tasks.values())
        for word, count in counts.items():
            assert (
                metrics["devserver_job_tasks", key[0], ("status", word), key[1]]
                == count
            )
    shown_tasks = Counter(
        (labels["job_id"], labels["task_id"], labels["status"])
        for labels in (
            dict(name[1:]) for name in metrics if name[0] == "devserver_task_status"
        )
    )
    assert shown_tasks == Counter(
        (job.job_id, task_id, status)
        for job in truth.values()
        for task_id, status in job.tasks.items()
    )


def _check_ceiling(times):
    times = sorted(times)
    most = max(
        bisect.bisect_left(times, start + 1) - place
        for place, start in enumerate(times)
    )
    assert most <= CEILING * 1.1 + 2, (
        "one of it for requests that travel at unequal speed"
    )


@pytest.mark.parametrize("failing", [0.0, 1.0])
async def test_ends_when_done_with_the_code_of_the_jobs(tmp_path, failing):
    options = SimulatorOptions(
        jobs=3,
        tasks=2,
        speed=100,
        failing=failing,
        credentials={ACCESS_KEY: SECRET_KEY},
    )
    async with simulate(options) as sim:
        values = {
            "targets": {"prod": target(sim.url, sim.job_ids)},
            "poll": {"interval": "200ms"},
            "finished": {"exit_when_done": True},
        }
        async with running(tmp_path, values) as daemon:
            with anyio.fail_after(60):
                code = await daemon.process.wait()
            await anyio.sleep(0.1)
    assert code == (1 if failing else 0)
    assert len(daemon.events("job.finished")) == 3
    assert daemon.lines[-1]["event"] == "watcher.stopped"


async def test_job_files_come_and_go(tmp_path):
    options = SimulatorOptions(
        jobs=2, tasks=2, speed=0, credentials={ACCESS_KEY: SECRET_KEY}
    )
    folder = tmp_path / "jobs.d"
    folder.mkdir()
    async with simulate(options) as sim:
        first, second = sim.job_ids
        files = [str(folder / "*.txt")]
        values = {"targets": {"prod": target(sim.url, [], job_files=files)}}
        async with running(tmp_path, values) as daemon:
            await daemon.started()
            line = daemon.first("watcher.started")
            assert (line["jobs"], line["idle_targets"]) == (0, ["prod"])
            assert line["level"] == "warning"
            (folder / "a.txt").write_text(f"{first}\n")
            await daemon.until(lambda: daemon.events("job.first_seen"))
            (folder / "b.txt").write_text(f"{second}\n../etc\n")
            await daemon.until(lambda: daemon.events("jobs.unreadable"))
            assert f"{folder}/b.txt:2" in daemon.first("jobs.unreadable")["problem"]
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 2)
            gauge = "\nwatcher_config_last_reload_successful {}.0\n"
            assert gauge.format(0) in (await daemon.get("/metrics"))[1]
            (folder / "b.txt").write_text(f"{second}\n")
            (folder / "a.txt").unlink()
            await daemon.until(lambda: daemon.events("jobs.changed")[-1]["removed"])
            _, text = await daemon.get("/metrics")
            assert first not in text
            assert second in text
            assert gauge.format(1) in text


async def test_the_example_of_the_api_page(tmp_path):
    async def answer(_):
        return web.json_response(PAGE_EXAMPLE)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    job_id = PAGE_EXAMPLE["id"]
    plain = target(f"http://{host}:{port}", [job_id], credentials={"kind": "none"})
    try:
        async with running(tmp_path, {"targets": {"prod": plain}}) as daemon:
            await daemon.started()
            await daemon.until(lambda: daemon.events("job.finished"))
            metrics = await daemon.metrics()
    finally:
        await runner.cleanup()
    assert [line["event"] for line in daemon.lines[1:4]] == [
        "job.first_seen",
        "task.transition",
        "job.finished",
    ]
    transition = daemon.first("task.transition")
    assert transition["message"] == "Driver: 24.1.0.3 | Firmware: 7.5.0.5.220"
    assert (transition["from"], transition["to"]) == (None, "SUCCESS")
    key = ("job_id", job_id), ("target", "prod")
    assert metrics["devserver_job_phase", key[0], ("phase", "succeeded"), key[1]] == 1
    assert metrics["devserver_job_abnormal_count", *key] == 0
    assert metrics["devserver_job_tasks", key[0], ("status", "SUCCESS"), key[1]] == 1


FRAME = [
    "timestamp",
    "level",
    "event",
    "event_id",
    "seq",
    "target",
    "project_id",
    "job_id",
    "job_name",
    "job_type",
    "observed_at",
    "not_before",
]
FIELDS = {
    "job.first_seen": ["status", "phase", "tasks", "abnormal_count"],
    "task.transition": [
        "task_id",
        "server_id",
        "server_name",
        "cloud_server_id",
        "cloud_server_type",
        "from",
        "to",
        "message",
        "updated_at",
        "detection_latency_seconds",
    ],
    "job.transition": ["from", "to", "abnormal_count"],
    "job.abnormal_count": ["from", "to"],
    "job.finished": ["phase", "abnormal_count", "tasks", "duration_seconds"],
}


async def test_every_line_has_the_fields_of_its_event(tmp_path):
    options = SimulatorOptions(
        jobs=2, tasks=4, speed=200, failing=1.0, credentials={ACCESS_KEY: SECRET_KEY}
    )
    async with simulate(options) as sim:
        values = {
            "targets": {"prod": target(sim.url, sim.job_ids)},
            "poll": {"interval": "100ms"},
        }
        async with running(tmp_path, values) as daemon:
            await daemon.started()
            await daemon.until(lambda: len(daemon.events("job.finished")) == 2)
    seen = set()
    for line in daemon.lines:
        if "event_id" in line:
            assert list(line) == [*FRAME, *FIELDS[line["event"]]]
            seen.add(line["event"])
        assert json.dumps(line)
    assert seen >= {"job.first_seen", "task.transition", "job.finished"}
