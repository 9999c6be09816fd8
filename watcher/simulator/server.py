"""The HTTP server in front of a simulation, and how it is started and ended."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from aiohttp import web

from watcher.simulator.answers import RawRequest
from watcher.simulator.clock import REAL_CLOCK, Clock
from watcher.simulator.control import PREFIX, Control
from watcher.simulator.options import SimulatorOptions
from watcher.simulator.simulation import Simulator
from watcher.simulator.wire import DELIVERIES, Delivery, plain

MAX_HEADER = 64 * 1024

SHUTDOWN_SECONDS = 0.05
"""Grace for requests in progress; zero would mean for ever."""


class _Door:
    """Turns HTTP requests into the simulation's and its answers into HTTP."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._control = Control(simulator)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        raw = await _read(request)
        if raw.path.startswith(PREFIX):
            answer = self._control.handle(raw, request.remote or "")
            return plain(answer, {"Content-Type": answer.content_type})
        outcome = self._simulator.handle(raw)
        log = self._simulator.requests
        try:
            await anyio.sleep(self._simulator.options.latency)
            rule = outcome.rule
            if rule is None or rule.fault.kind not in DELIVERIES:
                log.answered(outcome.request, outcome.answer.status)
                return plain(outcome.answer, outcome.headers)
            delivery = Delivery(request, outcome.answer, outcome.headers, rule.fault)
            response = await DELIVERIES[rule.fault.kind](delivery)
            if rule.fault.kind != "reset":
                log.answered(outcome.request, outcome.answer.status)
            return response
        finally:
            log.end()


@asynccontextmanager
async def simulate(
    options: SimulatorOptions | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    clock: Clock = REAL_CLOCK,
) -> AsyncIterator[Simulator]:
    """Serve a simulated cloud while the context is open.

    Args:
        options: None takes the defaults.
        host: Address to listen on.
        port: 0 takes any free one; see the simulator's `url`.
        tls: Certificate and key, for HTTPS.
        clock: Where real time comes from.

    Raises:
        OSError: The address cannot be listened on.
    """
    simulator = Simulator(options or SimulatorOptions(), clock)
    server = web.Server(
        _Door(simulator).handle,
        handler_cancellation=True,
        access_log=None,
        max_field_size=MAX_HEADER,
        max_line_size=MAX_HEADER,
    )
    runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        simulator.url = _url("https" if tls else "http", runner.addresses[0])
        yield simulator
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


async def serve(
    options: SimulatorOptions,
    host: str,
    port: int,
    started: Callable[[Simulator], Any] = lambda _: None,
) -> None:
    """Serve a simulated cloud until cancelled.

    Args:
        options: What to serve.
        host: Address to listen on.
        port: 0 takes any free one.
        started: Is called with the simulator once it can be asked.

    Raises:
        OSError: The address cannot be listened on.
    """
    async with simulate(options, host, port) as simulator:
        started(simulator)
        await anyio.sleep_forever()


async def _read(request: web.BaseRequest) -> RawRequest:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return RawRequest(request.method, request.raw_path, headers, await request.read())


def _url(scheme: str, address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
