"""The webhook against a real receiver that answers, fails, hangs and hangs up."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import re
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from pydantic import SecretStr

from tests.doors.sinks.conftest import Receiver, receiving, step, talking
from tests.doors.store.conftest import opened
from watcher.core.address import url_fault
from watcher.core.errors import SinkError
from watcher.core.model import JobKey, JournalEvent, Level, Phase, Transition
from watcher.core.transitions import transition
from watcher.ports import Mendable, Outbox, Undeliverable
from watcher.sinks.courier import Courier, RetryPolicy
from watcher.sinks.kinds import open_sink
from watcher.sinks.post import MENDABLE, PASSING
from watcher.sinks.webhook import Webhook, WebhookSink, sign, signing_key
from watcher.store import MemoryStore

NOW = 1_700_000_000.9


def event(name: str = "job.finished", **fields: object) -> JournalEvent:
    shown = {
        "project_id": "p/1",
        "job_id": "j",
        "observed_at": "2023-11-14T22:13:20.000000Z",
        **fields,
    }
    transition = Transition(name, "abc123", Level.INFO, JobKey("prod", "j"), shown)
    return JournalEvent(7, transition)


@asynccontextmanager
async def hook(url: str, **options):
    given = Webhook(kind="webhook", name="hook", url=url, **options)
    async with open_sink(given, lambda: NOW) as sink:
        yield sink


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


VERDICTS = {
    SinkError: [301, 302, 307, 408, 425, 429, 500, 503],
    Mendable: [401, 403, 404],
    Undeliverable: [400, 402, 405, 410, 413, 415, 422, 451, 499],
}


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(status, kind) for kind, statuses in VERDICTS.items() for status in statuses],
)
async def test_any_answer_but_2xx_is_a_failure_and_no_redirect_is_followed(
    status, verdict
):
    async with receiving() as receiver, hook(receiver.url) as sink:

        async def answer(_):
            return web.Response(status=status, headers={"Location": "/elsewhere"})

        receiver.answer = answer
        with pytest.raises(SinkError, match=f"answered {status}") as caught:
            await sink.deliver([event()])
    assert type(caught.value) is verdict
    assert getattr(caught.value, "status_code", status) == status
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


@pytest.mark.parametrize(
    ("status", "pause"), [(429, 17), (408, 17), (503, 17), (404, None), (400, None)]
)
async def test_a_request_to_wait_is_passed_on_where_waiting_helps(status, pause):
    async with receiving() as receiver, hook(receiver.url) as sink:

        async def answer(_):
            return web.Response(status=status, headers={"Retry-After": "17"})

        receiver.answer = answer
        with pytest.raises(SinkError) as caught:
            await sink.deliver([event()])
    assert getattr(caught.value, "retry_after", None) == pause


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


def test_neither_secret_nor_url_is_in_a_repr():
    given = Webhook(
        kind="webhook",
        url="https://example.com/hidden",
        secret=SecretStr("hidden"),
    )
    assert "hidden" not in repr(given)
    assert "hidden" not in repr(WebhookSink(given, None, lambda: NOW))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_hidden!", "whsec_aGlk!ZGVu"])
def test_a_secret_that_cannot_sign_is_refused_unrepeated(secret):
    with pytest.raises(ValueError, match="secret") as caught:
        Webhook(kind="webhook", url="https://example.com", secret=secret)
    assert "hidden" not in str(caught.value)


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


async def emptied(store: Outbox) -> None:
    with anyio.fail_after(20):
        while await store.backlog("hook"):  # noqa: ASYNC110
            await anyio.sleep(0.01)


@pytest.mark.parametrize("seed", range(3))
async def test_through_a_mad_receiver_every_event_arrives_in_the_jobs_order(
    tmp_path, seed
):
    chance, jobs = random.Random(seed), [f"j{n}" for n in range(6)]
    policy = RetryPolicy(first_retry=0.01, longest_retry=0.05, parallel_jobs=4, batch=7)
    async with (
        opened(tmp_path / "w.db", sinks=["hook"]) as store,
        receiving() as receiver,
        hook(receiver.url, timeout=0.2) as sink,
        anyio.create_task_group() as tasks,
    ):
        receiver.answer = madness(receiver, chance)
        courier = Courier(sink, store, store, jitter=chance.random, policy=policy)
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


async def test_what_the_receiver_refuses_is_given_up_or_waits_by_its_status(lines):
    refusals = {"a": 400, "b": 404}

    async def answer(body):
        return web.Response(status=refusals.get(body["subject"], 204))

    store = MemoryStore(now=lambda: NOW, sinks=["hook"])
    policy = RetryPolicy(first_retry=0.01, longest_retry=0.05, parallel_jobs=1)
    async with (
        receiving() as receiver,
        hook(receiver.url) as sink,
        anyio.create_task_group() as tasks,
    ):
        receiver.answer = answer
        await store.commit([step("a", "a0"), step("b", "b0"), step("c", "c0", "c1")])
        courier = Courier(sink, store, store, jitter=lambda: 0.0, policy=policy)
        tasks.start_soon(courier.run)
        with anyio.fail_after(5):
            while len(receiver.taken) < 2 or courier.failed < 3:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert [one["id"] for one in receiver.taken] == ["c0", "c1"]
        assert courier.undeliverable == 1
        del refusals["b"]
        await emptied(store)
        courier.stop()
    assert receiver.taken[-1]["id"] == "b0"
    assert (courier.delivered, courier.undeliverable) == (3, 1)
    told = {line["event"]: line for line in lines}
    assert told["sink.undeliverable"]["status_code"] == 400
    assert told["sink.undeliverable"]["job_id"] == "a"
    assert "hidden" not in str(lines)


async def test_a_dead_receiver_costs_a_shutdown_no_more_than_the_drain():
    async with (
        talking(lambda _: anyio.sleep_forever()) as url,
        hook(url, timeout=30) as sink,
    ):
        store = MemoryStore(now=lambda: NOW, sinks=["hook"])
        await store.commit([step("a", "1")])
        courier = Courier(
            sink, store, store, jitter=lambda: 0.5, policy=RetryPolicy(drain=0.2)
        )
        with anyio.fail_after(2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(courier.run)
                await anyio.sleep(0.1)
                courier.stop()
        assert await store.backlog("hook") == 1


PAGE = Path("docs/how-to/webhook.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def shown(language: str) -> str:
    """The page's one block in this language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return block


def shown_headers() -> dict[str, str]:
    _request, *lines = shown("http").splitlines()
    return dict(line.split(": ", 1) for line in lines)


def shown_event() -> JournalEvent:
    data = json.loads(shown("json"))["data"]
    name, _, seq, target = (data.pop(k) for k in ("event", "event_id", "seq", "target"))
    key = JobKey(target, data["job_id"])
    return JournalEvent(seq, transition(key, name, Level.WARNING, 0, data))


async def test_the_example_of_the_page_is_what_is_sent():
    async with receiving() as receiver:
        given = Webhook(kind="webhook", url=receiver.url, secret=SECRET)
        clock = float(shown_headers()["webhook-timestamp"])
        async with open_sink(given, lambda: clock) as sink:
            await sink.deliver([shown_event()])
    ((headers, body),) = receiver.requests
    assert json.dumps(json.loads(body), indent=2) == shown("json").strip()
    technical = {"Accept", "Accept-Encoding", "Content-Length", "Host"}
    said = {name: value for name, value in headers.items() if name not in technical}
    assert said == {k: v for k, v in shown_headers().items() if k not in technical}


@pytest.mark.parametrize("secret", [SECRET, "plain"])
async def test_the_page_tells_how_to_verify_the_signature(secret, monkeypatch):
    code = shown("python")
    assert len(re.findall(r"^ .*$", code, re.MULTILINE)) <= 10
    exec(code, there := {})
    async with receiving() as receiver, hook(receiver.url, secret=secret) as sink:
        await sink.deliver([event()])
    ((headers, body),) = receiver.requests

    def genuine(key, content, now):
        monkeypatch.setattr("time.time", lambda: now)
        return there["is_genuine"](key, headers, content)

    assert genuine(secret, body, NOW)
    assert not genuine("another", body, NOW)
    assert not genuine(secret, body + b" ", NOW)
    assert not genuine(secret, body, NOW + 301), "an old one that is sent again"


def test_the_page_tells_of_every_answer():
    table = PAGE.partition("| answer |")[2]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    listed = [set(map(int, re.findall(r"\b\d{3}\b", row))) for row in rows]
    assert MENDABLE in listed
    assert PASSING in listed
