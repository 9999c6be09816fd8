"""IAM tokens, had with a password."""

import json

import anyio
import pytest
from aiohttp import web
from pydantic import SecretStr

from tests.doors.client.servers import (
    JOB,
    KEY,
    NOW,
    PROJECT,
    api,
    cloud,
    http_date,
    ok,
    refuse,
    shared,
)
from watcher.client.credentials.iam import Login, TokenCredentials
from watcher.core.errors import (
    ApiError,
    Malformed,
    Refusal,
    Rejected,
    ServerError,
    Throttled,
    Unreachable,
)

LOGIN = Login("robot", SecretStr('pass"word+1'), "company", project_id=PROJECT)


class Iam:
    """Hands out numbered tokens, and guards a job with them."""

    def __init__(self):
        self.issued = 0
        self.logins = []
        self.void = set()
        self.reply = None
        self.password = LOGIN.password.get_secret_value()

    async def __call__(self, request):
        if request.path != "/v3/auth/tokens":
            number = int(request.headers["X-Auth-Token"].removeprefix("subject-token-"))
            fine = number not in self.void
            return ok() if fine else refuse(401, "APIGW.0307", "token must be updated")
        self.logins.append(await request.json())
        if self.reply is not None:
            return self.reply()
        user = self.logins[-1]["auth"]["identity"]["password"]["user"]
        if user["password"] != self.password:
            return refuse(401, "IAM.0011", f"wrong password {user['password']}")
        self.issued += 1
        return web.json_response(
            {"token": {"expires_at": "2025-06-16T15:06:40.000000Z"}},
            status=201,
            headers={
                "X-Subject-Token": f"subject-token-{self.issued}",
                "Date": http_date(NOW),
            },
        )


def credentials(on, server, login=LOGIN, **options):
    return TokenCredentials(on, login, server.origin, **options)


async def failure(asking):
    with pytest.raises(ApiError) as caught:
        await asking
    return caught.value


async def test_a_token_is_had_once_and_sent():
    iam, counted = Iam(), []
    async with shared() as on, cloud(iam) as server:
        source = credentials(on, server, on_request=counted.append)
        target = api(on, server, source, on_request=counted.append)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(target.fetch, JOB)
        token = await source.current()
    assert token.expires_at == 1750086400.0
    login, *fetches = server.seen
    assert (login.method, login.query_string) == ("POST", "nocatalog=true")
    assert login.headers["Content-Type"] == "application/json"
    assert {r.headers["X-Auth-Token"] for r in fetches} == {"subject-token-1"}
    assert all("Authorization" not in r.headers for r in server.seen)
    assert all(r.headers["X-Project-Id"] == PROJECT for r in fetches)
    assert counted == ["token", *["detail"] * 5]
    assert iam.logins == [
        {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {
                            "name": "robot",
                            "password": 'pass"word+1',
                            "domain": {"name": "company"},
                        }
                    },
                },
                "scope": {"project": {"id": PROJECT}},
            }
        }
    ]


async def test_a_project_may_be_named():
    iam = Iam()
    login = Login("u", LOGIN.password, "d", project_name="cn-north-4")
    async with shared() as on, cloud(iam) as server:
        await credentials(on, server, login).current()
    assert iam.logins[0]["auth"]["scope"] == {"project": {"name": "cn-north-4"}}


async def test_a_token_is_renewed_before_it_expires():
    now = [NOW]
    iam = Iam()
    async with shared(lambda: now[0]) as on, cloud(iam) as server:
        source = credentials(on, server)
        await source.current()
        now[0] = 1750086400.0 - 2401
        on.clock._samples.clear()
        on.clock._skews.clear()
        on.clock._last = 0.0
        await source.current()
        assert iam.issued == 1
        now[0] += 1
        await source.current()
        assert iam.issued == 2


async def test_a_refused_token_is_renewed_once():
    iam = Iam()
    async with shared() as on, cloud(iam) as server:
        target = api(on, server, credentials(on, server))
        await target.fetch(JOB)
        iam.void = {1}
        await target.fetch(JOB)
        assert iam.issued == 2
        iam.void = {1, 2}
        for _ in range(5):
            error = await failure(target.fetch(JOB))
        assert target.locked
    assert error.refusal is Refusal.TOKEN
    assert iam.issued == 2
    fetches = [r for r in server.seen if r.path != "/v3/auth/tokens"]
    refused = [r for r in fetches if r.headers["X-Auth-Token"] != "subject-token-1"]
    assert len(fetches) - len(refused) == 2
    assert len(refused) == 3


async def test_a_wrong_password_is_sent_three_times_in_five_minutes():
    iam = Iam()
    iam.password = "another"
    changes = []
    async with (
        shared(on_change=lambda *change: changes.append(change)) as on,
        cloud(iam) as server,
    ):
        source = credentials(on, server)
        targets = [api(on, server, source), api(on, server, credentials(on, server))]
        for _ in range(8):
            for target in targets:
                error = await failure(target.fetch(JOB))
                for each in (source, target._gateway._credentials):
                    each._renewal._failed_at = -100.0  # so that it does not rest
        assert len(iam.logins) == 3
        assert error.refusal is Refusal.CREDENTIALS
        assert error.retry_after > 290
        assert "IAM refused user robot of company: HTTP 401" in str(error)
        assert [(account, bool(e)) for account, e in changes] == [
            ("company/robot", True)
        ]
        assert on.breakers.of("company/robot").locked
        iam.password = "right-at-last"
        source.replace(Login("robot", SecretStr("right-at-last"), "company", PROJECT))
        await targets[0].fetch(JOB)
        assert changes[1:] == [("company/robot", None)]


async def test_of_what_iam_says_the_status_alone_is_shown():
    def reply():
        return refuse(status, "my-password", "my-password", X_Request_Id="my-password")

    iam = Iam()
    iam.reply = reply
    for status in (400, 401, 403, 404, 429, 500, 302):
        async with shared() as on, cloud(iam) as server:
            error = await failure(credentials(on, server).current())
        assert error.status_code == status
        assert f"HTTP {status}" in error.message
        assert "my-password" not in f"{error.message} {error.details}"


CREATED = {"status": 201, "headers": {"X-Subject-Token": "t"}}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (lambda: refuse(403, "IAM.0003"), Rejected),
        (lambda: refuse(404, "IAM.0004"), Rejected),
        (lambda: refuse(400, "IAM.0073"), Rejected),
        (lambda: refuse(429, "IAM.0429"), Throttled),
        (lambda: refuse(503, "IAM.0500"), ServerError),
        (lambda: ok({"token": {}}), Malformed),
        (lambda: web.Response(status=302), Malformed),
        (lambda: web.json_response({"token": {}}, status=201), Malformed),
        (lambda: web.Response(text="<html>", **CREATED), Malformed),
        (lambda: web.json_response([], **CREATED), Malformed),
        (lambda: web.json_response({"token": {"expires_at": 5}}, **CREATED), Malformed),
        (lambda: web.json_response({"token": None}, **CREATED), Malformed),
    ],
)
async def test_an_iam_that_gives_no_token(reply, kind):
    iam = Iam()
    iam.reply = reply
    async with shared() as on, cloud(iam) as server:
        error = await failure(credentials(on, server).current())
    assert type(error) is kind
    assert LOGIN.password.get_secret_value() not in repr(error.__cause__)


async def test_an_iam_that_is_down_is_unreachable():
    async with cloud() as gone:
        pass
    async with shared() as on:
        error = await failure(credentials(on, gone).current())
    assert isinstance(error, Unreachable)


async def test_a_large_token_is_taken():
    iam = Iam()

    def reply():
        headers = {"X-Subject-Token": "t" * 30_000}
        return web.json_response({"token": {}}, status=201, headers=headers)

    iam.reply = reply
    async with shared() as on, cloud(iam) as server:
        token = await credentials(on, server).current()
    assert len(token.value.get_secret_value()) == 30_000


async def test_an_echoed_token_is_masked():
    def guarded(request):
        return refuse(403, "APIGW.0302", f"<{request.headers['X-Auth-Token']}>")

    async with shared() as on, cloud(Iam()) as iam, cloud(guarded) as server:
        error = await failure(api(on, server, credentials(on, iam)).fetch(JOB))
    assert error.message == "<***>"


def test_a_password_is_sent_to_https_only():
    with pytest.raises(ValueError, match="https"):
        TokenCredentials(None, LOGIN, "http://iam.example.com")


async def test_a_repr_shows_no_secret():
    async with shared() as on, cloud(Iam()) as server:
        token = await credentials(on, server).current()
    assert "subject-token" not in repr(token)
    assert "word" not in repr(token).replace("password", "") + repr(LOGIN).replace(
        "password", ""
    )
    assert json.loads(LOGIN.request())


async def test_a_project_is_looked_up_with_a_token():
    async def answer(request):
        if request.path == "/v3/projects":
            assert request.headers["X-Auth-Token"] == "subject-token-1"
            return ok({"projects": [{"id": PROJECT}]})
        return await iam(request)

    iam = Iam()
    async with shared() as on, cloud(answer) as server:
        target = api(
            on,
            server,
            credentials(on, server),
            project_id=None,
            region="cn-north-4",
            iam_endpoint=server.origin,
        )
        await target.fetch(JOB)
        assert target.project_id == PROJECT
    assert KEY.access_key not in repr(target)


@pytest.mark.parametrize("token", ["a\x01b", "a\x7f", "a\u00e9b", "a b", "\u9a71"])
async def test_a_token_that_cannot_stand_in_a_header_is_none(token):
    iam = Iam()
    iam.reply = lambda: web.json_response(
        {"token": {}}, status=201, headers={"X-Subject-Token": token}
    )
    async with shared() as on, cloud(iam) as server:
        error = await failure(credentials(on, server).current())
        assert isinstance(error, Malformed | Unreachable)
        assert token not in str(error)
