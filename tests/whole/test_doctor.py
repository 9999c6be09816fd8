"""The doctor as a process: exit codes, one JSON object, no secret, beside a daemon."""

import json
import re
import subprocess
import sys

import anyio
import pytest
import yaml

from tests.whole.daemon import (
    ACCESS_KEY,
    PATIENCE,
    SECRET_KEY,
    running,
    surroundings,
    target,
)
from watcher.simulator import SimulatorOptions, simulate

COMMAND = [sys.executable, "-m", "watcher", "doctor"]


def run(values, folder, *flags, **environ):
    """Run the command; return exit code, standard output and standard error."""
    file = folder / "doctor.yaml"
    file.write_text(yaml.safe_dump({"server": {"listen": "127.0.0.1:0"}, **values}))
    done = subprocess.run(
        [*COMMAND, "--config", str(file), *flags],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=surroundings(STATE_DIRECTORY=str(folder), **environ),
    )
    assert SECRET_KEY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


async def examine(values, folder, *flags, **environ):
    return await anyio.to_thread.run_sync(
        lambda: run(values, folder, *flags, **environ)
    )


def options(secret=SECRET_KEY, **more):
    return SimulatorOptions(jobs=2, credentials={ACCESS_KEY: secret}, **more)


async def test_all_is_well_beside_a_daemon(tmp_path):
    async with simulate(options()) as sim:
        values = {"targets": {"prod": target(sim.url, sim.job_ids)}}
        async with running(tmp_path, values) as daemon:
            await daemon.started()
            address = daemon.url.removeprefix("http://")
            values["server"] = {"listen": address}
            code, out, err = await examine(values, tmp_path, "--json")
            assert (await daemon.end())[0] == 0
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["ok"]
    assert answer["targets"]["prod"]["ok"]
    store, listen = answer["findings"]
    assert f"a daemon with pid {daemon.process.pid} holds it" in store["text"]
    assert "held by a running watcher" in listen["text"]


async def test_a_wrong_key_is_used_once_and_not_shown(tmp_path):
    async with simulate(options("x" * 40)) as sim:
        values = {"targets": {"prod": target(sim.url, sim.job_ids)}}
        code, out, _ = await examine(values, tmp_path)
        asked = sim.requests.calls["detail"]
    assert (code, asked) == (77, 1)
    assert ACCESS_KEY in out
    assert "the secret key does not belong to this access key" in out
    assert "\x1b" not in out
    assert re.search(r"^  ✗ request ", out, re.MULTILINE)


async def test_a_locked_key(tmp_path):
    async with simulate(options("x" * 40, lock_after=0)) as sim:
        values = {"targets": {"prod": target(sim.url, sim.job_ids)}}
        assert (await examine(values, tmp_path))[0] == 77
        code, out, _ = await examine(values, tmp_path)
    assert code == 77
    assert "wait 5 minutes" in out


async def test_a_wrong_clock_costs_no_refusal(tmp_path):
    async with simulate(options(clock_skew=3600)) as sim:
        values = {"targets": {"prod": target(sim.url, sim.job_ids)}}
        code, out, _ = await examine(values, tmp_path)
        refused = sim.requests.statuses[401]
    assert (code, refused) == (1, 0)
    assert "this machine's clock is 3600 s behind the server's" in out


@pytest.mark.parametrize(
    ("url", "step"),
    [("https://no-such-host.invalid", "dns"), ("http://127.0.0.1:1", "connection")],
)
def test_out_of_reach(tmp_path, url, step):
    values = {"targets": {"prod": target(url, ["job-1"])}}
    code, out, _ = run(values, tmp_path)
    assert code == 69
    assert re.search(rf"^  ✗ {step} ", out, re.MULTILINE)


def test_an_invalid_configuration(tmp_path):
    values = {"targets": {"prod": target("http://192.0.2.1", [])}}
    code, out, err = run(values, tmp_path, "--json")
    assert code == 78
    assert err.startswith("watcher: targets.prod.endpoint: ")
    assert not json.loads(out)["ok"]


def test_an_output_that_knows_no_unicode(tmp_path):
    values = {"targets": {"prod": target("http://127.0.0.1:1", [])}}
    code, out, _ = run(values, tmp_path, PYTHONIOENCODING="ascii")
    assert code == 69
    assert re.search(r"^  x connection ", out, re.MULTILINE)
