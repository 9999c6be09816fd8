"""The webhook against a real receiver that answers, fails, hangs and hangs up."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from aiohttp import web
from pydantic import SecretStr

from tests.doors.sinks.conftest import step
from tests.doors.store.conftest import opened
from watcher.core.address import url_fault
from watcher.core.errors import SettingsError, SinkError
from watcher.core.model import JobKey, JournalEvent, Level, Phase, Transition
from watcher.ports import Postponed
from watcher.sinks.courier import Courier, Pace
from watcher.sinks.webhook import (
    WebhookSink,
    retry_after,
    sign,
    signing_key,
)
from watcher.store import MemoryStore, SqliteStore

NOW = 1_700_000_000.9


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


def event(name: str = "job.finished", **fields: object) -> JournalEvent:
    shown = {
        "project_id": "p/1",
        "job_id": "j",
        "observed_at": "2023-11-14T22:13:20.000000Z",
        **fields,
    }
    transition = Transition(name, "abc123", Level.INFO, JobKey("prod", "j"), shown)
    return JournalEvent(7, transition)


def hook(url: str, **options) -> WebhookSink:
    return WebhookSink("hook", url, now=lambda: NOW, **options)


async def test_an_event_is_a_cloud_event():
    async with receiving() as receiver, hook(receiver.url) as sink:
        await sink.deliver([event(phase="failed")])
    ((headers, body),) = receiver.requests
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert json.loads(body) == {
        "specversion": "1.0",
        "id": "abc123",
        "source": "/devserver-watcher/prod/p%2F1",
        "type": "devserver.watcher.job.finished",
        "subject": "j",
        "time": "2023-11-14T22:13:20.000000Z",
        "datacontenttype": "application/json",
        "data": {
            "event": "job.finished",
            "event_id": "abc123",
            "seq": 7,
            "target": "prod",
            "project_id": "p/1",
            "job_id": "j",
            "observed_at": "2023-11-14T22:13:20.000000Z",
            "phase": "failed",
        },
    }


@pytest.mark.parametrize(
    ("secret", "key"),
    [("whsec_" + base64.b64encode(b"key").decode(), b"key"), ("plain", b"plain")],
)
async def test_a_receiver_can_verify_the_signature(secret, key):
    async with (
        receiving() as receiver,
        hook(receiver.url, secret=SecretStr(secret)) as sink,
    ):
        await sink.deliver([event()])
    ((headers, body),) = receiver.requests
    assert headers["webhook-id"] == "abc123"
    assert headers["webhook-timestamp"] == "1700000000"
    signed = b"abc123.1700000000." + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    assert headers["webhook-signature"] == f"v1,{expected.decode()}"


def test_the_signature_is_that_of_the_specification():
    """Example values of the Standard Webhooks reference libraries."""
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert (
        sign(
            key,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            b'{"test": 2432232314}',
        )
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


async def test_without_a_secret_there_is_no_signature():
    async with receiving() as receiver, hook(receiver.url) as sink:
        await sink.deliver([event()])
    assert "webhook-signature" not in receiver.requests[0][0]


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 410, 500, 503])
async def test_any_answer_but_2xx_is_a_failure_and_no_redirect_is_followed(status):
    async with receiving() as receiver, hook(receiver.url) as sink:

        async def answer(_):
            return web.Response(status=status, headers={"Location": "/elsewhere"})

        receiver.answer = answer
        with pytest.raises(SinkError, match=f"answered {status}") as caught:
            await sink.deliver([event()])
    assert "hidden" not in str(caught.value)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_2xx_is_taken(status):
    async with receiving() as receiver, hook(receiver.url) as sink:

        async def answer(_):
            return web.Response(status=status)

        receiver.answer = answer
        await sink.deliver([event()])
    assert len(receiver.taken) == 1


async def test_a_request_to_wait_is_passed_on():
    async with receiving() as receiver, hook(receiver.url) as sink:

        async def answer(_):
            return web.Response(status=429, headers={"Retry-After": "17"})

        receiver.answer = answer
        with pytest.raises(Postponed) as caught:
            await sink.deliver([event()])
    assert caught.value.retry_after == 17


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30),
        (" 0 ", 0),
        ("999999", 3600),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0),
        ("Tue, 14 Nov 2223 22:00:00 GMT", 3600),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("\u0663", None),
        ("soon", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after({"Retry-After": value}, 1_700_000_000.0) == seconds


async def test_a_receiver_that_hangs_is_given_up_in_time():
    async with (
        talking(lambda _: anyio.sleep_forever()) as url,
        hook(url, timeout=0.2) as sink,
    ):
        with anyio.fail_after(2), pytest.raises(SinkError, match="in time"):
            await sink.deliver([event()])


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 2", b"nonsense\r\n\r\n"])
async def test_a_receiver_that_hangs_up_or_talks_nonsense_is_a_failure(said):
    async def behave(stream):
        if said:
            await stream.send(said)

    async with talking(behave) as url, hook(url) as sink:
        with pytest.raises(SinkError) as caught:
            await sink.deliver([event()])
    assert "hidden" not in str(caught.value)


async def test_nobody_listening_is_a_failure_that_names_the_host_alone():
    async with talking(lambda _: anyio.sleep_forever()) as url:
        pass
    async with hook(url) as sink:
        with pytest.raises(SinkError, match=r"127\.0\.0\.1") as caught:
            await sink.deliver([event()])
    assert "hidden" not in str(caught.value)


async def test_an_answer_without_end_is_not_read():
    sent = 0

    async def behave(stream):
        nonlocal sent
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send(b"10000\r\n" + bytes(65536) + b"\r\n")
            sent += 65536

    async with talking(behave) as url, hook(url, timeout=5.0) as sink:
        with anyio.fail_after(1):
            await sink.deliver([event()])
    assert sent < 50_000_000


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, True),
        ({"events": ["job.finished"]}, True),
        ({"events": ["task.transition"]}, False),
        ({"events": []}, False),
        ({"phases": [Phase.FAILED]}, True),
        ({"phases": [Phase.SUCCEEDED]}, False),
        ({"events": ["job.finished"], "phases": [Phase.SUCCEEDED]}, False),
    ],
)
async def test_only_what_is_asked_for_is_posted(options, wanted):
    async with receiving() as receiver, hook(receiver.url, **options) as sink:
        await sink.deliver([event(phase="failed")])
    assert bool(receiver.requests) is wanted


async def test_an_event_without_a_phase_passes_the_phase_filter():
    async with (
        receiving() as receiver,
        hook(receiver.url, phases=[Phase.FAILED]) as sink,
    ):
        await sink.deliver([event("task.transition")])
    assert receiver.requests


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://example.com/x", None),
        ("http://127.0.0.1:9/x", None),
        ("http://localhost/x", None),
        ("http://[::1]:8080/", None),
        ("http://example.com/x", "https"),
        ("http://127.0.0.1.example.com/", "https"),
        ("http://10.0.0.1/", "https"),
        ("ftp://example.com/", "https://"),
        ("file:///etc/passwd", "https://"),
        ("example.com", "https://"),
        ("https://", "host"),
        ("https://u:hidden@example.com/", "password"),
        ("https://example.com:99999/", "not a URL"),
        ("https://[::1/", "not a URL"),
    ],
)
def test_plain_http_goes_to_loopback_only(url, fault):
    found = url_fault(url)
    assert found is None if fault is None else fault in found
    if fault:
        with pytest.raises(SettingsError) as caught:
            hook(url)
        assert caught.value.findings[0].startswith("sinks.hook.url: ")
        assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_hidden!", "whsec_aGlk!ZGVu"])
def test_a_secret_that_cannot_sign_is_refused_unrepeated(secret):
    with pytest.raises(SettingsError, match=r"sinks\.hook\.secret") as caught:
        hook("https://example.com", secret=SecretStr(secret))
    assert "hidden" not in str(caught.value)


async def test_a_sink_that_is_not_open_takes_nothing():
    with pytest.raises(SinkError, match="not open"):
        await hook("https://example.com").deliver([event()])


def test_neither_secret_nor_url_is_in_a_repr():
    sink = hook("https://example.com/hidden", secret=SecretStr("hidden"))
    assert "hidden" not in repr(sink)


def madness(receiver: Receiver, chance: random.Random):
    """Fail, hang, hang up after taking, or take, by chance."""

    async def answer(body):
        what = chance.random()
        if what < 0.2:
            return web.Response(status=500)
        if what < 0.25:
            await anyio.sleep(1)
        if what < 0.35:
            receiver.taken.append(body)
            raise ConnectionResetError
        return web.Response(status=200)

    return answer


async def emptied(store: SqliteStore) -> None:
    with anyio.fail_after(20):
        while await store.backlog("hook"):  # noqa: ASYNC110
            await anyio.sleep(0.01)


@pytest.mark.parametrize("seed", range(3))
async def test_through_a_mad_receiver_every_event_arrives_in_the_jobs_order(
    tmp_path, seed
):
    chance, jobs = random.Random(seed), [f"j{n}" for n in range(6)]
    pace = Pace(first_retry=0.01, longest_retry=0.05, lanes=4, batch=7)
    async with (
        opened(tmp_path / "w.db", sinks=["hook"]) as store,
        receiving() as receiver,
        hook(receiver.url, timeout=0.2) as sink,
        anyio.create_task_group() as tasks,
    ):
        receiver.answer = madness(receiver, chance)
        courier = Courier(sink, store, store, jitter=chance.random, pace=pace)
        tasks.start_soon(courier.run)
        for n in range(8):
            await store.commit([step(job, f"{job}-{n}") for job in jobs])
        await emptied(store)
        courier.stop()
    for job in jobs:
        taken = [one["id"] for one in receiver.taken if one["subject"] == job]
        assert list(dict.fromkeys(taken)) == [f"{job}-{n}" for n in range(8)]
    assert courier.delivered == 48
    assert courier.failed > 0


async def test_a_dead_receiver_costs_a_shutdown_no_more_than_the_drain():
    async with (
        talking(lambda _: anyio.sleep_forever()) as url,
        hook(url, timeout=30) as sink,
    ):
        store = MemoryStore(now=lambda: NOW, sinks=["hook"])
        await store.commit([step("a", "1")])
        courier = Courier(sink, store, store, jitter=lambda: 0.5, pace=Pace(drain=0.2))
        with anyio.fail_after(2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(courier.run)
                await anyio.sleep(0.1)
                courier.stop()
        assert await store.backlog("hook") == 1
