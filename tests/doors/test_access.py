"""Who may change something, over real HTTP, and what is refused in one line."""

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest

from watcher.ports import Response
from watcher.web.server import serve

TOKEN = "t0ken-äöü"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}


class Change:
    """Notes the bodies that it was given."""

    method = "POST"
    path = "/change/{what}"

    def __init__(self):
        self.given = []

    async def respond(self, request):
        self.given.append((request.params["what"], request.body))
        return Response([b"done"], status=202)


@asynccontextmanager
async def serving(action, token=TOKEN):
    async with (
        serve([], "127.0.0.1", 0, actions=[action], token=lambda: token) as address,
        aiohttp.ClientSession("http://{}:{}".format(*address)) as session,
    ):
        yield session


async def post(session, path="/change/it", **options):
    async with session.post(path, **options) as response:
        return response, await response.read()


async def test_the_token_opens():
    action = Change()
    async with serving(action) as session:
        response, body = await post(session, data=b"{}", headers={**BEARER, **JSON})
        assert (response.status, body) == (202, b"done")
        headers = {"Authorization": f"bearer  {TOKEN} "}  # the scheme in any case
        response, _ = await post(session, "/change/a%20%2Fb", headers=headers)
        assert response.status == 202
    assert action.given == [("it", b"{}"), ("a /b", b"")]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Cookie": f"Authorization=Bearer {TOKEN}; api_token={TOKEN}"},
    ],
)
async def test_nothing_else_opens(headers):
    action = Change()
    async with serving(action) as session:
        path = f"/change/it?api_token={TOKEN}"
        response, body = await post(session, path, data="{}", headers=headers | JSON)
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="devserver-watcher"'
    assert body.count(b"\n") == 1
    assert "API token" in json.loads(body)["error"]
    assert not action.given


@pytest.mark.parametrize("token", [None, ""])
async def test_without_a_token_nothing_can_be_changed(token):
    action = Change()
    async with serving(action, token) as session:
        for headers in ({}, BEARER, {"Authorization": "Bearer "}):
            response, body = await post(session, headers=headers)
            assert response.status == 403
            assert "server.api_token is not set" in json.loads(body)["error"]
    assert not action.given


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_a_form_on_a_foreign_page_gets_no_further(kind):
    action = Change()
    async with serving(action) as session:
        headers = {**BEARER, "Content-Type": kind, "Origin": "https://evil.example"}
        response, _ = await post(session, data=b"{}", headers=headers)
        assert response.status == 415
        async with session.options("/change/it", headers=headers) as answer:
            assert answer.status == 405
            assert not [n for n in answer.headers if n.startswith("Access-Control")]
    assert not action.given


async def test_a_body_is_bounded():
    action = Change()
    async with serving(action) as session:
        headers = {**BEARER, **JSON}
        largest = b" " * 65536
        response, _ = await post(session, data=largest, headers=headers)
        assert response.status == 202
        response, body = await post(session, data=largest + b" ", headers=headers)
        assert response.status == 413
        assert json.loads(body)["error"]

        async def endless():
            for _ in range(100):
                yield b" " * 65536

        response, _ = await post(session, data=endless(), headers=headers)
        assert response.status == 413
    assert len(action.given) == 1


async def test_a_body_that_does_not_come(monkeypatch):
    monkeypatch.setattr("watcher.web.access.BODY_TIMEOUT", 0.2)
    action = Change()
    async with serve(
        [], "127.0.0.1", 0, actions=[action], token=lambda: "t"
    ) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"POST /change/it HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n")
        writer.write(b"Content-Type: application/json\r\n")
        writer.write(b"Authorization: Bearer t\r\n\r\n{")
        async with asyncio.timeout(10):
            assert b" 408 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert not action.given


async def test_refusals_are_json_and_as_guarded_as_pages():
    async with serving(Change()) as session:
        for method, path, status in [
            ("GET", "/nothing", 404),
            ("GET", "/change/it", 405),
            ("DELETE", "/change/it", 405),
        ]:
            async with session.request(method, path) as response:
                assert response.status == status
                assert "error" in await response.json()
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Server"] == "devserver-watcher"
                allowed = "POST" if status == 405 else None
                assert response.headers.get("Allow") == allowed


async def test_nonsense_is_answered_and_not_logged(caplog):
    async with serve([], "127.0.0.1", 0) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / and more HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(10):
            assert b" 400 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert not caplog.records


class Fault:
    path = "/fault"

    async def respond(self, _):
        raise RuntimeError("a fault of ours")


async def test_a_fault_of_ours_is_logged_and_not_shown(caplog):
    async with (
        serve([Fault()], "127.0.0.1", 0) as address,
        aiohttp.ClientSession("http://{}:{}".format(*address)) as session,
        session.get("/fault") as response,
    ):
        assert response.status == 500
        assert "ours" not in await response.text()
    assert "a fault of ours" in caplog.text
