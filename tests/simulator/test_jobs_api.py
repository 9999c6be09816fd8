"""The jobs API over HTTP: shapes, pages, editions, and polling against the truth."""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime

import anyio
import pytest

from tests.simulator.asking import ask, detail, jobs_path, page
from watcher.simulator import REAL_CLOCK, Dialect, SimulatorOptions, simulate

PAUSED = {"speed": 0.0, "seed": 7}
SERVER = "3384bdb0-2d31-4fe9-946e-09e776701d78"
NEW_JOB = {
    "name": "nightly-query",
    "server_ids": [SERVER],
    "type": "ASCEND_SOFTWARE_QUERY",
    "items": [{"type": "HDK_QUERY"}],
}


async def test_detail_has_the_documented_shape():
    async with simulate(SimulatorOptions(**PAUSED, tasks=2)) as sim:
        got = await detail(sim)
    job = got.json
    assert got.status == 200
    assert list(job) == [
        *("create_at", "update_at", "id", "name", "description", "type", "status"),
        *("items", "tasks", "template_id", "user_name", "abnormal_count"),
    ]
    assert job["items"] == [{"type": "HDK_QUERY"}]
    assert (job["name"], job["status"]) == ("software-query", "PROCESSING")
    task = job["tasks"][0]
    assert list(task) == [
        *("create_at", "update_at", "id", "server_id", "server_name"),
        *("cloud_server", "status", "message"),
    ]
    assert task["cloud_server"]["type"] == "BMS"
    assert task["server_name"].startswith("liteserver-a2-")
    for moment in (job["create_at"], task["create_at"]):
        assert isinstance(moment, int)
        assert abs(moment / 1000 - sim.clock.wall()) < 30


async def test_every_answer_has_a_request_id_and_the_servers_date():
    async with simulate(SimulatorOptions(**PAUSED, clock_skew=86_400.0)) as sim:
        first, second = await detail(sim), await ask(sim, "/nowhere")
    ids = [got.headers["X-Request-Id"] for got in (first, second)]
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids)
    assert ids[0] != ids[1]
    assert [entry.request_id for entry in sim.requests] == ids
    told = parsedate_to_datetime(first.headers["Date"]).timestamp()
    assert told - (REAL_CLOCK.wall() + 86_400) == pytest.approx(0, abs=3)


async def test_an_unknown_job_is_http_400_and_an_unknown_path_is_the_gateways_404():
    async with simulate(SimulatorOptions(**PAUSED)) as sim:
        missing = await detail(sim, "no-such-job")
        nowhere = [
            await ask(sim, jobs_path(sim, "templates")),
            await ask(sim, jobs_path(sim, "services")),
            await ask(sim, jobs_path(sim) + "/"),
            await ask(sim, jobs_path(sim), "PATCH"),
            await ask(sim, "/"),
        ]
        foreign = await ask(sim, "/v1/another-project/dev-servers/jobs")
    assert (missing.status, missing.code) == (400, "ModelArts.6404")
    assert missing.message.endswith("not found.")
    assert {(got.status, got.code) for got in nowhere} == {(404, "APIGW.0101")}
    assert (foreign.status, foreign.code) == (403, "APIGW.0302")


async def test_polling_sees_the_truth():
    """Each transition once, with its message and the API's own time."""
    options = SimulatorOptions(seed=3, jobs=2, tasks=4, speed=40.0, failing=1.0)
    async with simulate(options) as sim:
        truth = sim.truth()
        seen = {job_id: [] for job_id in sim.job_ids}
        known = {job_id: {} for job_id in sim.job_ids}
        answers = {}
        with anyio.fail_after(10):
            while {answer["status"] for answer in answers.values()} != {"FINISHED"}:
                for job_id in sim.job_ids:
                    answers[job_id] = (await detail(sim, job_id)).json
                    for task in answers[job_id]["tasks"]:
                        before = known[job_id].get(task["id"], "PROCESSING")
                        known[job_id][task["id"]] = task["status"]
                        if before != task["status"]:
                            seen[job_id].append((task, before))
    for job_id, told in truth.items():
        assert sorted(
            (task["id"], before, task["status"], task["message"], task["update_at"])
            for task, before in seen[job_id]
        ) == sorted(
            (t.task_id, t.from_status, t.to_status, t.message, round(t.at * 1000))
            for t in told.transitions
        )
        assert answers[job_id]["abnormal_count"] == told.abnormal_count > 0
        newest = max(task["update_at"] for task in answers[job_id]["tasks"])
        assert answers[job_id]["update_at"] < newest
        assert told.phase == "failed"


async def test_a_job_is_processing_until_all_its_tasks_have_ended():
    async with simulate(SimulatorOptions(**PAUSED, jobs=1, failing=0.0)) as sim:
        last = sim.jobs.find(sim.job_ids[0]).changes[-1].at
        sim.clock.set(advance=last - 0.1)
        before = (await detail(sim)).json
        sim.clock.set(advance=0.2)
        after = (await detail(sim)).json
    assert {task["status"] for task in before["tasks"]} == {"SUCCESS"}
    assert (before["status"], after["status"]) == ("PROCESSING", "FINISHED")


async def test_list_rows_have_no_tasks_template_or_items():
    async with simulate(SimulatorOptions(**PAUSED)) as sim:
        answer = (await page(sim)).json
        one = (await detail(sim)).json
    assert list(answer) == ["current", "pages", "size", "total", "data"]
    row = answer["data"][0]
    assert list(row) == [
        *("id", "name", "user_name", "description", "type", "status"),
        *("abnormal_count", "create_at", "update_at"),
    ]
    assert row == {name: one[name] for name in row}


@pytest.mark.parametrize(
    ("query", "current", "size", "first", "rows"),
    [
        ("", 1, 10, 0, 10),
        ("offset=10", 2, 10, 10, 10),
        ("limit=5&offset=20", 5, 5, 20, 5),
        ("limit=100", 1, 100, 0, 25),
        ("limit=10&offset=20", 3, 10, 20, 5),
        ("offset=99", 10, 10, 99, 0),
    ],
)
async def test_pages_oldest_first(query, current, size, first, rows):
    async with simulate(SimulatorOptions(**PAUSED, jobs=25)) as sim:
        answer = (await page(sim, query)).json
    assert (answer["current"], answer["size"], answer["total"]) == (current, size, 25)
    assert answer["pages"] == -(-25 // size)
    ids = [row["id"] for row in answer["data"]]
    assert ids == list(sim.job_ids[first : first + rows])


@pytest.mark.parametrize("query", ["limit=0", "limit=1025", "limit=x", "offset=-1"])
async def test_a_page_that_cannot_be(query):
    async with simulate(SimulatorOptions(**PAUSED)) as sim:
        got = await page(sim, query)
    assert (got.status, got.code) == (400, "ModelArts.6400")


async def test_paging_that_is_ignored_or_refused():
    async with simulate(SimulatorOptions(**PAUSED, paging="ignored")) as sim:
        ignored = (await page(sim, "limit=2&offset=5")).json
    assert [row["id"] for row in ignored["data"]] == list(sim.job_ids[:10])
    assert (ignored["current"], ignored["size"]) == (1, 10)
    async with simulate(SimulatorOptions(**PAUSED, paging="refused")) as sim:
        refused = await page(sim, "limit=2")
        plain = await page(sim)
    assert (refused.status, plain.status) == (400, 200)


async def test_list_filters():
    async with simulate(SimulatorOptions(**PAUSED, page_size=100)) as sim:
        first, second = sim.job_ids[:2]
        sim.jobs.finish(first)
        sim.clock.set(advance=0.5)
        sim.jobs.delete([second])

        async def chosen(query):
            return [row["id"] for row in (await page(sim, query)).json["data"]]

        assert await chosen("status=FINISHED") == [first]
        assert await chosen("status=DELETED") == [second]
        assert await chosen("visible=false") == [second]
        assert second not in await chosen("visible=true")
        assert await chosen(f"id={first}&type=ASCEND_SOFTWARE_QUERY") == [first]
        assert await chosen(f"id={first}&type=LOG_COLLECT") == []
        assert len(await chosen("name=driver-upgrade")) == 1


async def test_jobs_that_arrive_are_unknown_until_then():
    async with simulate(SimulatorOptions(**PAUSED, jobs=3, arrive_over=30.0)) as sim:
        totals = []
        for _ in range(3):
            totals.append((await page(sim)).json["total"])
            sim.clock.set(advance=10.0)
        late = await detail(sim, sim.job_ids[2])
    assert totals == [1, 2, 3]
    assert late.status == 200
    async with simulate(SimulatorOptions(**PAUSED, jobs=3, arrive_over=30.0)) as sim:
        assert (await detail(sim, sim.job_ids[2])).code == "ModelArts.6404"


@pytest.mark.parametrize(
    ("timestamps", "pattern"),
    [
        ("int", r"\d{13}"),
        ("string", r'"\d{13}"'),
        ("iso", r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"'),
    ],
)
async def test_dialects_of_time(timestamps, pattern):
    dialect = Dialect(timestamps=timestamps)
    async with simulate(SimulatorOptions(**PAUSED, dialect=dialect)) as sim:
        job = (await detail(sim)).json
    for holder in (job, job["tasks"][0]):
        for name in ("create_at", "update_at"):
            assert re.fullmatch(pattern, json.dumps(holder[name]))


async def test_the_dialect_whose_detail_always_says_active():
    dialect = Dialect(job_words="active")
    async with simulate(SimulatorOptions(**PAUSED, dialect=dialect)) as sim:
        sim.jobs.finish(sim.job_ids[0])
        sim.clock.set(advance=1.0)
        assert (await detail(sim)).json["status"] == "ACTIVE"
        assert (await page(sim)).json["data"][0]["status"] == "FINISHED"


@pytest.mark.parametrize("word", ["SKIPPED", "DELETE"])
async def test_the_word_for_tasks_that_were_not_carried_out(word):
    options = SimulatorOptions(
        **PAUSED, jobs=40, failing=1.0, dialect=Dialect(skipped=word)
    )
    async with simulate(options) as sim:
        words = {
            status for told in sim.truth().values() for status in told.tasks.values()
        }
    assert words == {"SUCCESS", "FAILED", word}


async def test_create_starts_without_tasks_and_runs_like_the_others():
    async with simulate(SimulatorOptions(**PAUSED)) as sim:
        got = await ask(sim, jobs_path(sim), "POST", body=NEW_JOB)
        job_id = got.json["id"]
        assert (got.status, got.json["tasks"]) == (200, [])
        assert (await detail(sim, job_id)).json["tasks"] == []
        sim.clock.set(advance=0.04)
        (task,) = (await detail(sim, job_id)).json["tasks"]
        assert (task["server_id"], task["status"]) == (SERVER, "PROCESSING")
        sim.clock.set(advance=60.0)
        done = (await detail(sim, job_id)).json
        assert (done["name"], done["status"]) == ("nightly-query", "FINISHED")
        assert sim.job_ids[-1] == job_id


async def test_a_cloud_without_jobs():
    async with simulate(SimulatorOptions(**PAUSED, jobs=0)) as sim:
        answer = (await page(sim)).json
        assert answer == {"current": 1, "pages": 0, "size": 10, "total": 0, "data": []}
        await ask(sim, jobs_path(sim), "POST", body=NEW_JOB)
        assert (await page(sim)).json["total"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"server_ids": []},
        {"server_ids": "all"},
        {"server_ids": ["not-a-uuid"]},
        {"type": "no spaces"},
        {"name": None},
    ],
)
async def test_create_refuses_nonsense(change):
    async with simulate(SimulatorOptions(**PAUSED)) as sim:
        got = await ask(sim, jobs_path(sim), "POST", body=NEW_JOB | change)
        assert (got.status, len(sim.job_ids)) == (400, 12)


async def test_delete_marks_jobs_and_answers_a_page():
    async with simulate(SimulatorOptions(**PAUSED)) as sim:
        gone, kept = sim.job_ids[:2]
        got = await ask(sim, jobs_path(sim), "DELETE", body={"job_ids": [gone]})
        assert (got.json["total"], got.json["data"][0]["id"]) == (1, gone)
        after = (await detail(sim, gone)).json
        assert after["status"] == "DELETED"
        assert {task["status"] for task in after["tasks"]} == {"SKIPPED"}
        assert (await detail(sim, kept)).json["status"] == "PROCESSING"
        missing = await ask(sim, jobs_path(sim), "DELETE", body={"job_ids": ["x"]})
        assert missing.code == "ModelArts.6404"
        nothing = await ask(sim, jobs_path(sim), "DELETE", body="{")
        assert nothing.code == "ModelArts.6400"
