"""The gateway: signatures by published vectors, refusals, the lock, tokens, limits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import anyio
import pytest

from tests.simulator.asking import (
    ACCESS_KEY,
    SECRET_KEY,
    ask,
    detail,
    jobs_path,
    page,
    signed,
)
from watcher.simulator import Clock, SimulatorOptions, simulate
from watcher.simulator.answers import RawRequest
from watcher.simulator.signature import canonical_request, read_claim, read_date, sign

VECTORS = json.loads(
    Path(__file__).with_name("signing_vectors.json").read_text(encoding="utf-8")
)
JOB_VECTORS = [vector for vector in VECTORS if "/dev-servers/jobs" in vector["target"]]
KEYS = {ACCESS_KEY: SECRET_KEY}


def options(**more):
    return SimulatorOptions(**{"speed": 0.0, "credentials": KEYS} | more)


def named(vectors):
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


@pytest.mark.parametrize("vector", named(VECTORS))
def test_vectors(vector):
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    body = (vector["body"] or "").encode()
    request = RawRequest(vector["method"], vector["target"], headers, body)
    claim = read_claim(headers["authorization"])
    canonical = canonical_request(request, claim.signed_headers)
    assert claim.access_key == vector["access_key"]
    assert canonical == vector["canonical_request"]
    assert sign(vector["secret_key"], vector["date"], canonical) == claim.signature


@pytest.mark.parametrize("vector", named(JOB_VECTORS))
@pytest.mark.parametrize("forged", [False, True])
async def test_vectors_over_http(vector, forged):
    """Each passes on its day, and not with one byte of its secret changed."""
    day = read_date(vector["date"])
    access_key, secret = vector["access_key"], vector["secret_key"]
    tokens = {access_key: vector["security_token"]} if vector["security_token"] else {}
    chosen = options(
        credentials={access_key: secret + "x" if forged else secret},
        security_tokens=tokens,
    )
    clock = Clock(wall=lambda: day, monotonic=lambda: 0.0)
    async with simulate(chosen, clock=clock) as sim:
        got = await ask(
            sim,
            vector["target"],
            vector["method"],
            body=vector["body"],
            headers=vector["headers"],
        )
    if forged:
        assert (got.status, got.code) == (401, "APIGW.0301")
        assert "verify aksk signature fail" in got.message
        assert vector["canonical_request"].replace("\n", "|") in got.message
    else:
        assert got.status != 401, got.body


def test_the_order_of_a_query_does_not_matter():
    def canonical(query):
        request = RawRequest("GET", f"/a?{query}", {"x-sdk-date": ""})
        return canonical_request(request, ("x-sdk-date",))

    assert canonical("b=2&a=%7e&B&a=1") == canonical("a=1&B=&b=2&a=~")
    assert canonical("a=1") != canonical("a=2")


def test_an_empty_body_is_hashed_even_where_payloads_are_not():
    headers = {"x-sdk-content-sha256": "UNSIGNED-PAYLOAD"}

    def last_line(body):
        return canonical_request(RawRequest("PUT", "/", headers, body), ()).split("\n")[
            -1
        ]

    assert last_line(b"").startswith("e3b0c44298fc1c14")
    assert last_line(b"x") == "UNSIGNED-PAYLOAD"


async def test_a_signed_request_passes_and_any_change_to_it_does_not():
    async with simulate(options()) as sim:
        target = jobs_path(sim, sim.job_ids[0])
        headers = signed(sim, target)
        assert (await ask(sim, target, headers=headers)).status == 200
        other = await ask(sim, jobs_path(sim, sim.job_ids[1]), headers=headers)
        query = await ask(sim, target + "?a=b", headers=headers)
        body = await ask(sim, target, headers=headers, body="{ }")
    for got in (other, query, body):
        assert (got.status, got.code) == (401, "APIGW.0301")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "x-auth-token not found"),
        ({"x-auth-token": "never heard of"}, "decrypt token fail"),
        ({"authorization": "Bearer abc"}, "malformed Authorization"),
    ],
)
async def test_requests_without_usable_credentials(headers, reason):
    async with simulate(options()) as sim:
        got = await detail(sim, headers=headers)
    assert (got.status, got.code) == (401, "APIGW.0301")
    assert got.message.startswith("Incorrect IAM authentication information: ")
    assert reason in got.message


async def test_an_unknown_key():
    async with simulate(options()) as sim:
        target = jobs_path(sim)
        headers = signed(sim, target, access_key="STRANGER")
        got = await ask(sim, target, headers=headers)
    assert "Get secretKey failed,ak:STRANGER,err:ak not exist" in got.message
    assert next(iter(sim.requests)).access_key == "STRANGER"


@pytest.mark.parametrize(("off", "passes"), [(890, True), (-890, True), (910, False)])
async def test_a_signature_lives_fifteen_minutes(off, passes):
    async with simulate(options()) as sim:
        target = jobs_path(sim)
        headers = signed(sim, target, at=sim.clock.wall() + off)
        got = await ask(sim, target, headers=headers)
    if passes:
        assert got.status == 200
    else:
        assert "calc ak sk signature fail:signature expired" in got.message


async def test_the_date_must_be_signed():
    async with simulate(options()) as sim:
        target = jobs_path(sim)
        headers = signed(sim, target)
        headers["authorization"] = headers["authorization"].replace(
            "host;x-sdk-date", "host"
        )
        got = await ask(sim, target, headers=headers)
    assert "x-sdk-date not found" in got.message


async def test_more_than_five_failures_in_a_row_lock_a_key_for_a_while():
    chosen = options(credentials=KEYS | {"OTHER": "s"}, lock_seconds=0.4)
    async with simulate(chosen) as sim:
        target = jobs_path(sim)

        async def attempt(secret=SECRET_KEY, access_key=ACCESS_KEY):
            headers = signed(sim, target, access_key=access_key, secret_key=secret)
            return await ask(sim, target, headers=headers)

        for _ in range(5):
            assert "verify aksk" in (await attempt("wrong")).message
        assert (await attempt()).status == 200, "five are not yet too many"
        for _ in range(6):
            assert "verify aksk" in (await attempt("wrong")).message
        locked = await attempt()
        assert (locked.status, locked.code) == (401, "APIGW.0301")
        assert "AK access failed to reach the limit,forbidden" in locked.message
        assert (await attempt("s", "OTHER")).status == 200
        await anyio.sleep(0.5)
        assert (await attempt()).status == 200


async def test_a_temporary_key_needs_its_token_signed():
    chosen = options(security_tokens={ACCESS_KEY: "session"})
    async with simulate(chosen) as sim:
        target = jobs_path(sim)
        good = signed(sim, target, x_security_token="session")
        assert (await ask(sim, target, headers=good)).status == 200
        other = signed(sim, target, x_security_token="stale")
        assert "decrypt token" in (await ask(sim, target, headers=other)).message
        unsigned = signed(sim, target) | {"x-security-token": "session"}
        got = await ask(sim, target, headers=unsigned)
        assert "x-security-token not found in signed headers" in got.message


async def test_tokens_pass_expire_or_are_unknown():
    chosen = options(
        credentials=None, tokens=frozenset({"t"}), expired_tokens=frozenset({"old"})
    )
    async with simulate(chosen) as sim:
        assert (await detail(sim, headers={"x-auth-token": "t"})).status == 200
        old = await detail(sim, headers={"x-auth-token": "old"})
        assert (old.status, old.code) == (401, "APIGW.0307")
        assert (await detail(sim)).status == 401


async def test_a_token_may_be_long():
    token = "M" * 20_000
    async with simulate(options(tokens=frozenset({token}))) as sim:
        assert (await detail(sim, headers={"x-auth-token": token})).status == 200


async def test_iam_gives_out_tokens_that_expire():
    chosen = options(users={"ops": "secret"}, token_lifetime=0.5)
    async with simulate(chosen) as sim:

        async def token(password):
            user = {"name": "ops", "password": password, "domain": {"name": "d"}}
            identity = {"methods": ["password"], "password": {"user": user}}
            body = {"auth": {"identity": identity}}
            return await ask(sim, "/v3/auth/tokens?nocatalog=true", "POST", body=body)

        wrong = await token("guess")
        assert (wrong.status, wrong.json["error"]["code"]) == (401, 401)
        assert (await ask(sim, "/v3/auth/tokens", "POST", body="[]")).status == 401
        got = await token("secret")
        assert got.status == 201
        assert got.json["token"]["expires_at"].endswith("Z")
        headers = {"x-auth-token": got.headers["X-Subject-Token"]}
        assert (await detail(sim, headers=headers)).status == 200
        await anyio.sleep(0.6)
        assert (await detail(sim, headers=headers)).code == "APIGW.0307"


async def test_iam_finds_the_project_of_a_region_for_who_may_ask():
    async with simulate(options()) as sim:

        async def look_up(query):
            target = f"/v3/projects{query}"
            return await ask(sim, target, headers=signed(sim, target))

        (project,) = (await look_up("?name=cn-north-4")).json["projects"]
        assert project == {"id": sim.options.project_id, "name": "cn-north-4"}
        assert (await look_up("?name=eu-west-0")).json["projects"] == []
        assert len((await look_up("")).json["projects"]) == 1
        assert (await ask(sim, "/v3/projects")).status == 401


TTL = {"X-Metadata-Token-Ttl-Seconds": "21600"}
TOKEN_PATH = "/meta-data/latest/api/token"
KEY_PATH = "/openstack/latest/securitykey"


async def test_the_metadata_service_gives_out_keys_that_pass_and_expire():
    async with simulate(options(temporary_key_lifetime=0.5)) as sim:
        assert (await ask(sim, KEY_PATH)).status == 401
        assert (await ask(sim, TOKEN_PATH, "PUT")).status == 400
        token = (await ask(sim, TOKEN_PATH, "PUT", headers=TTL)).body.decode()
        got = await ask(sim, KEY_PATH, headers={"X-Metadata-Token": token})
        key = got.json["credential"]
        target = jobs_path(sim)

        async def attempt():
            headers = signed(
                sim,
                target,
                access_key=key["access"],
                secret_key=key["secret"],
                x_security_token=key["securitytoken"],
            )
            return await ask(sim, target, headers=headers)

        assert (await attempt()).status == 200
        await anyio.sleep(0.6)
        assert "signature expired" in (await attempt()).message


async def test_an_old_metadata_service_asks_for_no_token_and_none_may_be_there():
    async with simulate(options(metadata="v1")) as sim:
        assert (await ask(sim, TOKEN_PATH, "PUT", headers=TTL)).status == 404
        got = await ask(sim, KEY_PATH)
        assert set(got.json["credential"]) == {
            *("access", "secret", "securitytoken", "expires_at")
        }
    async with simulate(options(metadata="off")) as sim:
        assert (await ask(sim, TOKEN_PATH, "PUT", headers=TTL)).status == 404
        assert (await ask(sim, KEY_PATH)).status == 404


async def test_the_rate_limit_is_per_second_and_call():
    seconds = [0.0]
    clock = Clock(wall=lambda: 1e9, monotonic=lambda: seconds[0])
    chosen = options(credentials=None, rate_limit=3, retry_after=1)
    async with simulate(chosen, clock=clock) as sim:
        statuses = [(await detail(sim)).status for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert (await page(sim)).status == 200
        got = await detail(sim)
        assert (got.code, got.headers["Retry-After"]) == ("APIGW.0308", "1")
        assert "ratelimit,limit:3,time:1 second" in got.message
        seconds[0] = 1.0
        assert (await detail(sim)).status == 200


async def test_no_credentials_check_nothing():
    async with simulate(options(credentials=None)) as sim:
        assert (await detail(sim, headers={"authorization": "x"})).status == 200


def test_secrets_stay_out_of_reprs():
    chosen = options(tokens=frozenset({"a-token"}), users={"u": "a-password"})
    shown = repr(chosen)
    assert not any(text in shown for text in (SECRET_KEY, "a-token", "a-password"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("19700101T000010Z", 10.0), ("1970-01-01", None), ("", None)],
)
def test_dates(text, seconds):
    assert read_date(text) == seconds
    assert read_date("19700101T000010Z") < math.inf
