"""Small real servers on 127.0.0.1 for the tests of the client."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate

import anyio
from aiohttp import web
from pydantic import SecretStr

from watcher.client.api import ApiTarget, DevServerApi
from watcher.client.breaker import Breakers
from watcher.client.clock import ServerClock
from watcher.client.credentials.static import NoCredentials, StaticCredentials
from watcher.client.shared import SharedClient
from watcher.client.signing import Call, Key, sign
from watcher.client.transport import open_session

PROJECT = "0123456789abcdef0123456789abcdef"
JOB = "0319470a-7fad-452e-bff0-d3ba3bd83955"
KEY = Key("AKIDEXAMPLE", SecretStr("secret-key-of-example"))
NOW = 1_750_000_000.0


@dataclass
class Cloud:
    """A server that notes what it is asked; `answer` decides what it says."""

    origin: str = ""
    seen: list[web.Request] = field(default_factory=list)
    answer: Callable[[web.Request], object] = lambda _request: ok()
    in_flight: int = 0
    most_in_flight: int = 0

    async def respond(self, request):
        await request.read()
        self.seen.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            response = self.answer(request)
            response = await response if hasattr(response, "__await__") else response
            response.headers.setdefault("Date", http_date(NOW))
            return response
        finally:
            self.in_flight -= 1


@asynccontextmanager
async def cloud(answer=None, ssl=None) -> AsyncIterator[Cloud]:
    """Serve on a free port."""
    state = Cloud() if answer is None else Cloud(answer=answer)
    runner = web.ServerRunner(web.Server(state.respond), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl)
    await site.start()
    port = runner.addresses[0][1]
    state.origin = f"{'https' if ssl else 'http'}://127.0.0.1:{port}"
    try:
        yield state
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(data: bytes, linger: float = 0.0) -> AsyncIterator[str]:
    """Answer every request with these bytes and close; yield the origin."""

    async def serve(reader, writer):
        with suppress(asyncio.CancelledError):
            await reader.read(1)
            writer.write(data)
            await anyio.sleep(linger)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def ok(body=None, **headers):
    """A job, or another JSON body."""
    job = {"id": JOB, "status": "PROCESSING", "tasks": []}
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response(job if body is None else body, headers=names)


def refuse(status=401, code="APIGW.0301", text="verify aksk signature fail", **headers):
    """An error answer in the API's own shape."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response(
        {"error_code": code, "error_msg": text}, status=status, headers=names
    )


def http_date(moment):
    return formatdate(moment, usegmt=True)


@asynccontextmanager
async def shared(now=lambda: NOW, on_change=None) -> AsyncIterator[SharedClient]:
    """What targets share, for one test."""
    async with open_session() as session:
        yield SharedClient(session, ServerClock(now), Breakers(on_change))


def api(on, server, credentials=None, on_request=None, **target):
    """The API of a server, signed with `KEY` unless told otherwise."""
    origin = server if isinstance(server, str) else server.origin
    return DevServerApi(
        on,
        ApiTarget(**{"endpoint": origin, "project_id": PROJECT, **target}),
        StaticCredentials(KEY) if credentials is None else credentials,
        on_request,
    )


def signed_by(request, key, moment, names=("Host", "X-Project-Id")):
    """Whether a request carries the signature that this key and time give."""
    call = Call(
        request.method,
        request.host,
        request.path,
        [(name, value) for name, value in request.query.items()],
        {name: request.headers[name] for name in names if name in request.headers},
    )
    return request.headers["Authorization"] == sign(key, call, moment)["Authorization"]


def text_of(request):
    return json.dumps(dict(request.headers))


NONE = NoCredentials()
