"""From one life to the next: what changed meanwhile is told, and nothing else."""

import sqlite3
import time
from contextlib import closing

import anyio
import pytest

from tests.whole.daemon import running, target, until, watcher
from tests.whole.lives import journal
from tests.whole.unrest import seconds
from watcher.simulator import SimulatorOptions, simulate

FREE = {"kind": "none"}
POLL = {"interval": "250ms", "requests_per_second": 60, "mode": "detail"}
OPTIONS = SimulatorOptions(jobs=4, tasks=3, speed=0)


def values_of(sim, **more):
    prod = target(sim.url, sim.job_ids, credentials=FREE)
    return {"targets": {"prod": prod}, "poll": POLL, **more}


def told(daemon):
    return [line for line in daemon.lines if "event_id" in line]


async def until_all_seen(daemon, sim):
    await daemon.started()
    await daemon.until(lambda: len(daemon.events("job.first_seen")) == len(sim.job_ids))


async def two_rounds(sim):
    """Wait until every job was asked twice from now on."""
    asked = dict.fromkeys(sim.job_ids, 0)
    start = sim.requests.total

    def often():
        counts = dict(asked)
        for request in sim.requests:
            if request.number > start and request.job_id in counts:
                counts[request.job_id] += 1
        return min(counts.values()) >= 2

    await until(often)
    await anyio.sleep(0.5)


async def test_what_changed_while_it_was_down(tmp_path):
    async with simulate(OPTIONS) as sim:
        sim.clock.set(advance=0.1)
        async with running(tmp_path, values_of(sim)) as daemon:
            await until_all_seen(daemon, sim)
            await anyio.sleep(1)
            asked_last = max(request.at for request in sim.requests)
            assert (await daemon.end())[0] == 0
        last = {
            request.job_id: request.at
            for request in sim.requests
            if request.at <= asked_last + 1
        }
        stopped = time.time()
        await anyio.sleep(1)
        changed, also, *_ = sim.job_ids
        expected = set()
        for job_id, word in ((changed, "FAILED"), (also, "SUCCESS")):
            task = sim.jobs.tasks(job_id)[1]
            sim.jobs.patch(job_id, task.id, word)
            expected.add((job_id, task.id, "PROCESSING", word))
        start = sim.requests.total
        async with running(tmp_path, values_of(sim)) as daemon:
            await daemon.started()
            await two_rounds(sim)
            assert (await daemon.end())[0] == 0
    lines = told(daemon)
    transitions = [line for line in lines if line["event"] == "task.transition"]
    assert {
        (line["job_id"], line["task_id"], line["from"], line["to"])
        for line in transitions
    } == expected
    assert len(transitions) == 2
    others = [line for line in lines if line not in transitions]
    assert [(line["event"], line["job_id"]) for line in others] == [
        ("job.abnormal_count", changed)
    ]
    first = {}
    for request in sim.requests:
        if request.number > start:
            first.setdefault(request.job_id, request.at)
    for line in lines:
        job_id = line["job_id"]
        assert abs(seconds(line["not_before"]) - last[job_id]) < 0.1, "the last look"
        assert seconds(line["not_before"]) < stopped
        assert 0 <= seconds(line["observed_at"]) - first[job_id] < 1, "the first look"
        assert "replayed" not in line


async def test_a_second_daemon_on_the_same_store(tmp_path):
    async with simulate(OPTIONS) as sim, running(tmp_path, values_of(sim)) as daemon:
        await until_all_seen(daemon, sim)
        command = ("run", "--config", tmp_path / "watcher.yaml")
        same = {"STATE_DIRECTORY": str(tmp_path)}
        done = await anyio.to_thread.run_sync(lambda: watcher(*command, **same))
        assert done.returncode == 78
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("watcher: store.url: ")
        assert f"held by another watcher (process {daemon.process.pid})" in line
        first, *_ = sim.jobs.tasks(sim.job_ids[0])
        sim.jobs.patch(sim.job_ids[0], first.id, "FAILED")
        await daemon.until(lambda: daemon.events("task.transition"))


def spoil(path, what):
    """Overwrite a page of the file: where an index begins, or the file itself."""
    page = 1
    with closing(sqlite3.connect(path)) as db:
        (size,) = db.execute("PRAGMA page_size").fetchone()
        if what:
            query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
            (page,) = db.execute(query, (what,)).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


async def damaged(folder, what):
    """Live, be damaged, live again; return both lives and the journal of the first."""
    async with simulate(OPTIONS) as sim:
        sim.clock.set(advance=0.1)
        async with running(folder, values_of(sim)) as before:
            await until_all_seen(before, sim)
            *_, last = sim.jobs.tasks(sim.job_ids[0])
            sim.jobs.patch(sim.job_ids[0], last.id, "SUCCESS")
            await before.until(lambda: before.events("task.transition"))
            assert (await before.end())[0] == 0
        events = journal(folder)
        spoil(folder / "watcher.db", what)
        async with running(folder, values_of(sim)) as after:
            await after.started()
            await two_rounds(sim)
            silent = list(told(after))
            first, *_ = sim.jobs.tasks(sim.job_ids[0])
            sim.jobs.patch(sim.job_ids[0], first.id, "FAILED")
            await after.until(lambda: after.events("task.transition"))
            assert (await after.end())[0] == 0
    line = after.first("store.damaged")
    assert line["level"] == "error"
    aside = folder / line["moved_to"].rpartition("/")[2]
    assert aside.read_bytes().count(b"\xff" * 512)
    assert line["last_seq"] >= len(events)
    assert after.first("task.transition")["seq"] > line["last_seq"]
    return before, after, silent


async def test_a_damaged_store_whose_rows_can_be_read(tmp_path):
    before, after, silent = await damaged(tmp_path, "journal_by_age")
    assert silent == [], "the old file proves all of it old"
    assert after.first("store.damaged")["events"] == len(told(before))
    assert len(journal(tmp_path)) == len(told(before)) + len(told(after))


async def test_a_damaged_store_of_which_nothing_can_be_read(tmp_path):
    before, after, silent = await damaged(tmp_path, None)
    assert after.first("store.damaged")["records"] == 0
    ids, again = (
        {line["event_id"] for line in lines if line["event"] == "job.first_seen"}
        for lines in (told(before), silent)
    )
    assert again == ids, "told anew, recognisably"
    assert min(line["seq"] for line in silent) > max(x["seq"] for x in told(before))


@pytest.mark.parametrize(
    "change",
    [
        (
            "UPDATE records SET body = json_set(body, '$.finished_at', 1e300)"
            " WHERE job_id = (SELECT min(job_id) FROM records)"
        ),
        "INSERT INTO watched VALUES ('prod', x'ff00')",
        "UPDATE sinks SET offered = 'many'",
    ],
)
async def test_a_store_with_a_value_that_nobody_wrote(tmp_path, change):
    async with simulate(OPTIONS) as sim:
        async with running(tmp_path, values_of(sim)) as before:
            await until_all_seen(before, sim)
            assert (await before.end())[0] == 0
        with closing(sqlite3.connect(tmp_path / "watcher.db")) as db, db:
            assert db.execute(change).rowcount == 1
        async with running(tmp_path, values_of(sim)) as after:
            await after.started()
            await two_rounds(sim)
            first, *_ = sim.jobs.tasks(sim.job_ids[0])
            sim.jobs.patch(sim.job_ids[0], first.id, "FAILED")
            await after.until(lambda: after.events("task.transition"))
            assert (await after.end())[0] == 0
    assert len(after.events("store.damaged")) == 1


async def test_finished_jobs_leave_once_they_were_seen(tmp_path):
    async with simulate(OPTIONS) as sim:
        sim.clock.set(advance=0.1)
        values = values_of(sim, finished={"retention": "2s"})
        ended, *_ = sim.job_ids
        async with running(tmp_path, values) as daemon:
            await until_all_seen(daemon, sim)
            families = series(await daemon.metrics(), ended)
            sim.jobs.patch(ended, "*", "FAILED")
            sim.jobs.say(ended, "FINISHED")
            await daemon.until(lambda: daemon.events("job.finished"))
            await anyio.sleep(2 + 2 * 2 + 1)  # retention and two looks at it
            shown = await daemon.metrics()
            assert series(shown, ended) > families, "no scrape has shown the end yet"
            key = ("job_id", ended), ("phase", "failed"), ("target", "prod")
            assert shown["devserver_job_phase", *key] == 1
            whole = series(shown, ended)
            with anyio.fail_after(10):
                while left := series(await daemon.metrics(), ended):
                    assert left == whole, "all of them or none"
                    await anyio.sleep(0.1)
            assert ended not in (await daemon.get("/metrics"))[1]
            assert (await daemon.end())[0] == 0
        asked = sim.requests.total
        async with running(tmp_path, values) as daemon:
            await daemon.started()
            await anyio.sleep(2)
            assert told(daemon) == []
        assert ended not in {r.job_id for r in sim.requests if r.number > asked}


def series(metrics, job_id):
    """Names of the families that show a job."""
    return {name[0] for name in metrics if ("job_id", job_id) in name}
