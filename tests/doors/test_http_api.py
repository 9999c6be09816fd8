"""The API over real HTTP: every field, hostile text, streams, and what may be changed."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.doors.store.conftest import opened, step
from tests.fakes import START
from watcher.core.errors import Reason, SettingsError, StoreError
from watcher.core.model import (
    Absence,
    Item,
    Job,
    JobKey,
    JobRecord,
    Level,
    Phase,
    PollFailed,
    Step,
    Task,
    Transition,
    check_job_id,
)
from watcher.pages.api import (
    AddJob,
    EventsPage,
    JobPage,
    JobsPage,
    Reload,
    RemoveJob,
    Rows,
    StreamPage,
    events,
    sse,
)
from watcher.polling.board import Board
from watcher.ports import Request
from watcher.store import MemoryStore
from watcher.web.server import Rules, serve

TOKEN = "correct horse battery staple"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
KEY = JobKey("prod", "job-1")
RECORD = JobRecord(
    KEY,
    project_id="p",
    phase=Phase.FAILED,
    job=Job(
        "job-1",
        status="FINISHED",
        abnormal_count=1,
        name="install",
        type="driver",
        description="the new driver",
        template_id="tpl",
        user_name="zoe",
        created_at=START - 60,
        updated_at=START - 1.5,
        items=(Item("driver", {"version": "24.1"}),),
    ),
    tasks=(
        Task("t1", "FAILED", "s1", "node-1", "c1", "ECS", "no disk", START - 60, START),
        Task("t2", "SUCCESS"),
    ),
    absences={"t2": Absence(2, START)},
    first_seen_at=START - 30,
    last_poll_at=START,
    last_success_at=START - 10,
    finished_at=START,
    failures=3,
    failure=PollFailed(Reason.SERVER_ERROR, 503, "X.1", "busy", "r-1", retry_after=1.0),
)
SUMMARY = {
    "target": "prod",
    "job_id": "job-1",
    "project_id": "p",
    "name": "install",
    "type": "driver",
    "status": "FINISHED",
    "phase": "failed",
    "abnormal_count": 1,
    "task_counts": {"FAILED": 1},
    "created_at": "2023-11-14T22:12:20.000000Z",
    "updated_at": "2023-11-14T22:13:18.500000Z",
    "first_seen_at": "2023-11-14T22:12:50.000000Z",
    "last_poll_at": "2023-11-14T22:13:20.000000Z",
    "last_success_at": "2023-11-14T22:13:10.000000Z",
    "next_poll_at": "2023-11-14T22:13:25.000000Z",
    "finished_at": "2023-11-14T22:13:20.000000Z",
    "replica": None,
}
ERROR = {
    "reason": "server_error",
    "status_code": 503,
    "error_code": "X.1",
    "error_msg": "busy",
    "request_id": "r-1",
}
FAILURES = [{"message": "no disk", "count": 1, "servers": ["node-1"]}]
ROW = {**SUMMARY, "last_error": ERROR, "tasks": {"FAILED": 1}, "failures": FAILURES}
DETAIL = {
    **SUMMARY,
    "description": "the new driver",
    "template_id": "tpl",
    "user_name": "zoe",
    "items": [{"type": "driver", "spec": {"version": "24.1"}}],
    "failures": 3,
    "last_error": ERROR,
    "folded_failures": FAILURES,
    "tasks": [
        {
            "id": "t1",
            "status": "FAILED",
            "phase": "failed",
            "missing_answers": 0,
            "server_id": "s1",
            "server_name": "node-1",
            "cloud_server": {"id": "c1", "type": "ECS"},
            "message": "no disk",
            "created_at": "2023-11-14T22:12:20.000000Z",
            "updated_at": "2023-11-14T22:13:20.000000Z",
        },
        {
            "id": "t2",
            "status": "SUCCESS",
            "phase": "succeeded",
            "missing_answers": 2,
            "server_id": None,
            "server_name": None,
            "cloud_server": {"id": None, "type": None},
            "message": None,
            "created_at": None,
            "updated_at": None,
        },
    ],
}


class Daemon:
    """What the API stands on: a board, a store, and what may be changed."""

    def __init__(self, store=None, records=()):
        self.board = Board()
        self.board.show(records)
        self.store = store or MemoryStore(now=lambda: START)
        self.due = {KEY: 5.0}
        self.configured = set()
        self.findings = []
        self.grown = self.store.grown
        self.events = EventsPage(self, pulse=0.02)
        self.broken = False
        self.reads = 0

    @property
    def records(self):
        return self.board.records

    async def read(self, after, limit, job_id=None):
        if self.broken:
            raise StoreError("disk full")
        self.reads += 1
        return await self.store.read(after, limit, job_id)

    async def commit(self, *steps):
        await self.store.commit(steps)

    async def add(self, key):
        if self.broken:
            raise StoreError("disk full")
        if key.target != "prod":
            raise KeyError(key.target)
        new = key not in self.records
        if new:
            self.board.show([JobRecord(key)])
        return new

    async def remove(self, key):
        if self.broken:
            raise StoreError("disk full")
        if key in self.configured:
            raise ValueError("it stands in the configuration")
        known = key in self.records
        self.board.drop([key])
        return known

    async def reload(self):
        if self.findings:
            raise SettingsError(self.findings)

    @asynccontextmanager
    async def served(self, token=TOKEN):
        board = (self.board, self.due.get, lambda: START)
        self.rows = Rows(*board)
        self.stream = StreamPage(self.rows, pulse=0.02, pace=0.01)
        pages = [JobsPage(self.rows), JobPage(self.rows), self.events, self.stream]
        actions = [
            AddJob(self.add, check_job_id),
            RemoveJob(self.remove),
            Reload(self.reload),
        ]
        async with (
            serve(
                pages, "127.0.0.1", 0, actions=actions, rules=Rules(lambda: token)
            ) as address,
            aiohttp.ClientSession("http://{}:{}".format(*address)) as session,
        ):
            self.address = address
            yield session


async def ask(session, method, path, **options):
    async with session.request(method, path, **options) as response:
        text = await response.text()
        return response.status, json.loads(text) if text else None


async def test_the_list_of_jobs():
    async with Daemon(records=[RECORD]).served() as session:
        status, shown = await ask(session, "GET", "/api/v1/jobs")
    assert status == 200
    assert shown.pop("version").startswith("1-")
    counts = dict.fromkeys(Phase, 0) | {"failed": 1}
    assert shown == {
        "counts": counts,
        "failing": 0,
        "total": 1,
        "next": None,
        "jobs": [ROW],
    }


async def test_no_jobs():
    async with Daemon().served() as session:
        _, shown = await ask(session, "GET", "/api/v1/jobs")
    assert (shown["total"], shown["jobs"], shown["next"]) == (0, [], None)


async def test_everything_about_one_job():
    async with Daemon(records=[RECORD]).served() as session:
        status, shown = await ask(session, "GET", "/api/v1/jobs/prod/job-1")
    assert status == 200
    assert shown.pop("version").startswith("1-")
    assert shown == DETAIL


async def test_a_job_that_never_answered():
    daemon = Daemon(records=[JobRecord(KEY)])
    daemon.due = {KEY: float("inf")}
    async with daemon.served() as session:
        status, shown = await ask(session, "GET", "/api/v1/jobs/prod/job-1")
    assert status == 200
    assert shown.keys() == {*DETAIL, "version"}
    assert shown["phase"] == "unknown"
    assert shown["tasks"] == shown["items"] == []
    assert shown["next_poll_at"] is shown["last_error"] is shown["name"] is None


async def test_a_poll_that_is_overdue_is_due_now():
    daemon = Daemon(records=[RECORD])
    daemon.due = {KEY: -5.0}
    async with daemon.served() as session:
        _, shown = await ask(session, "GET", "/api/v1/jobs/prod/job-1")
    assert shown["next_poll_at"] == "2023-11-14T22:13:20.000000Z"


HOSTILE = '<script>alert(1)</script>"\\\n\r\0\x1b[2J\u2028\x7f\ud800'


async def test_hostile_text_comes_out_as_valid_json():
    job = replace(RECORD.job, name=HOSTILE, description=HOSTILE, status=HOSTILE)
    tasks = (Task("t1", HOSTILE, message=HOSTILE),)
    record = replace(RECORD, job=job, tasks=tasks, project_id=None)
    async with Daemon(records=[record]).served() as session:
        for path in ("/api/v1/jobs", "/api/v1/jobs/prod/job-1"):
            async with session.get(path) as response:
                body = await response.read()
                assert response.content_type == "application/json"
                assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert body.count(b"\n") == 1
            shown = json.loads(body)
        assert shown["name"] == shown["tasks"][0]["message"] == HOSTILE


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/jobs/prod/nothing",
        "/api/v1/jobs/other/job-1",
        "/api/v1/jobs/prod/..%2Fjob-1",
        "/api/v1/jobs/../../etc/passwd",
        "/api/v1/jobs/prod/job-1/",
        "/api/v1/jobs/prod/%00",
        "/api/v1/jobs/prod/%ff",
        "/api/v1/jobs/prod/job-1%0d%0aX:%20y",
        "/api/v1/jobs//job-1",
        "/api/v1/jobs/prod",
        "/api/v1/jobs/prod/" + "a" * 2000,
    ],
)
async def test_jobs_that_are_not_there(path):
    daemon = Daemon(records=[RECORD])
    async with daemon.served():
        for method in ("GET", "DELETE"):
            status, body = await raw(daemon.address, method, path)
            assert status in {400, 404}, method
            assert body.startswith(b'{"error":'), body


async def raw(address, method, path):
    """Send a path as it stands; clients tidy it up."""
    reader, writer = await asyncio.open_connection(*address)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    writer.write(f"{head}Authorization: {BEARER['Authorization']}\r\n\r\n".encode())
    with anyio.fail_after(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    top, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" in top:
        body = body.partition(b"\r\n")[2]
    return int(top.split()[1]), body


async def test_a_long_list_leaves_the_loop_to_others():
    """100,000 jobs, walked through page by page while the board changes under them."""
    records = [
        replace(RECORD, key=JobKey("prod", f"job-{number}"))
        for number in range(100_000)
    ]
    daemon = Daemon(records=records)
    gaps = [0.0]

    async def turn():  # of the thread's own time: other workers take some, too
        while True:
            began = time.thread_time()
            await anyio.sleep(0.001)
            gaps.append(time.thread_time() - began)
            daemon.board.drop([JobKey("prod", f"job-{len(gaps)}")])

    async with daemon.served() as session, anyio.create_task_group() as tasks:
        tasks.start_soon(turn)
        cursor, seen = "", set()
        for _ in range(5):
            path = f"/api/v1/jobs?limit=1000&cursor={cursor}"
            _, page = await ask(session, "GET", path)
            seen.update(row["job_id"] for row in page["jobs"])
            cursor = page["next"]
        tasks.cancel_scope.cancel()
    assert len(seen) == 5000
    assert page["total"] > 90_000
    assert max(gaps) < 0.7
    assert len(gaps) > 100


# Changing what is watched


async def test_a_job_is_added_once():
    daemon = Daemon()
    async with daemon.served() as session:
        wanted = {"target": "prod", "job_id": "job-1"}
        path = "/api/v1/jobs"
        async with session.post(path, json=wanted, headers=BEARER) as response:
            assert response.status == 201
            assert response.headers["Location"] == "/api/v1/jobs/prod/job-1"
            assert await response.json() == wanted
        assert (await ask(session, "GET", "/api/v1/jobs/prod/job-1"))[0] == 200
        again = await ask(session, "POST", path, json=wanted, headers=BEARER)
        assert again == (200, wanted)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"", 400, "body: Input data was truncated"),
        (b"{", 400, "body: "),
        (b"\xff", 400, "body: "),
        (b"[" * 60_000, 400, "body: "),
        (b'{"target": "\xff"}', 400, "body: "),
        (b"[]", 400, "body: Expected `object`"),
        (b'{"target": "prod"}', 400, "`job_id`"),
        (b'{"target": "prod", "job_id": 1}', 400, "`$.job_id`"),
        (b'{"target": "prod", "job_id": "a", "more": 1}', 400, "`more`"),
        (b'{"target": "prod", "job_id": "../a"}', 400, "job_id: "),
        (b'{"target": "prod", "job_id": "a\\n"}', 400, "job_id: "),
        (b'{"target": "prod", "job_id": ""}', 400, "job_id: "),
        (b'{"target": "prod", "job_id": "templates"}', 400, "job_id: "),
        (b'{"target": "other", "job_id": "a"}', 404, "target: 'other'"),
    ],
)
async def test_what_cannot_be_added(body, status, told):
    daemon = Daemon()
    async with daemon.served() as session:
        headers = {**BEARER, "Content-Type": "application/json"}
        answer = await ask(session, "POST", "/api/v1/jobs", data=body, headers=headers)
    assert answer[0] == status
    assert told in answer[1]["error"]
    assert not daemon.records


async def test_a_job_is_removed():
    daemon = Daemon(records=[RECORD])
    path = "/api/v1/jobs/prod/job-1"
    async with daemon.served() as session:
        daemon.configured = {KEY}
        answer = await ask(session, "DELETE", path, headers=BEARER)
        assert answer == (409, {"error": "it stands in the configuration"})
        daemon.configured = set()
        async with session.delete(path, headers=BEARER) as response:
            assert response.status == 204
            assert await response.read() == b""
            assert "Content-Encoding" not in response.headers
            assert "Content-Type" not in response.headers
        assert (await ask(session, "DELETE", path, headers=BEARER))[0] == 404


async def test_a_store_that_takes_nothing():
    daemon = Daemon(records=[RECORD])
    daemon.broken = True
    wanted = {"target": "prod", "job_id": "a"}
    async with daemon.served() as session:
        for method, path, options in [
            ("POST", "/api/v1/jobs", {"json": wanted}),
            ("DELETE", "/api/v1/jobs/prod/job-1", {}),
            ("GET", "/api/v1/events", {}),
        ]:
            status, body = await ask(session, method, path, headers=BEARER, **options)
            assert status == 503
            assert "disk full" in body["error"]


async def test_reload():
    daemon = Daemon()
    async with daemon.served() as session:
        answer = await ask(session, "POST", "/-/reload", headers=BEARER)
        assert answer == (200, {"reloaded": True})
        daemon.findings = ["poll.interval: must be above 0", "log.level: unknown"]
        status, body = await ask(session, "POST", "/-/reload", headers=BEARER)
        assert status == 500
        assert body["findings"] == daemon.findings


# Events


def told(count, first=1):
    """Steps that tell `count` events, 100 a step."""
    names = [f"e{number}" for number in range(first, first + count)]
    for place in range(0, count, 100):
        yield step(f"job-{place}", *names[place : place + 100])


@pytest.fixture(params=["memory", "sqlite"])
async def daemon(request, tmp_path):
    if request.param == "memory":
        yield Daemon()
        return
    async with opened(tmp_path / "watcher.db") as store:
        yield Daemon(store)


async def test_pages_of_events(daemon):
    await daemon.commit(*told(1100))
    async with daemon.served() as session:
        status, first = await ask(session, "GET", "/api/v1/events")
        assert status == 200
        assert [event["seq"] for event in first["events"]] == [*range(1, 101)]
        assert first["next"] == 100
        _, second = await ask(session, "GET", "/api/v1/events?after=100&limit=1000")
        assert [event["seq"] for event in second["events"]] == [*range(101, 1101)]
        _, end = await ask(session, "GET", f"/api/v1/events?after={second['next']}")
        assert end == {"events": [], "next": 1100}
    assert list(first["events"][0]) == [
        *("timestamp", "level", "event", "event_id", "seq", "target"),
        *("project_id", "job_id", "from", "tasks"),
    ]


async def test_a_page_is_read_while_it_is_sent():
    """A slow reader costs one batch; a journal that fails meanwhile ends the page."""
    daemon = Daemon()
    await daemon.commit(*told(500))
    page = await daemon.events.respond(Request("/", query={"limit": "450"}))
    body, reads = [], []
    async for chunk in page.body:
        body.append(chunk)
        reads.append(daemon.reads)
    assert reads == [1, 1, 2, 3, 4, 5, 5]
    shown = json.loads(b"".join(body))
    assert [event["seq"] for event in shown["events"]] == [*range(1, 451)]
    assert shown["next"] == 450
    page = await daemon.events.respond(Request("/", query={"limit": "450"}))
    body = []
    async for chunk in page.body:
        body.append(chunk)
        daemon.broken = len(body) == 3
    shown = json.loads(b"".join(body))
    assert (len(shown["events"]), shown["next"]) == (200, 200)


async def test_the_events_of_one_job(daemon):
    await daemon.commit(*told(300))
    async with daemon.served() as session:
        path = "/api/v1/events?job=job-100"
        _, first = await ask(session, "GET", f"{path}&limit=60")
        assert [event["event_id"] for event in first["events"]] == [
            f"e{number}" for number in range(101, 161)
        ]
        _, rest = await ask(session, "GET", f"{path}&after={first['next']}&limit=1000")
        assert len(rest["events"]) == 40
        async with stream(session, "?job=job-200&after=150") as response:
            (event,) = await messages(response, 1)
            assert json.loads(event["data"])["event_id"] == "e201"
        status, body = await ask(session, "GET", "/api/v1/events?job=../x")
        assert status == 400
        assert "is not a job id" in body["error"]


async def test_an_event_is_as_in_the_log():
    fields = {"job_id": "a", "observed_at": "2023-11-14T22:13:20.000000Z"}
    failed = Transition("task.transition", "e1", Level.WARNING, KEY, fields)
    daemon = Daemon()
    await daemon.commit(Step(RECORD, (failed,)))
    async with daemon.served() as session:
        _, body = await ask(session, "GET", "/api/v1/events")
    assert body["events"] == [
        {
            "timestamp": "2023-11-14T22:13:20.000000Z",
            "level": "warning",
            "event": "task.transition",
            "event_id": "e1",
            "seq": 1,
            "target": "prod",
            **fields,
        }
    ]


BAD_NUMBERS = ["-1", "x", "1.5", "", " 1", "1e3", "٣", "9007199254740993", "9" * 5000]


@pytest.mark.parametrize(
    "query",
    [
        *(f"after={number}" for number in BAD_NUMBERS),
        *("limit=0", "limit=1001", "limit=-1", "limit="),
    ],
)
async def test_bad_numbers(query):
    async with Daemon().served() as session:
        for headers in ({}, {"Accept": "text/event-stream"}):
            path = f"/api/v1/events?{query}"
            status, body = await ask(session, "GET", path, headers=headers)
            assert status == 400
            assert body["error"].startswith(query.partition("=")[0])


STREAM = {"Accept": "text/event-stream", "Accept-Encoding": "gzip"}


@asynccontextmanager
async def stream(session, query="", **headers):
    headers = {**STREAM, **headers}
    async with session.get(f"/api/v1/events{query}", headers=headers) as response:
        assert response.status == 200
        yield response


async def messages(response, count):
    """Read messages as a browser does: fields up to an empty line."""
    found, message = [], {}
    with anyio.fail_after(30):
        while len(found) < count:
            line = (await response.content.readuntil(b"\n")).decode().rstrip("\n")
            name, _, value = line.partition(": ")
            if line and name:
                message[name] = value
            elif not line and "data" in message:
                found.append(message)
                message = {}
    return found


async def test_ten_thousand_events_in_order(daemon):
    async with daemon.served() as session, anyio.create_task_group() as tasks:
        await daemon.commit(*told(5000))

        async def more():
            for first in range(5001, 10_001, 50):
                await daemon.commit(*told(50, first))

        tasks.start_soon(more)
        async with stream(session) as response:
            assert response.content_type == "text/event-stream"
            assert "Content-Encoding" not in response.headers
            found = await messages(response, 10_000)
    assert [int(message["id"]) for message in found] == [*range(1, 10_001)]
    data = [json.loads(message["data"]) for message in found]
    assert [event["event_id"] for event in data] == [f"e{n}" for n in range(1, 10_001)]
    assert {message["event"] for message in found} == {"task.transition"}


async def test_a_stream_resumes_where_it_was(daemon):
    await daemon.commit(*told(5))
    async with daemon.served() as session:
        async with stream(session, "?after=3") as response:
            assert [m["id"] for m in await messages(response, 2)] == ["4", "5"]
        headers = {"Last-Event-ID": "4"}  # is newer than what the address says
        async with stream(session, "?after=1", **headers) as response:
            assert [m["id"] for m in await messages(response, 1)] == ["5"]
        headers = {**STREAM, "Last-Event-ID": "four"}
        status, _ = await ask(session, "GET", "/api/v1/events", headers=headers)
        assert status == 400


async def test_an_event_is_streamed_as_soon_as_it_is_committed():
    daemon = Daemon()
    daemon.events = EventsPage(daemon, pulse=30)
    async with daemon.served() as session, stream(session) as response:
        for number in range(1, 4):
            await anyio.sleep(0.05)
            began = anyio.current_time()
            await daemon.commit(*told(1, number))
            assert (await messages(response, 1))[0]["id"] == str(number)
            assert anyio.current_time() - began < 5


async def test_a_commit_during_the_look_is_not_missed():
    daemon = Daemon()

    async def read(after, limit, job_id):
        events = await daemon.store.read(after, limit, job_id)
        if not after and not events:
            await daemon.commit(*told(1))  # after the look, before the wait
        return events

    daemon.read = read
    daemon.events = EventsPage(daemon, pulse=30)
    async with daemon.served() as session, stream(session) as response:
        assert (await messages(response, 1))[0]["id"] == "1"


async def test_a_number_of_an_older_store_starts_the_present_one_from_its_beginning():
    daemon = Daemon()
    await daemon.commit(*told(2))
    async with daemon.served() as session:
        async with stream(session, **{"Last-Event-ID": "5000"}) as response:
            assert [m["id"] for m in await messages(response, 2)] == ["1", "2"]
        _, page = await ask(session, "GET", "/api/v1/events?after=5000")
        assert [event["seq"] for event in page["events"]] == [1, 2]
        assert page["next"] == 2


async def test_numbers_without_an_event_do_not_make_a_stream_turn_without_rest():
    daemon = Daemon()

    async def grown(after):
        return await daemon.store.grown(after - 7 if after > 0 else after) + 7

    daemon.grown = grown  # as after a rescue, which leaves numbers out
    await daemon.commit(*told(2))
    async with daemon.served() as session, stream(session) as response:
        await messages(response, 2)
        await anyio.sleep(0.1)
        assert daemon.reads < 4
        await daemon.commit(*told(1, 3))
        assert [m["id"] for m in await messages(response, 1)] == ["3"]


async def test_a_quiet_stream_has_a_heart():
    async with Daemon().served() as session, stream(session) as response:
        with anyio.fail_after(10):
            await response.content.readuntil(b": still here\n\n")
            await response.content.readuntil(b": still here\n\n")


async def test_hostile_text_in_a_stream_stays_in_its_field():
    fields = {"job_name": HOSTILE, "message": "\n\ndata: forged\n\nid: 9\n"}
    daemon = Daemon()
    told = Transition("task.transition", "e1", Level.INFO, KEY, fields)
    await daemon.commit(Step(RECORD, (told,)))
    async with daemon.served() as session, stream(session) as response:
        (message,) = await messages(response, 1)
    assert message["id"] == "1"
    assert json.loads(message["data"])["message"] == fields["message"]


async def test_readers_who_leave_are_noticed(monkeypatch):
    monkeypatch.setattr(sse, "PULSES_A_HEARTBEAT", 10**9)  # without a word to them
    daemon = Daemon()
    async with daemon.served() as session:
        for _ in range(20):
            async with stream(session) as response:
                await response.content.readuntil(b"\n\n")
        await until(lambda: daemon.events.streams == 0)


async def until(condition):
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await anyio.sleep(0.01)


async def test_a_slow_reader_holds_up_nobody(caplog):
    """It takes nothing: little is read ahead for it, and others get everything."""
    daemon = Daemon()
    text = "x" * 1000
    for number in range(10_000):
        fields = {"message": text}
        event = Transition("task.transition", f"e{number}", Level.INFO, KEY, fields)
        await daemon.store.commit([Step(RECORD, (event,))])
    async with daemon.served() as session:
        reader, writer = await asyncio.open_connection(*daemon.address)
        writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n")
        writer.write(b"Accept: text/event-stream\r\n\r\n")
        await until(lambda: daemon.reads > 1)
        reader._transport.pause_reading()
        before = -1
        while before != daemon.reads:
            before = daemon.reads
            await anyio.sleep(0.3)
        assert daemon.reads < 90  # of the 100 batches that there are
        async with stream(session) as response:
            found = await messages(response, 10_000)
        assert len(found) == 10_000
        reader._transport.abort()
        await until(lambda: daemon.events.streams == 0)
    assert not caplog.records  # that a reader leaves is no fault


def open_files():
    return len([*Path("/proc/self/fd").iterdir()])


async def test_a_reader_who_takes_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr("watcher.web.sending.STALLED_AFTER", 0.3)
    daemon = Daemon()
    event = {"message": "x" * 100_000}
    for number in range(1000):
        told = Transition("task.transition", f"e{number}", Level.INFO, KEY, event)
        await daemon.store.commit([Step(RECORD, (told,))])
    async with daemon.served():
        before = open_files()
        reader, writer = await asyncio.open_connection(*daemon.address)
        reader._transport.pause_reading()
        writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n")
        writer.write(b"Accept: text/event-stream\r\n\r\n")
        await until(lambda: daemon.events.streams == 1)
        await until(lambda: daemon.events.streams == 0)
        ours = before + 1  # of both ends
        await until(lambda: open_files() == ours)
        reader._transport.abort()


async def test_a_stream_ends_where_the_journal_cannot_be_read():
    daemon = Daemon()
    async with daemon.served() as session, stream(session) as response:
        await response.content.readuntil(b"\n\n")
        daemon.broken = True
        await daemon.commit(*told(1))
        with anyio.fail_after(10):
            await response.content.read()
        assert daemon.events.streams == 0


async def test_streams_end_with_the_server():
    daemon = Daemon()
    daemon.events = EventsPage(daemon, pulse=30)
    session = aiohttp.ClientSession()
    async with session:
        async with daemon.served():
            url = "http://{}:{}/api/v1/events".format(*daemon.address)
            response = await session.get(url, headers=STREAM)
            await response.content.readuntil(b"\n\n")
            began = anyio.current_time()
        assert anyio.current_time() - began < 3
        await until(lambda: daemon.events.streams == 0)
        response.close()


async def test_a_head_request_opens_no_stream():
    daemon = Daemon()
    async with daemon.served() as session:
        async with session.head("/api/v1/events", headers=STREAM) as response:
            assert response.status == 200
        assert daemon.events.streams == 0


async def test_few_streams_read_at_once():
    daemon = Daemon()
    at_once = most = 0

    async def read(*_):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await anyio.sleep(0.01)
        at_once -= 1
        return []

    daemon.read = read
    async with daemon.served() as session, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask, session, "GET", "/api/v1/events")
    assert most == events.MOST_READS
