"""The way to the cloud, and to receivers: no sockets, and all that was handed over."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from urllib.parse import urlsplit

import aiohttp
import anyio

from tests.world.loop import LIFE
from watcher.simulator.answers import RawRequest
from watcher.simulator.wire import DELIVERIES

LONG = 86_400.0


@dataclass(slots=True)
class Exchange:
    """One request to the cloud, and what came of it.

    Attributes:
        number: Its place among all that happened.
        handed: When its answer was handed over whole; None: never.
        place: The place of that among all that happened.
    """

    number: int
    life: int
    target: str
    call: str
    job_id: str | None
    key: str | None
    sent: float
    status: int | None = None
    body: bytes = b""
    handed: float | None = None
    place: int | None = None
    over: bool = False
    wall: float = 0.0


@dataclass
class Net:
    """What the network does; changed by the script."""

    latency: tuple[float, float] = (0.01, 0.05)
    lost: float = 0.0
    late: float = 0.0
    down: bool = False
    exchanges: list[Exchange] = field(default_factory=list)


class CloudDoor:
    """Stands in for aiohttp's session: requests go straight to the simulated cloud."""

    def __init__(self, world):
        self._world = world

    @asynccontextmanager
    async def request(self, method, url, *, headers, data, **_):
        world = self._world
        raw = _raw(method, str(url), headers, data)
        exchange = self._begin(raw, urlsplit(str(url)).hostname)
        try:
            await self._travel()
            outcome = world.cloud.handle(raw)
            try:
                fault = outcome.rule.fault if outcome.rule else None
                body = await self._deliver(outcome.answer.body, fault)
                await self._travel()
            finally:
                world.cloud.requests.end()
            exchange.status, exchange.body = outcome.answer.status, body
            exchange.handed, exchange.place = world.loop.now, world.place()
            exchange.wall = world.wall()
            world.tell("answer", exchange.number, exchange.status, len(body))
            yield SimpleNamespace(
                status=exchange.status, headers=outcome.headers, content=_Content(body)
            )
        finally:
            exchange.over = True

    def _begin(self, raw, host):
        world = self._world
        target, call, job_id = host.partition(".")[0], "list", None
        if raw.path.count("/") > 4:
            call, job_id = "detail", raw.path.rpartition("/")[2]
        authorization = raw.headers.get("authorization", "")
        key = authorization.partition("Access=")[2].partition(",")[0] or None
        exchange = Exchange(
            world.place(), LIFE.get().number, target, call, job_id, key, world.loop.now
        )
        world.net.exchanges.append(exchange)
        world.tell("ask", exchange.number, target, call, job_id)
        world.rules.sent(exchange)
        return exchange

    async def _travel(self):
        world = self._world
        net, draw = world.net, world.draw
        low, high = net.latency
        seconds = low + (high - low) * draw.random()
        if net.late and draw.random() < net.late:
            seconds += 15 * draw.random()
        if net.down or (net.lost and draw.random() < net.lost):
            world.met("net.lost")
            await anyio.sleep(seconds)
            raise aiohttp.ServerDisconnectedError
        await anyio.sleep(seconds)

    async def _deliver(self, body, fault):
        if fault is None:
            return body
        self._world.met(f"cloud.{fault.kind}")
        match fault.kind:
            case "hang":
                await anyio.sleep(fault.seconds or LONG)
            case "reset":
                raise aiohttp.ServerDisconnectedError
            case "truncated":
                raise aiohttp.ClientPayloadError
            case "slow_drip":
                await anyio.sleep(len(body) * 0.5)
            case kind:
                assert kind not in DELIVERIES, kind
        return body


def _raw(method, url, headers, data):
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    names = {name.lower(): value for name, value in headers.items()}
    return RawRequest(method, target, names, data or b"")


class _Content:
    def __init__(self, body):
        self._body = body

    async def readany(self):
        body, self._body = self._body, b""
        return body


class ReceiverDoor:
    """Stands in for the session of a webhook; the receiver behaves as the script says."""

    def __init__(self, world, name):
        self._world = world
        self._name = name

    @asynccontextmanager
    async def post(self, url, *, data, headers, **_):  # noqa: ARG002
        world = self._world
        mood = world.receiver_mood
        await anyio.sleep(0.005 + 0.03 * world.draw.random())
        if mood == "unsure":
            mood = world.draw.choice(["taken", "500", "lost", "taken_and_lost", "429"])
        world.met(f"receiver.{mood}")
        if mood == "hangs":
            await anyio.sleep(10.0)
            raise TimeoutError
        if mood == "lost":
            raise aiohttp.ServerDisconnectedError
        status = int(mood) if mood.isdecimal() else 200
        if status == 200:
            world.told(self._name, data, surely=mood != "taken_and_lost")
        elif status in {400, 410, 422}:
            world.refused(self._name, data)
        if mood == "taken_and_lost":
            raise aiohttp.ServerDisconnectedError
        retry = {"Retry-After": "7"} if status in {429, 503} else {}
        yield SimpleNamespace(status=status, headers=retry, content=None)
