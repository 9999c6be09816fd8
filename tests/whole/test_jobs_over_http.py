"""Jobs that are added and removed while the daemon runs."""

import json
import re
import signal

import aiohttp
import anyio
import pytest

from tests.real.components import ROOT, require
from tests.whole.daemon import running, surroundings, target
from watcher.simulator import SimulatorOptions, simulate

TOKEN = "a-token-of-thirty-two-characters"
FREE = {"kind": "none"}
GONE = "00000000-0000-0000-0000-000000000000"


def configured(sim, **prod):
    return {
        "targets": {"prod": target(sim.url, [], credentials=FREE) | prod},
        "poll": {"interval": "200ms"},
        "server": {"listen": "127.0.0.1:0", "api_token": TOKEN},
    }


async def ask(daemon, method, path, token=TOKEN, **more):
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(daemon.url, headers=headers) as session,
        session.request(method, path, **more) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text) if text else None


async def add(daemon, job_id, **more):
    wanted = {"target": "prod", "job_id": job_id} | more
    return (await ask(daemon, "POST", "/api/v1/jobs", json=wanted))[0]


async def remove(daemon, job_id):
    return (await ask(daemon, "DELETE", f"/api/v1/jobs/prod/{job_id}"))[0]


def asked(sim, job_id):
    return sum(job_id == request.job_id for request in sim.requests)


async def watched(daemon):
    _, shown = await ask(daemon, "GET", "/api/v1/jobs")
    return {job["job_id"] for job in shown["jobs"]}


@pytest.fixture
async def sim():
    async with simulate(SimulatorOptions(jobs=3, tasks=2, speed=0)) as sim:
        yield sim


async def test_an_added_job_survives_a_kill_and_a_removed_one_does_not(tmp_path, sim):
    given, first, second = sim.job_ids
    values = configured(sim, jobs=[given])
    async with running(tmp_path, values) as daemon:
        await daemon.started()
        assert await add(daemon, second) == 201
        await daemon.until(lambda: len(daemon.events("job.first_seen")) == 2)
        assert await remove(daemon, second) == 204
        assert await remove(daemon, second) == 404
        assert await remove(daemon, given) == 409
        assert await add(daemon, first) == 201
        assert await add(daemon, first) == 200
        await daemon.until(lambda: len(daemon.events("job.first_seen")) == 3)
        assert await watched(daemon) == {given, first}
        await daemon.end(signal.SIGKILL)
    sim.jobs.patch(first, "*", "FAILED")
    sim.jobs.say(first, "FINISHED")
    async with running(tmp_path, values) as daemon:
        await daemon.started()
        await daemon.until(lambda: daemon.events("job.finished"))
        assert {line["job_id"] for line in daemon.events("job.finished")} == {first}
        assert await watched(daemon) == {given, first}
        assert not daemon.events("job.first_seen"), "known from before the kill"
        assert (await daemon.end())[0] == 0


async def test_a_removed_job_is_asked_no_more(tmp_path, sim):
    given, added, _ = sim.job_ids
    async with running(tmp_path, configured(sim, jobs=[given])) as daemon:
        await daemon.started()
        await add(daemon, added)
        await daemon.until(lambda: asked(sim, added) > 2)
        await remove(daemon, added)
        before, other = asked(sim, added), asked(sim, given)
        await daemon.until(lambda: asked(sim, given) > other + 5)
        assert asked(sim, added) <= before + 1, "one may be on its way"
        assert not any(added in labels for labels in map(str, await daemon.metrics()))
        assert (await daemon.end())[0] == 0


async def test_what_would_come_back_cannot_be_removed(tmp_path, sim):
    given, *_ = sim.job_ids
    discover = {"status": "PROCESSING"}
    values = configured(sim, jobs=[given], discover=discover)
    async with running(tmp_path, values) as daemon:
        await daemon.started()
        await daemon.until(lambda: len(daemon.events("job.first_seen")) == 3)
        assert [await remove(daemon, job_id) for job_id in sim.job_ids] == [409] * 3
        assert await watched(daemon) == {*sim.job_ids}
        assert (await daemon.end())[0] == 0


async def test_what_cannot_be_added_changes_nothing(tmp_path, sim):
    given, *_ = sim.job_ids
    async with running(tmp_path, configured(sim, jobs=[given])) as daemon:
        await daemon.started()
        assert await add(daemon, GONE, target="nowhere") == 404
        assert await add(daemon, "../../etc/passwd") == 400
        assert await add(daemon, GONE, unknown=1) == 400
        for method, path in (("POST", "/api/v1/jobs"), ("POST", "/-/reload")):
            assert (await ask(daemon, method, path, token="another" * 5))[0] == 401
        assert await watched(daemon) == {given}


async def test_a_reload_over_http_tells_what_is_wrong(tmp_path, sim):
    given, added, _ = sim.job_ids
    values = configured(sim, jobs=[given])
    async with running(tmp_path, values) as daemon:
        await daemon.started()
        await add(daemon, added)
        assert (await ask(daemon, "POST", "/-/reload"))[0] == 200
        assert await watched(daemon) == {given, added}
        file = tmp_path / "watcher.yaml"
        file.write_text(file.read_text() + "poll: nonsense\n")
        status, said = await ask(daemon, "POST", "/-/reload")
        assert status == 500
        assert any(finding.startswith("poll") for finding in said["findings"])
        assert await watched(daemon) == {given, added}


async def test_a_job_hands_its_id_over_by_the_lines_of_the_guide(tmp_path, sim):
    require("curl")
    text = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
    (script,) = re.findall(r"```sh\n(# hand-over\.sh.*?)```", text, re.DOTALL)
    job_id, other = sim.job_ids[:2]
    (tmp_path / "token").write_text(TOKEN)
    script = script.replace("your-submit-command", f"echo {job_id}")
    async with running(tmp_path, configured(sim)) as daemon:
        await daemon.started()
        environ = {"WATCHER": daemon.url, "TOKEN_FILE": str(tmp_path / "token")}
        for _ in ("new", "known"):  # twice is as good as once
            done = await anyio.run_process(
                ["sh", "-c", script], env=surroundings(**environ)
            )
            assert done.stdout.decode().startswith(f"submitted {job_id}\n")
        assert await watched(daemon) == {job_id}
        (tmp_path / "token").write_text("another")
        script = script.replace(job_id, other)
        done = await anyio.run_process(
            ["sh", "-c", script], env=surroundings(**environ), check=False
        )
        assert done.returncode == 22
        assert done.stdout.decode().startswith(f"submitted {other}\n")
        assert await watched(daemon) == {job_id}
