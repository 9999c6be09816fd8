"""Who may change something, over real HTTP, and what is refused in one line."""

import asyncio
import json
import time
import zlib
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from watcher.ports import Response
from watcher.web.server import Rules, serve

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
        serve(
            [], "127.0.0.1", 0, actions=[action], rules=Rules(lambda: token)
        ) as address,
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

        # The answer may come while the sender still writes to a closed connection.
        with suppress(aiohttp.ClientOSError):
            response, _ = await post(session, data=endless(), headers=headers)
            assert response.status == 413
    assert len(action.given) == 1


async def test_a_body_that_does_not_come(monkeypatch):
    monkeypatch.setattr("watcher.web.access.BODY_TIMEOUT", 0.2)
    action = Change()
    async with serve(
        [], "127.0.0.1", 0, actions=[action], rules=Rules(lambda: "t")
    ) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(
            b"POST /change/it HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
        )
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
    parameters = ()

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


# What is no request, or asks for more than there is


async def say(address, text):
    """Send bytes as they stand; return the whole answer."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(text)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET / and more HTTP/1.1\r\n\r\n", b" 400 "),
        (b"NONSENSE\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nA B: c\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100 + b"\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 9000 + b"\r\n\r\n", b" 400 "),
        (b"GET /fault HTTP/1.1\r\nHost: localhost\r\nExpect: x\r\n\r\n", b" 417 "),
        (b"GET /fault HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 500 "),
    ],
)
async def test_whoever_answers_says_no_versions(text, status):
    async with serve([Fault()], "127.0.0.1", 0) as address:
        text = text.replace(b"Host:", b"Connection: close\r\nHost:")
        head, _, body = (await say(address, text)).partition(b"\r\n\r\n")
    assert status in head.splitlines()[0]
    assert b"Server: devserver-watcher\r\n" in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert b"Content-Security-Policy: default-src 'none'" in head
    assert b"aiohttp" not in head + body
    assert b"Python" not in head + body


class Shown:
    path = "/page"
    parameters = ("limit", "after")

    async def respond(self, _):
        return Response([b"shown"])


async def test_unknown_parameters_are_refused():
    action = Change()
    rules = Rules(lambda: TOKEN)
    async with (
        serve([Shown()], "127.0.0.1", 0, actions=[action], rules=rules) as address,
        aiohttp.ClientSession("http://{}:{}".format(*address)) as session,
    ):
        async with session.get("/page?limit=1&after=2") as response:
            assert response.status == 200
        async with session.get("/page?limit=1&phase=failed") as response:
            assert response.status == 400
            told = (await response.json())["error"]
            assert told == "unknown parameter 'phase'; this path takes: after, limit"
        async with session.post("/change/it?dry=1", headers=BEARER) as response:
            assert response.status == 400
            assert (await response.json())["error"].endswith("takes: none")
    assert not action.given


@pytest.mark.parametrize("packing", ["deflate", "gzip", "br", "zstd", "x"])
async def test_no_packed_body_is_taken(packing):
    action = Change()
    async with serving(action) as session:
        headers = {**BEARER, **JSON, "Content-Encoding": packing}
        response, body = await post(session, data=b"{}", headers=headers)
        assert response.status == 415
        assert "Content-Encoding" in json.loads(body)["error"]
        headers["Content-Encoding"] = "Identity"
        response, _ = await post(session, data=b"{}", headers=headers)
        assert response.status == 202
    assert action.given == [("it", b"{}")]


async def test_no_body_is_unpacked():
    packed = zlib.compress(bytes(2**26), 9)
    head = (
        "POST /change/it HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: deflate\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(packed)}\r\n\r\n"
    )
    async with serve([], "127.0.0.1", 0, actions=[Change()]) as address:
        reader, writer = await asyncio.open_connection(*address)
        began = time.process_time()
        writer.write(head.encode() + packed)
        async with asyncio.timeout(10):
            assert b" 403 " in await reader.readline()
        await asyncio.sleep(0.5)  # what is left of it comes, and nobody wants it
        writer.transport.abort()
        assert time.process_time() - began < 0.03


# By which name


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:10911", 200),
        ("localhost.", 200),
        ("127.0.0.1:10911", 200),
        ("127.8.9.1", 200),
        ("[::1]:10911", 200),
        ("[::1]", 200),
        ("10.1.2.3:10911", 200),  # a probe or scraper; no page can take on an address
        ("[fd00::1]:1", 200),
        ("Watcher.example.org", 200),
        ("watcher.example.org:443", 200),
        ("evil.example", 421),
        ("evil.example:10911", 421),
        ("watcher.example.org.evil.example", 421),
        ("xwatcher.example.org", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("localhost:x", 421),
        ("", 421),
    ],
)
async def test_the_name_that_is_asked_for(host, status):
    rules = Rules(lambda: TOKEN, {"watcher.example.org"})
    head = f"Host: {host}\r\nConnection: close\r\n\r\n".encode()
    async with serve([Shown()], "127.0.0.1", 0, rules=rules) as address:
        answer = await say(address, b"GET /page HTTP/1.1\r\n" + head)
        assert f" {status} ".encode() in answer.splitlines()[0]
        assert (b"shown" in answer) == (status == 200)
        assert (b"server.allowed_hosts" in answer) == (status == 421)
        answer = await say(address, b"GET /nothing HTTP/1.1\r\n" + head)
        expected = b" 404 " if status == 200 else b" 421 "
        assert expected in answer.splitlines()[0]


async def test_one_good_name_among_two_is_none():
    two = b"Host: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    async with serve([Shown()], "127.0.0.1", 0) as address:
        answer = await say(address, b"GET /page HTTP/1.1\r\n" + two)
        assert b"shown" not in answer
        old = await say(address, b"GET /page HTTP/1.0\r\n\r\n")  # no browser
        assert b"shown" in old
