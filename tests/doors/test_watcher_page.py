"""`/api/v1/watcher` and the files of the page, over real HTTP."""

import re
from dataclasses import replace
from types import SimpleNamespace

import aiohttp
import pytest

from tests.doors.test_http_api import ask
from tests.fakes import START, FakeApi, keys
from watcher.core.errors import Reason
from watcher.core.model import JobRecord, Phase, PollFailed
from watcher.pages.api import WatcherPage
from watcher.pages.metrics import MetricsPage
from watcher.pages.ui import ADDRESSES, RUNBOOKS, ui_pages
from watcher.polling.board import Board
from watcher.web.server import serve

A, B, C = keys(3)
MANNER = {"interval_seconds": 10.0, "running": 2}
DOWN = PollFailed(Reason.UNREACHABLE, error_msg="refused")


def record(key, phase=Phase.ACTIVE, answered=START - 5, **more):
    return JobRecord(key, phase=phase, last_success_at=answered, **more)


class Own:
    """The watcher's own state, as the page is handed it."""

    def __init__(self, *records, replica=None):
        self.board = Board()
        self.board.show(records)
        self.metrics = MetricsPage(self.board)
        self.api = FakeApi()
        self.metrics.show_apis({"prod": self.api})
        self.now = START
        sink = {"backlog": 3, "delivered": 2, "failed": 1}
        sink |= {"undeliverable": 5, "dead_lettered": 4}
        self.metrics.own.show_sinks([SimpleNamespace(name="hook", **sink)])
        self.metrics.own.show_store(lambda: 7, lambda: 1.5)
        self.page = WatcherPage(
            self.board,
            self.metrics.own.registry.collect,
            lambda: {"prod": MANNER},
            {"version": "1", "started_at": "then"},
            lambda: self.now,
            lambda: replica,
        )

    async def shown(self, query=""):
        async with (
            serve([self.page], "127.0.0.1", 0) as address,
            aiohttp.ClientSession("http://{}:{}".format(*address)) as session,
        ):
            return await ask(session, "GET", f"/api/v1/watcher{query}")


async def test_how_fresh_it_is_and_what_fails():
    own = Own(
        record(A),
        record(B, answered=START - 60, failure=DOWN),
        record(C, answered=None, failure=DOWN),
        record(C._replace(job_id="done"), Phase.FAILED, answered=START - 9999),
        record(C._replace(target="left")),
    )
    own.metrics.own.polled("prod", 0.5, 0.25, None)
    own.metrics.own.polled("prod", 1.5, 0.75, Reason.UNREACHABLE)
    own.metrics.own.reloaded(START)
    own.api.locked, own.api.clock_skew = True, 61.23
    status, shown = await own.shown()
    assert status == 200
    (target,) = shown.pop("targets")
    assert shown == {
        "version": "1",
        "started_at": "then",
        "now": "2023-11-14T22:13:20.000000Z",
        "store": {"pending_jobs": 7, "commit_age_seconds": 1.5},
        "sinks": [
            {
                "name": "hook",
                "backlog": 3,
                "delivered": 2,
                "failures": 1,
                "undeliverable": 5,
                "dead_letters": 4,
            }
        ],
        "replica": None,
        "configuration": {"valid": True},
    }
    assert target == {
        "name": "prod",
        **MANNER,
        "jobs": dict.fromkeys(Phase, 0) | {"active": 3, "failed": 1},
        "oldest_answer_at": "2023-11-14T22:12:20.000000Z",
        "unanswered": 1,
        "failing": [{"reason": "unreachable", "jobs": 2, "message": "refused"}],
        "key_locked": True,
        "clock_skew_seconds": 61.2,
        "polls": 2,
        "poll_failures": 1,
        "lag_seconds": 0.5,
        "request_seconds": 1.0,
    }


async def test_what_fails_of_targets_that_other_replicas_watch():
    away = C._replace(target="away")
    own = Own(record(A), record(away, failure=DOWN), replica={"name": "a"})
    own.metrics.own.reloaded(START)
    _, shown = await own.shown()
    assert [target["name"] for target in shown["targets"]] == ["prod"]
    failing = {"reason": "unreachable", "jobs": 1, "message": "refused"}
    assert shown["replica"] == {"name": "a", "failing": [{"target": "away", **failing}]}


async def test_before_the_first_answer():
    own = Own()
    own.metrics.own.reloaded(None)
    _, shown = await own.shown()
    assert shown["configuration"] == {"valid": False}
    assert shown["targets"][0]["oldest_answer_at"] is None
    assert shown["targets"][0]["lag_seconds"] is None


async def test_it_is_made_once_a_second_whoever_asks():
    own = Own(record(A))
    _, first = await own.shown()
    own.board.show([replace(record(A), phase=Phase.FAILED)])
    own.now += 0.9
    assert (await own.shown())[1] == first
    own.now += 0.2
    assert (await own.shown())[1]["targets"][0]["jobs"]["failed"] == 1
    own.now -= 3600  # the clock was set back
    assert (await own.shown())[1]["now"] == "2023-11-14T21:13:21.100000Z"


async def test_nonsense_is_refused():
    status, body = await Own().shown("?verbose=1")
    assert status == 400
    assert body["error"].startswith("unknown parameter 'verbose'")


@pytest.mark.parametrize(
    "path", ["/", "/watcher", "/jobs/prod/a", "/jobs/%3Cscript%3E/..%2Fb"]
)
async def test_each_address_of_the_page_is_the_same_document(path):
    async with (
        serve(ui_pages(), "127.0.0.1", 0) as address,
        aiohttp.ClientSession("http://{}:{}".format(*address)) as session,
        session.get(path) as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/html"
        policy = response.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        document = await response.text()
        assert "script" not in path or path.rpartition("/")[2] not in document


async def test_all_that_the_page_names_is_served_with_its_type():
    types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    async with (
        serve(ui_pages(), "127.0.0.1", 0) as address,
        aiohttp.ClientSession("http://{}:{}".format(*address)) as session,
    ):
        seen, left = set(), {"/"}
        while left:
            path = left.pop()
            seen.add(path)
            async with session.get(path) as response:
                assert response.status == 200, path
                kind = types.get(path.rpartition(".")[2], "text/html")
                assert response.content_type == kind
                text = await response.text()
            named = re.findall(r'(?:src|href)="(/ui/[^"]+)"', text)
            named += [f"/ui/{n}" for n in re.findall(r'from "\./([^"]+)"', text)]
            left |= set(named) - seen
    others = {page.path for page in ui_pages()} - set(ADDRESSES)
    shipped = {path for path in others if not path.startswith(RUNBOOKS)}
    assert shipped == seen - {"/"}


async def test_a_runbook_is_served_as_the_alert_is_named():
    async with (
        serve(ui_pages(), "127.0.0.1", 0) as address,
        aiohttp.ClientSession("http://{}:{}".format(*address)) as session,
        session.get(f"{RUNBOOKS}/DevServerJobFailed") as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/plain"
        assert (await response.text()).startswith("# DevServerJobFailed\n")
