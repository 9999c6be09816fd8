"""The list of jobs and its stream: filters, order, cursors, counts, and what changes."""

import json
import tracemalloc
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doors.test_http_api import HOSTILE, Daemon, ask, messages, until
from tests.fakes import START
from watcher.core.errors import Reason
from watcher.core.model import Job, JobKey, JobRecord, Phase, PollFailed, Task
from watcher.pages.api import order, texts
from watcher.pages.api import rows as rows_module
from watcher.pages.api import stream as module
from watcher.pages.api.asking import Filter
from watcher.pages.api.rows import Rows
from watcher.pages.api.views import digest
from watcher.ports import Request


def record(job_id, phase=Phase.ACTIVE, target="prod", created=0, tasks=(), **job):
    return JobRecord(
        JobKey(target, job_id),
        phase=phase,
        job=Job(job_id, created_at=START + created, **job),
        tasks=tuple(tasks),
    )


def failed(number, message="no disk", server=None):
    name = server or f"node-{number}"
    return Task(f"t{number}", "FAILED", server_name=name, message=message)


MIXED = [
    record("done-old", Phase.SUCCEEDED, created=1),
    record("gone-new", Phase.GONE, created=9),
    record("new", Phase.ACTIVE, created=5, name="Zebra", type="DRIVER"),
    record("old", Phase.ACTIVE, created=2, name="ant"),
    record("ailing", Phase.ACTIVE, created=1, tasks=[failed(1)]),
    record("counted", Phase.ACTIVE, created=0, abnormal_count=2),
    record("odd", Phase.UNKNOWN, created=50),
    record("bad-old", Phase.FAILED, created=3, tasks=[failed(2, "dcmi failed")]),
    record("bad-new", Phase.FAILED, target="test", created=4, tasks=[failed(3)]),
]


async def listed(session, query=""):
    status, body = await ask(session, "GET", f"/api/v1/jobs?{query}")
    assert status == 200, body
    return [row["job_id"] for row in body["jobs"]], body


async def test_what_needs_attention_comes_first_and_newer_before_older():
    async with Daemon(records=MIXED).served() as session:
        names, body = await listed(session)
    assert names == [
        *("bad-new", "bad-old", "ailing", "counted", "new", "old"),
        *("odd", "gone-new", "done-old"),
    ]
    assert body["total"] == len(MIXED)
    assert body["failing"] == 2
    assert body["counts"] == {
        "active": 4,
        "succeeded": 1,
        "failed": 2,
        "deleted": 0,
        "gone": 1,
        "unknown": 1,
    }


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("sort=newest&limit=3", ["odd", "gone-new", "new"]),
        ("sort=name&limit=2", ["old", "new"]),
        ("target=test", ["bad-new"]),
        ("phase=unknown,gone", ["odd", "gone-new"]),
        ("q=ZEBRA", ["new"]),
        ("q=driver", ["new"]),
        ("q=node-1", ["ailing"]),
        ("q=Dcmi", ["bad-old"]),
        ("q=bad&target=prod", ["bad-old"]),
        ("q=none+such", []),
    ],
)
async def test_filters_and_orders(query, names):
    async with Daemon(records=MIXED).served() as session:
        found, body = await listed(session, query)
        assert found == names
        if "limit" not in query:
            assert body["total"] == len(names)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (
            "color=red",
            "unknown parameter 'color'; this path takes: cursor, limit, phase, q, sort",
        ),
        ("phase=fail", "phase: must be one of active, succeeded"),
        ("sort=age", "sort: must be one of attention, newest, name"),
        ("limit=1001", "limit: "),
        ("limit=0", "limit: "),
        ("cursor=x", "cursor: "),
        ("cursor=bm8", "cursor: "),
        ("cursor=%C3%A9", "cursor: "),
        (f"q={'x' * 201}", "q: "),
    ],
)
async def test_nonsense_is_refused_in_one_line(query, told):
    async with Daemon(records=MIXED).served() as session:
        status, body = await ask(session, "GET", f"/api/v1/jobs?{query}")
    assert status == 400
    assert body["error"].startswith(told)


async def test_a_cursor_of_another_order_is_refused():
    async with Daemon(records=MIXED).served() as session:
        _, body = await listed(session, "sort=name&limit=1")
        path = f"/api/v1/jobs?cursor={body['next']}"
        assert (await ask(session, "GET", path))[0] == 400


@pytest.mark.parametrize("search", ["", "&q=job-"])
async def test_a_cursor_holds_while_the_board_changes(search):
    """Who stays is shown exactly once, though others come, move and go meanwhile."""
    daemon = Daemon(records=[record(f"job-{n:03}", created=n) for n in range(100)])
    async with daemon.served() as session:
        seen, cursor = [], ""
        while cursor is not None:
            path = f"limit=10&cursor={cursor}{search}"
            names, body = await listed(session, path)
            seen += names
            cursor = body["next"]
            turn = len(seen)
            daemon.board.show([record(f"job-new-{turn}", created=1000 + turn)])
            # Now and then the one at which the page ended goes, another moves up.
            if turn % 20:
                daemon.board.drop([JobKey("prod", names[-1])])
            daemon.board.show([record(names[0], Phase.FAILED)])
    assert seen == [f"job-{n:03}" for n in reversed(range(100))]


async def test_a_cursor_after_a_name_that_no_text_can_hold():
    jobs = [record("a", name=HOSTILE), record("b", name=HOSTILE), record("c")]
    async with Daemon(records=jobs).served() as session:
        names, body = await listed(session, "sort=name&limit=1")
        following, _ = await listed(session, f"sort=name&cursor={body['next']}")
    assert names + following == ["a", "b", "c"]


async def test_rows_follow_the_board_by_what_changed():
    daemon = Daemon(records=[record("a"), record("b", created=-1)])
    async with daemon.served() as session:
        assert (await listed(session))[0] == ["a", "b"]
        assert (await listed(session, "sort=name"))[0] == ["a", "b"]
        bad = record("b", Phase.FAILED, tasks=[failed(1)], created=-1)
        daemon.board.show([bad])
        names, body = await listed(session)
        assert names == ["b", "a"]
        assert body["jobs"][0]["failures"] == [
            {"message": "no disk", "count": 1, "servers": ["node-1"]}
        ]
        assert (body["counts"]["failed"], body["failing"]) == (1, 0)
        daemon.board.show([replace(bad, last_poll_at=START)])  # a look, no change
        names, body = await listed(session)
        assert body["jobs"][0]["last_poll_at"] == "2023-11-14T22:13:20.000000Z"
        daemon.board.drop([bad.key])
        names, body = await listed(session)
        assert names == (await listed(session, "sort=name"))[0] == ["a"]
        assert body["counts"]["failed"] == 0


async def test_an_order_made_while_rows_are_taken_in_is_right_in_the_end():
    """Another reader asks for an order between two slices of what changed."""
    daemon = Daemon(records=[record(f"job-{n:03}", created=n) for n in range(900)])
    rows, board = Rows(daemon.board, daemon.due.get, lambda: START), daemon.board
    await rows.catch_up()
    board.show([record(f"job-{n:03}", Phase.FAILED, created=n) for n in range(900)])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rows.catch_up)
        while not rows.counts(None)[Phase.FAILED]:
            await anyio.lowlevel.checkpoint()
        halfway = await rows.pick(Filter(), "attention", None, 1000)
    picked = await rows.pick(Filter(), "attention", None, 1000)
    expected = [f"job-{n:03}" for n in reversed(range(900))]
    assert [key.job_id for key in halfway.keys] == expected
    assert [key.job_id for key in picked.keys] == expected


async def test_what_changes_while_an_order_is_made_is_in_its_place(monkeypatch):
    monkeypatch.setattr(rows_module, "SLICE", 10)
    jobs = [record(f"job-{n:03}", created=n) for n in range(100)]
    daemon = Daemon(records=jobs)
    rows, board = Rows(daemon.board, daemon.due.get, lambda: START), daemon.board
    await rows.catch_up()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rows.pick, Filter(), "newest", None, 1000)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        board.show([record("job-000", created=1000)])
        await rows.catch_up()
    picked = await rows.pick(Filter(), "newest", None, 1000)
    assert [key.job_id for key in picked.keys] == [
        "job-000",
        *(f"job-{n:03}" for n in reversed(range(1, 100))),
    ]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(-3, 5) | st.none())))
def test_an_order_is_as_if_it_were_sorted_anew(moves):
    """Jobs come, move and go; where runs are short they are split and emptied."""
    known = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "LONGEST_RUN", 4)
        it = order.Order("attention")
        for number, created in moves:
            before = known.pop(number, None)
            after = None if created is None else record(f"j{number}", created=created)
            if after is not None:
                known[number] = after
            it.move(before, after)
            it.move(before, after)  # once more changes nothing
            places = sorted(map(order.SORTS["attention"], known.values()))
            assert it.after(None) == places
            for place in places:
                assert it.after(place) == places[places.index(place) + 1 :]


async def test_others_come_between_where_many_jobs_are_gone_through(monkeypatch):
    """Whatever is asked of the list, the loop is let go after some jobs."""
    for module_, name in ((rows_module, "SLICE"), (rows_module, "GLANCE")):
        monkeypatch.setattr(module_, name, 10)
    monkeypatch.setattr(texts, "SLICE", 10)
    jobs = [record(f"job-{n:03}", tasks=[failed(n, f"no {n}")]) for n in range(500)]
    daemon = Daemon(records=[*jobs, record("far", Phase.GONE)])
    rows = Rows(daemon.board, daemon.due.get, lambda: START)
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async def turns_of(work):
        nonlocal turns
        turns = 0
        await work
        return turns

    gone = Filter(phases=frozenset([Phase.GONE]))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(turn)
        assert await turns_of(rows.catch_up()) >= 45
        assert await turns_of(rows.pick(Filter(), "name", None, 5)) >= 45  # an order
        assert await turns_of(rows.pick(gone, "name", None, 5)) >= 45
        searched = rows.pick(Filter(sought="no 7"), "name", None, 5)
        assert await turns_of(searched) >= 145  # a thousand texts, then the jobs
        tasks.cancel_scope.cancel()


async def test_a_text_is_looked_at_once_and_forgotten_with_its_last_job():
    jobs = [record(f"job-{n}", tasks=[failed(1, "no disk")]) for n in range(3)]
    known = texts.Texts()
    for one in jobs:
        known.change((), texts.texts_of(one))
    assert await known.matching("no") == {"no disk", "node-1"}
    for one in jobs:
        assert await known.matching("disk") == {"no disk"}
        known.change(texts.texts_of(one), ())
    assert await known.matching("") == set()


async def test_failures_are_folded_once_for_each_change(monkeypatch):
    made = []

    def noted(one):
        made.append(one.key)
        return digest(one)

    monkeypatch.setattr("watcher.pages.api.rows.digest", noted)
    daemon = Daemon(records=[record(f"job-{n}", created=n) for n in range(50)])
    async with daemon.served() as session:
        await listed(session, "limit=10")
        await listed(session, "limit=10")
        assert len(made) == 10  # only what is shown, and only once
        daemon.board.show([replace(daemon.records[made[0]], last_poll_at=START)])
        await listed(session, "limit=10")
        assert len(made) == 10
        daemon.board.show([replace(daemon.records[made[0]], phase=Phase.FAILED)])
        await listed(session, "limit=10")
        assert len(made) == 11


async def test_many_groups_of_failures_are_bounded():
    words = [chr(97 + n) * 5 for n in range(26)]
    tasks = [failed(n, word) for n, word in enumerate(words)]
    async with Daemon(records=[record("a", tasks=tasks)]).served() as session:
        _, body = await listed(session)
        assert len(body["jobs"][0]["failures"]) == 10
        assert body["jobs"][0]["tasks"] == {"FAILED": 26}


# The tasks of one job


TASKS = [
    Task("t1", "SUCCESS", server_name="node-1"),
    Task("t2", "PROCESSING", server_name="node-2"),
    failed(3),
    Task("t4", "ODD", server_id="s4"),
    failed(5, "dcmi"),
]


@pytest.mark.parametrize(
    ("query", "ids", "following"),
    [
        ("", ["t1", "t2", "t3", "t4", "t5"], "absent"),
        ("limit=1000", ["t3", "t5", "t4", "t2", "t1"], None),
        ("limit=2", ["t3", "t5"], "2"),
        ("limit=2&cursor=2", ["t4", "t2"], "4"),
        ("cursor=4", ["t1"], None),
        ("status=FAILED", ["t3", "t5"], None),
        ("status=FAILED,ODD&q=DCMI", ["t5"], None),
        ("q=s4", ["t4"], None),
    ],
)
async def test_tasks_are_filtered_and_paged_where_that_is_asked(query, ids, following):
    async with Daemon(records=[record("a", tasks=TASKS)]).served() as session:
        status, body = await ask(session, "GET", f"/api/v1/jobs/prod/a?{query}")
    assert status == 200
    assert [one["id"] for one in body["tasks"]] == ids
    assert body.get("next", "absent") == following


@pytest.mark.parametrize("query", ["state=x", "limit=0", "cursor=-1"])
async def test_nonsense_about_tasks_is_refused(query):
    async with Daemon(records=[record("a")]).served() as session:
        status, body = await ask(session, "GET", f"/api/v1/jobs/prod/a?{query}")
    assert status == 400
    assert query.partition("=")[0] in body["error"]


# The stream


@asynccontextmanager
async def streaming(session, query="", **headers):
    headers = {"Accept": "text/event-stream", **headers}
    async with session.get(f"/api/v1/stream{query}", headers=headers) as response:
        assert response.status == 200
        yield response


def body_of(message):
    return json.loads(message["data"])


async def test_a_change_is_streamed_and_a_look_is_not():
    daemon = Daemon(records=[record("a"), record("b")])
    async with daemon.served() as session, streaming(session) as response:
        (first,) = await messages(response, 1)
        assert first["event"] == "counts"
        assert body_of(first)["counts"]["active"] == 2
        one = daemon.records[JobKey("prod", "a")]
        daemon.board.show([replace(one, last_poll_at=START)])
        await anyio.sleep(0.05)
        daemon.board.show([replace(one, phase=Phase.FAILED, tasks=(failed(1),))])
        job, counts = await messages(response, 2)
        assert job["event"] == "job"
        assert body_of(job)["failures"][0]["message"] == "no disk"
        assert job["id"].startswith(f"{daemon.board.version}-")
        assert body_of(counts)["counts"]["failed"] == 1
        daemon.board.drop([one.key])
        gone, _ = await messages(response, 2)
        assert gone["event"] == "gone"
        assert body_of(gone) == {"target": "prod", "job_id": "a"}


async def test_a_poll_that_begins_to_fail_is_a_change():
    daemon = Daemon(records=[record("a")])
    async with daemon.served() as session, streaming(session) as response:
        await messages(response, 1)
        broken = PollFailed(Reason.MALFORMED, error_msg="not JSON")
        one = daemon.records[JobKey("prod", "a")]
        daemon.board.show([replace(one, failure=broken, failures=1)])
        (job,) = await messages(response, 1)
        assert body_of(job)["last_error"]["reason"] == "malformed"


async def test_what_no_longer_matches_is_gone():
    daemon = Daemon(records=[record("a"), record("b")])
    async with (
        daemon.served() as session,
        streaming(session, "?phase=active") as response,
    ):
        await messages(response, 1)
        daemon.board.show([record("a", Phase.FAILED)])
        assert (await messages(response, 1))[0]["event"] == "gone"


async def test_a_stream_goes_on_where_it_was_left():
    daemon = Daemon(records=[record("a"), record("b")])
    async with daemon.served() as session:
        _, body = await listed(session)
        daemon.board.show([record("a", Phase.FAILED), record("b", Phase.FAILED)])
        query = f"?since={body['version']}"
        async with streaming(session, query) as response:
            first, second = await messages(response, 2)
        assert [body_of(m)["job_id"] for m in (first, second)] == ["a", "b"]
        headers = {"Last-Event-ID": first["id"]}  # is newer than what the address says
        async with streaming(session, query, **headers) as response:
            (again,) = await messages(response, 1)
        assert body_of(again)["job_id"] == "b"


async def test_looks_on_the_way_hide_no_change_from_who_resumes():
    """A look gives a job a later version than a change that is still to be told."""
    daemon = Daemon(records=[record("a"), record("b")])
    async with daemon.served() as session:
        _, body = await listed(session)
        since = daemon.rows.read_mark(body["version"])
        daemon.board.show([record("a", Phase.FAILED)])
        await daemon.rows.catch_up()
        daemon.board.show([record("b", Phase.FAILED)])
        daemon.board.show([replace(daemon.records[JobKey("prod", "a")], failures=9)])
        ((key, version),) = daemon.rows.changed_since(since)
        assert key.job_id == "a"
        await daemon.rows.catch_up()
        assert [each.job_id for each, _ in daemon.rows.changed_since(version)] == ["b"]


@pytest.mark.parametrize("since", ["5", "1-abcd", "x", "0-"])
async def test_who_was_with_another_process_begins_afresh(since):
    async with (
        Daemon(records=[record("a")]).served() as session,
        streaming(session, **{"Last-Event-ID": since}) as response,
    ):
        first, second = await messages(response, 2)
    assert first["event"] == "reset"
    assert second["event"] == "counts"


async def test_who_stayed_away_while_too_much_went_begins_afresh(monkeypatch):
    monkeypatch.setattr("watcher.polling.board.MOST_DROPPED", 1)
    daemon = Daemon(records=[record("a"), record("b"), record("c")])
    async with daemon.served() as session:
        _, body = await listed(session)
        daemon.board.drop([JobKey("prod", "a"), JobKey("prod", "b")])
        async with streaming(session, f"?since={body['version']}") as response:
            assert (await messages(response, 1))[0]["event"] == "reset"


async def test_what_several_streams_tell_is_made_once():
    daemon = Daemon(records=[record(f"job-{n}") for n in range(20)])
    rows, shown = Rows(daemon.board, daemon.due.get, lambda: START), []
    show = rows.show
    rows.show = lambda key: (shown.append(key), show(key))[1]
    page = module.StreamPage(rows, pulse=0.01, pace=0)
    bodies = [(await page.respond(Request(page.path))).body for _ in range(3)]
    for body in bodies:
        await anext(body)  # the opening
        await anext(body)  # the counts
    daemon.board.show(
        [replace(one, finished_at=1.0) for one in daemon.records.values()]
    )
    told = []
    for body in bodies:
        told.append(await anext(chunk async for chunk in body if b"job" in chunk))
        await body.aclose()
    assert told[0].count(b"event: job") == 20
    assert told == [told[0]] * 3
    assert len(shown) == 20


async def test_nonsense_in_a_stream_is_refused():
    async with Daemon().served() as session:
        status, body = await ask(session, "GET", "/api/v1/stream?limit=3")
    assert status == 400
    assert body["error"].startswith("unknown parameter 'limit'; this path takes: phase")


async def test_a_quiet_stream_is_left_in_peace_and_ends_with_its_reader():
    daemon = Daemon(records=[record("a")])
    async with daemon.served() as session:
        async with streaming(session) as response:
            with anyio.fail_after(10):
                await response.content.readuntil(b": still here\n\n")
            assert daemon.stream.streams == 1
        await until(lambda: daemon.stream.streams == 0)


async def test_a_reader_that_takes_nothing_costs_a_batch_and_no_more():
    """10,000 jobs change thrice; what waits is one batch of rows, as they are now."""
    tasks = [failed(n, "x" * 400) for n in range(10)]
    daemon = Daemon(records=[record(f"job-{n}", tasks=tasks) for n in range(10_000)])
    page = module.StreamPage(
        Rows(daemon.board, daemon.due.get, lambda: START), pulse=0.01, pace=0
    )
    answer = await page.respond(Request(page.path))
    body = answer.body
    await anext(body)  # the opening; nobody reads on
    await anext(body)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for turn in range(3):
            records = [*daemon.records.values()]
            daemon.board.show([replace(one, finished_at=turn) for one in records])
        held = tracemalloc.get_traced_memory()[0] - before
        sizes = [len(await anext(body)) for _ in range(3)]
        after = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        await body.aclose()
    assert max(sizes) < 400_000
    assert after - held < 10_000_000
    assert page.streams == 0
