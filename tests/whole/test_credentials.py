"""Every kind of credentials does the main job; a wrong key does no harm."""

import json

import anyio
import pytest

from tests.whole.daemon import ACCESS_KEY, SECRET_KEY, running, target
from tests.whole.test_main_job import _check_transitions
from watcher.simulator import SimulatorOptions, simulate
from watcher.simulator.gateway import Key

PASSWORD = "correct-horse-battery-staple"
REFUSED_SPELL = 10.0
METADATA = "HUAWEICLOUD_SDK_METADATA_ENDPOINT"
PROFILE = "HUAWEICLOUD_SDK_CREDENTIALS_FILE"


def options(**more):
    return SimulatorOptions(
        **{
            "jobs": 3,
            "tasks": 4,
            "speed": 60.0,
            "failing": 0.5,
            "credentials": {ACCESS_KEY: SECRET_KEY},
            **more,
        }
    )


def static(_, __):
    return {
        "kind": "static",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
    }, {}


def temporary(_, __):
    return {
        "kind": "static",
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "security_token": PASSWORD,
    }, {}


def token(sim, _):
    return {
        "kind": "token",
        "iam_endpoint": sim.url,
        "user": "operator",
        "password": PASSWORD,
        "domain": "example",
    }, {}


def metadata(sim, _):
    return {"kind": "metadata"}, {METADATA: sim.url}


def profile(_, folder):
    file = folder / "credentials"
    file.write_text(f"[basic]\nak = {ACCESS_KEY}\nsk = {SECRET_KEY}\n")
    return {"kind": "profile"}, {PROFILE: str(file)}


def chain_of_environment(_, __):
    keys = {"HUAWEICLOUD_SDK_AK": ACCESS_KEY, "HUAWEICLOUD_SDK_SK": SECRET_KEY}
    return {"kind": "chain"}, keys


def chain_of_profile(sim, folder):
    return {"kind": "chain"}, profile(sim, folder)[1]


def chain_of_metadata(sim, folder):
    return {"kind": "chain"}, {METADATA: sim.url, PROFILE: str(folder / "none")}


KINDS = [
    (static, {}),
    (temporary, {"security_tokens": {ACCESS_KEY: PASSWORD}}),
    (token, {"credentials": None, "users": {"operator": PASSWORD}}),
    (metadata, {"metadata": "v2"}),
    (metadata, {"metadata": "v1"}),
    (profile, {}),
    (chain_of_environment, {}),
    (chain_of_profile, {}),
    (chain_of_metadata, {"metadata": "v2"}),
]


@pytest.mark.parametrize(
    ("kind", "more"),
    KINDS,
    ids=[f"{k.__name__}{m.get('metadata', '')}" for k, m in KINDS],
)
async def test_every_kind_does_the_main_job(tmp_path, kind, more):
    async with simulate(options(**more)) as sim:
        credentials, environ = kind(sim, tmp_path)
        # The project is not given but looked up.
        prod = target(
            sim.url,
            sim.job_ids,
            credentials=credentials,
            region="cn-north-4",
            iam_endpoint=sim.url,
        )
        del prod["project_id"]
        values = {
            "targets": {"prod": prod},
            "poll": {"interval": "300ms"},
            "finished": {"exit_when_done": True},
        }
        async with running(tmp_path, values, environ=environ) as daemon:
            with anyio.fail_after(60):
                await daemon.process.wait()
            await anyio.sleep(0.1)
        truth = sim.truth()
        asked = sim.requests
    _check_transitions(daemon, truth)
    events = [line for line in daemon.lines if "event_id" in line]
    assert {line["project_id"] for line in events} == {sim.options.project_id}
    assert asked.calls["projects"] == 1
    assert set(asked.statuses) - {200, 201} <= {404}, "404: of a metadata service v1"
    assert not daemon.events("poll.failing")
    for secret in (SECRET_KEY, PASSWORD):
        assert secret not in daemon.output


async def test_a_wrong_key_is_refused_thrice_and_the_right_one_resumes(tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    names = ("a", "b", "c")

    def give(secret):
        for name in names:
            setting = f"targets__{name}__credentials__secret_key"
            (secrets / setting).write_text(secret)

    give("not-the-right-secret-key")
    once_each = [(name, False) for name in names]
    async with simulate(options(jobs=60, tasks=1, speed=0)) as sim:
        values = {
            "targets": {
                name: target(
                    sim.url,
                    sim.job_ids[place::3],
                    credentials={"kind": "static", "access_key": ACCESS_KEY},
                )
                for place, name in enumerate(names)
            },
            "poll": {"interval": "1s", "max_in_flight": 16, "mode": "detail"},
        }
        environ = {"WATCHER_SECRETS_DIR": str(secrets)}
        async with running(tmp_path, values, environ=environ) as daemon:
            await daemon.started()
            await daemon.until(lambda: daemon.events("credentials.locked"))
            await anyio.sleep(REFUSED_SPELL)
            assert sim.requests.statuses == {401: 3}
            assert await _locked(daemon) == dict.fromkeys(names, 1)
            assert (await daemon.get("/readyz"))[0] == 200
            give(SECRET_KEY)
            began = anyio.current_time()
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 60)
            assert anyio.current_time() - began < 10
            await daemon.until(lambda: edges(daemon, "recovered") == once_each)
            assert await _locked(daemon) == dict.fromkeys(names, 0)
            assert sim.requests.statuses[401] == 3
        assert [
            len(daemon.events(f"credentials.{w}")) for w in ("locked", "accepted")
        ] == [1, 1]
    assert edges(daemon, "failing") == once_each
    assert "secret-key" not in daemon.output
    assert SECRET_KEY not in daemon.output + json.dumps(daemon.lines)


def edges(daemon, word):
    """What is told of failing polls: by target, the list call apart."""
    lines = daemon.events(f"poll.{word}")
    return sorted((line["target"], "call" in line) for line in lines)


async def _locked(daemon):
    metrics = await daemon.metrics()
    return {
        dict(name[1:])["target"]: value
        for name, value in metrics.items()
        if name[0] == "watcher_credentials_locked"
    }


@pytest.mark.parametrize("latency", [0.0, 0.2])
async def test_a_key_revoked_at_full_speed_is_not_locked(tmp_path, latency):
    names = ("a", "b", "c")
    async with simulate(options(jobs=60, tasks=1, speed=0, latency=latency)) as sim:
        values = {
            "targets": {
                name: target(sim.url, sim.job_ids[place::3])
                for place, name in enumerate(names)
            },
            "poll": {"interval": "1s", "mode": "detail"},
        }
        async with running(tmp_path, values) as daemon:
            await daemon.started()
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 60)
            accepted = sim.requests.statuses[200]
            await anyio.sleep(5)
            accepted = sim.requests.statuses[200] - accepted
            assert accepted >= 0.7 * 5 * (5 / latency if latency else 60)
            sim.gateway.set_keys({ACCESS_KEY: Key("another-secret-key")})
            await daemon.until(lambda: daemon.events("credentials.locked"))
            await anyio.sleep(REFUSED_SPELL / 2)
            assert 3 <= sim.requests.statuses[401] <= 5
            assert await _locked(daemon) == dict.fromkeys(names, 1)
