"""The server around it: the control door, the log, starting and ending."""

from __future__ import annotations

import aiohttp
import anyio
import pytest

from tests.simulator.asking import ACCESS_KEY, ask, detail, jobs_path, page, signed
from watcher.simulator import SimulatorOptions, parse_faults, serve, simulate
from watcher.simulator.answers import RawRequest
from watcher.simulator.control import Control

PAUSED = {"speed": 0.0, "jobs": 3, "tasks": 2, "failing": 0.0}


def paused(**more):
    return simulate(SimulatorOptions(**PAUSED | more))


async def control(sim, path, method="GET", body=None):
    return await ask(sim, f"/_simulator/{path}", method, body=body)


async def test_the_door_tells_the_truth_of_now():
    async with paused() as sim:
        (first, *_) = (await control(sim, "jobs")).json["jobs"]
        assert first["id"] == sim.job_ids[0]
        assert (first["status"], first["phase"]) == ("PROCESSING", "active")
        assert list(first["tasks"].values()) == ["PROCESSING", "PROCESSING"]
        sim.clock.set(advance=500.0)
        (first, *_) = (await control(sim, "jobs")).json["jobs"]
        assert (first["status"], first["phase"]) == ("FINISHED", "succeeded")
        assert set(first["tasks"].values()) == {"SUCCESS"}


async def test_the_door_tells_what_is_to_come():
    async with simulate(SimulatorOptions(jobs=1, tasks=2)) as sim:
        (job_id,) = sim.job_ids
        told = (await control(sim, f"jobs/{job_id}")).json["truth"]
        moves = sim.jobs.truth(job_id).transitions
        assert [move["at"] for move in told["transitions"]] == [m.at for m in moves]
        sim.clock.set(speed=0)
        told = (await control(sim, f"jobs/{job_id}")).json["truth"]
        assert told["finished_at"] is None


async def test_a_job_is_changed_by_hand():
    async with paused() as sim:
        job_id = sim.job_ids[0]
        first, second = (task.id for task in sim.jobs.tasks(job_id))
        change = {"tasks": {first: {"status": "FAILED", "message": "power lost"}}}
        got = await control(sim, f"jobs/{job_id}", "POST", change)
        assert got.json["tasks"] == {first: "FAILED", second: "PROCESSING"}
        job = (await detail(sim)).json
        assert (job["abnormal_count"], job["status"]) == (1, "PROCESSING")
        assert job["tasks"][0]["message"] == "power lost"
        await control(sim, f"jobs/{job_id}", "POST", {"finish": True})
        sim.clock.set(advance=1.0)
        job = (await detail(sim)).json
        assert [task["status"] for task in job["tasks"]] == ["FAILED", "SUCCESS"]
        assert job["status"] == "FINISHED"
        truth = sim.truth()[job_id]
        moves = {move.task_id: move.to_status for move in truth.transitions}
        assert moves == {first: "FAILED", second: "SUCCESS"}
        assert (truth.phase, truth.abnormal_count) == ("failed", 1)


async def test_a_finished_job_can_be_taken_back_and_a_deleted_one_cannot():
    async with paused() as sim:
        job_id, other = sim.job_ids[:2]
        sim.jobs.finish(job_id)
        sim.clock.set(advance=1.0)
        back = {"tasks": {"*": {"status": "PROCESSING"}}}
        got = await control(sim, f"jobs/{job_id}", "POST", back)
        assert got.json["status"] == "PROCESSING"
        sim.clock.set(advance=500.0)
        assert (await detail(sim)).json["status"] == "PROCESSING"
        sim.jobs.finish(job_id)
        sim.clock.set(advance=1.0)
        assert (await detail(sim)).json["status"] == "FINISHED"
        sim.jobs.delete([other])
        got = await control(sim, f"jobs/{other}", "POST", back)
        assert got.json["status"] == "DELETED"
        sim.jobs.finish(other)
        sim.clock.set(advance=1.0)
        assert (await detail(sim, other)).json["status"] == "DELETED"


async def test_a_result_is_corrected_after_the_end():
    async with paused() as sim:
        job_id = sim.job_ids[0]
        sim.clock.set(advance=500.0)
        sim.jobs.patch(job_id, "*", "FAILED")
        job = (await detail(sim)).json
    assert (job["status"], job["abnormal_count"]) == ("FINISHED", 2)
    assert job["tasks"][0]["message"].startswith("Driver: ")


async def test_the_jobs_own_word_is_changed_by_hand():
    async with paused() as sim:
        job_id = sim.job_ids[0]
        await control(sim, f"jobs/{job_id}", "POST", {"status": "FINISHED"})
        job = (await detail(sim)).json
    assert job["status"] == "FINISHED"
    assert {task["status"] for task in job["tasks"]} == {"PROCESSING"}


async def test_faults_are_changed_while_it_runs():
    async with paused() as sim:
        got = await control(sim, "faults", "PUT", "500:count=1")
        assert got.json == {
            "faults": [{"kind": "500", "count": 1, "seen": 0, "applied": 0}]
        }
        await control(sim, "faults", "POST", [{"kind": "gone"}])
        assert [(await detail(sim)).status for _ in range(2)] == [500, 400]
        counts = (await control(sim, "faults")).json["faults"]
        assert [(rule["seen"], rule["applied"]) for rule in counts] == [(2, 1), (2, 1)]
        bad = await control(sim, "faults", "PUT", "nonsense")
        assert (bad.status, len(list(sim.faults))) == (400, 2)
        assert "unknown kind 'nonsense'" in bad.json["error"]
        await control(sim, "faults", "DELETE")
        assert (await detail(sim)).status == 200


async def test_the_clock_is_changed_while_it_runs():
    async with paused() as sim:
        wanted = {"speed": 3, "advance": 100, "skew": -60}
        got = await control(sim, "clock", "PUT", wanted)
        assert got.json["scenario"] >= 100
        assert (got.json["speed"], got.json["skew"]) == (3, -60)
        assert (await control(sim, "clock", "PUT", {"speed": -1})).status == 400
        assert (await control(sim, "clock")).json["speed"] == 3


async def test_credentials_are_changed_while_it_runs():
    async with paused() as sim:
        target = jobs_path(sim)
        assert (await page(sim)).status == 200
        keys = {"credentials": {ACCESS_KEY: "new-secret"}, "tokens": ["t"]}
        got = await control(sim, "credentials", "PUT", keys)
        assert got.json == {"checked": True, "access_keys": [ACCESS_KEY], "tokens": 1}
        assert (await page(sim)).status == 401
        headers = signed(sim, target, secret_key="new-secret")
        assert (await ask(sim, target, headers=headers)).status == 200
        assert (await page(sim, headers={"x-auth-token": "t"})).status == 200
        await control(sim, "credentials", "PUT", {"expired_tokens": ["t"]})
        assert (await page(sim, headers={"x-auth-token": "t"})).code == "APIGW.0307"
        await control(sim, "credentials", "PUT", {"credentials": None})
        assert (await page(sim)).status == 200


async def test_the_log_of_requests():
    async with paused(log_size=4) as sim:
        for job_id in sim.job_ids:
            await detail(sim, job_id)
        await page(sim, "limit=1")
        await ask(sim, "/nowhere")
        got = (await control(sim, "requests")).json
        assert got["total"] == 5
        assert got["calls"] == {"detail": 3, "list": 1, "unknown": 1}
        assert got["statuses"] == {"200": 4, "404": 1}
        assert [entry["number"] for entry in got["requests"]] == [2, 3, 4, 5]
        moments = [entry["monotonic"] for entry in got["requests"]]
        assert moments == sorted(moments)
        narrowed = await control(sim, f"requests?call=detail&job_id={sim.job_ids[2]}")
        assert [entry["number"] for entry in narrowed.json["requests"]] == [3]
        newer = (await control(sim, "requests?after=3")).json["requests"]
        assert [entry["call"] for entry in newer] == ["list", "unknown"]
        newest = (await control(sim, "requests?limit=1")).json["requests"]
        assert [entry["call"] for entry in newest] == ["unknown"]


async def test_requests_in_flight_are_counted():
    async with paused(latency=0.3) as sim, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(detail, sim)
        await anyio.sleep(0.15)
        assert sim.requests.in_flight == 3
    assert (sim.requests.in_flight, sim.requests.most_in_flight) == (0, 3)


async def test_mistakes_at_the_door_are_answered():
    async with paused() as sim:
        job = f"jobs/{sim.job_ids[0]}"
        unknown = await control(sim, "nothing")
        assert unknown.status == 404
        assert "PUT /_simulator/faults" in unknown.json["known"]
        assert (await control(sim, "jobs/none")).status == 404
        assert (await control(sim, "jobs/none", "POST", {"finish": True})).status == 404
        assert (await control(sim, "clock", "PUT", [1])).status == 400
        assert (await control(sim, "clock", "PUT", "{")).status == 400
        wrong = {"tasks": {"none": {"status": "FAILED"}}}
        assert (await control(sim, job, "POST", wrong)).status == 404
        assert (await control(sim, job, "POST", {"tasks": 1})).status == 400


@pytest.mark.parametrize(
    ("remote", "anywhere", "status"),
    [
        ("127.0.0.1", False, 200),
        ("::1", False, 200),
        ("10.0.0.7", False, 403),
        ("", False, 403),
        ("10.0.0.7", True, 200),
    ],
)
async def test_the_door_is_open_to_this_machine_alone(remote, anywhere, status):
    async with paused(control_from_anywhere=anywhere) as sim:
        request = RawRequest("GET", "/_simulator/clock", {})
        assert Control(sim).handle(request, remote).status == status


@pytest.mark.parametrize("fault", ["hang", "slow_drip:seconds=60"])
async def test_the_end_is_immediate_whatever_is_open(fault):
    async with anyio.create_task_group() as tasks:
        async with paused() as sim:
            sim.faults.add(fault)

            async def wait():
                with pytest.raises(aiohttp.ClientError):
                    await detail(sim)

            tasks.start_soon(wait)
            await anyio.sleep(0.1)
            began = anyio.current_time()
        assert anyio.current_time() - began < 1
    assert sim.requests.in_flight == 0


async def test_the_end_is_immediate_for_a_client_that_does_not_read():
    async with aiohttp.ClientSession() as session:
        async with paused(faults=parse_faults("big_body")) as sim:
            response = await session.get(sim.url + jobs_path(sim))
            await anyio.sleep(0.1)
            assert sim.requests.in_flight == 1
            began = anyio.current_time()
        assert anyio.current_time() - began < 1
        response.close()


async def test_serve_runs_until_cancelled():
    started = []
    ready = anyio.Event()

    def note(sim):
        started.append(sim)
        ready.set()

    async with anyio.create_task_group() as tasks:
        options = SimulatorOptions(**PAUSED)
        tasks.start_soon(serve, options, "127.0.0.1", 0, note)
        with anyio.fail_after(5):
            await ready.wait()
        assert (await detail(started[0])).status == 200
        tasks.cancel_scope.cancel()
    with pytest.raises(OSError, match="connect"):
        await detail(started[0])


async def test_an_address_in_use_is_an_os_error():
    async with paused() as sim:
        port = int(sim.url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="address"):
            async with simulate(port=port):
                pass


async def test_ten_thousand_jobs_are_served_at_once():
    async with paused(jobs=10_000) as sim:
        with anyio.fail_after(10):
            for job_id in sim.job_ids[::100]:
                assert (await detail(sim, job_id)).json["id"] == job_id
            query = "limit=1000&offset=9000&status=PROCESSING"
            assert (await page(sim, query)).json["total"] == 10_000
