"""Steps, events and sinks for the tests of delivery."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
import structlog
from aiohttp import web

from watcher.core.errors import SinkError
from watcher.core.model import (
    JobKey,
    JobRecord,
    JournalEvent,
    Level,
    Step,
    Transition,
)


def step(job_id: str, *event_ids: str, target: str = "prod") -> Step:
    key = JobKey(target, job_id)
    transitions = tuple(
        Transition(
            "task.transition",
            event_id,
            Level.INFO,
            key,
            {"project_id": "p", "job_id": job_id, "to": "SUCCESS"},
        )
        for event_id in event_ids
    )
    return Step(JobRecord(key), transitions)


class ScriptedSink:
    """Takes what the script lets it; remembers when it was asked for what."""

    def __init__(self, *, name: str = "hook", per_job: bool = True) -> None:
        self.name = name
        self.per_job = per_job
        self.attempts: list[tuple[float, str]] = []
        self.taken: list[str] = []
        self.refuse: Callable[[JournalEvent], Exception | None] = lambda _: None
        self.seconds: Callable[[JournalEvent], float] = lambda _: 0.0

    async def deliver(self, events: Sequence[JournalEvent]) -> None:
        assert not self.per_job or len(events) == 1
        for event in events:
            self.attempts.append((anyio.current_time(), event.transition.event_id))
            await anyio.sleep(self.seconds(event))
            if error := self.refuse(event):
                raise error
        self.taken += [event.transition.event_id for event in events]

    def times(self, event_id: str) -> list[float]:
        return [at for at, tried in self.attempts if tried == event_id]


def refusing(*event_ids: str) -> Callable[[JournalEvent], Exception | None]:
    """Refuse these events for ever."""
    return lambda event: (
        SinkError("no") if event.transition.event_id in event_ids else None
    )


class Receiver:
    """A web server that keeps what it took and answers what the script says."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.taken: list[dict] = []
        self.url = ""

    async def answer(self, _event: dict) -> web.StreamResponse:
        return web.Response(status=204)

    async def receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((dict(request.headers), body))
        response = await self.answer(json.loads(body))
        if response.status < 300:
            self.taken.append(json.loads(body))
        return response


@asynccontextmanager
async def receiving():
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    receiver.url = f"http://127.0.0.1:{port}/hook?token=hidden"
    yield receiver
    await runner.cleanup()


@asynccontextmanager
async def talking(behave):
    """A TCP server that speaks as `behave(stream)` does; yields its URL."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)

        async def handle(stream):
            async with stream:
                with suppress(anyio.BrokenResourceError), anyio.move_on_after(5):
                    await stream.receive()
                    await behave(stream)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle)
            yield f"http://127.0.0.1:{port}/hook?token=hidden"
            tasks.cancel_scope.cancel()


@pytest.fixture
def lines():
    """What was logged, as dictionaries."""
    before = structlog.get_config()
    captured = structlog.testing.LogCapture()
    structlog.configure(processors=[captured])
    yield captured.entries
    structlog.configure(**before)
