"""Pages over real HTTP: encodings, headers, methods, and what is not there."""

import gzip

import aiohttp
import pytest

from watcher.pages.health import STUCK_AFTER, LivenessPage, ReadinessPage
from watcher.ports import Request, Response
from watcher.web.server import serve


class Echo:
    """A page that answers with what it was asked."""

    path = "/echo"
    parameters = ("a",)

    async def respond(self, request):
        async def body():
            yield f"{request.path} {request.query.get('a')} ".encode()
            yield request.headers["x-me"].encode() * 1000

        return Response(body(), status=299)


async def get(path, pages, **options):
    async with (
        serve(pages, "127.0.0.1", 0) as (host, port),
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(
            options.pop("method", "GET"), f"http://{host}:{port}{path}", **options
        ) as response,
    ):
        return response, await response.read()


async def test_a_page_gets_path_query_and_headers():
    response, body = await get(
        "/echo?a=1&a=2", [Echo()], headers={"X-Me": "z", "Accept-Encoding": "identity"}
    )
    assert response.status == 299
    assert body == b"/echo 1 " + b"z" * 1000
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


async def test_gzip_where_it_is_accepted():
    response, body = await get(
        "/echo", [Echo()], headers={"X-Me": "z", "Accept-Encoding": "gzip, br"}
    )
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(body) < 100
    assert gzip.decompress(body).endswith(b"zzz")


class Packed:
    """A page that packs its answer itself, in two members."""

    path = "/packed"
    parameters = ()

    async def respond(self, _: Request) -> Response:
        members = [gzip.compress(b"one"), gzip.compress(b"two")]
        return Response(members, headers={"Content-Encoding": "gzip"})


async def test_what_a_page_packed_is_not_packed_again():
    response, body = await get(
        "/packed", [Packed()], headers={"Accept-Encoding": "gzip"}
    )
    assert response.headers.getall("Content-Encoding") == ["gzip"]
    assert gzip.decompress(body) == b"onetwo"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/echo", 405),
        ("HEAD", "/echo", 299),
    ],
)
async def test_other_requests(method, path, status):
    response, _ = await get(path, [Echo()], method=method, headers={"X-Me": "z"})
    assert response.status == status


async def test_an_address_in_use():
    async with serve([], "127.0.0.1", 0) as (host, port):
        with pytest.raises(OSError, match="in use"):
            async with serve([], host, port):
                pass


async def whole(page):
    response = await page.respond(Request(page.path))
    return response.status, b"".join(response.body).decode()


async def test_liveness_is_the_age_of_the_last_turn():
    page = LivenessPage(lambda: 100.0, lambda: 100.0 + STUCK_AFTER)
    assert await whole(page) == (200, "ok\n")
    page = LivenessPage(lambda: 100.0, lambda: 100.5 + STUCK_AFTER)
    assert await whole(page) == (503, "poll loop stuck for 10 s\n")


async def test_readiness_stays_once_it_came():
    states = [False, True, False]
    page = ReadinessPage(lambda: states.pop(0))
    assert (await whole(page))[0] == 503
    assert await whole(page) == (200, "ready\n")
    assert await whole(page) == (200, "ready\n")
