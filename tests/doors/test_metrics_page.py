"""`/metrics` by exact text, in both formats, over the life of a job."""

from types import SimpleNamespace

import anyio
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as modern,
)
from prometheus_client.parser import text_string_to_metric_families as classic

from tests.fakes import START
from watcher.core.errors import Reason
from watcher.core.model import Job, JobKey, JobRecord, Snapshot, Step, Task
from watcher.core.tracker import advance
from watcher.core.trust import Trust
from watcher.pages.metrics import MetricsPage
from watcher.pages.metrics.page import CHUNK
from watcher.polling.board import Board
from watcher.ports import Request

KEY = JobKey("prod", "job-1")
NEW = JobRecord(KEY, project_id="p")
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


def answer(status, tasks, **more):
    job = Job(
        "job-1",
        status=status,
        abnormal_count=more.pop("abnormal_count", 0),
        name='say "hi"\\\n',
        type="T",
        created_at=START - 10.5,
    )
    return Snapshot(
        job,
        tuple(
            Task(
                task_id,
                word,
                server_id=f"s-{task_id}",
                server_name=f"n-{task_id}",
                updated_at=START - 3,
            )
            for task_id, word in tasks.items()
        ),
    )


class FakeState:
    def __init__(self, skew=0.0, locked=False):
        self.clock_skew, self.locked = skew, locked


def page_of(tasks="all", max_task_series=100_000):
    page = MetricsPage(Board())
    page.configure(tasks, max_task_series)
    page.show_apis({"prod": FakeState()})
    return page


def publish(page, steps):
    """Show what was committed, as the committer does."""
    page._board.show(step.record for step in steps)
    page.own.told([each for step in steps for each in step.transitions])


async def text(page, headers=None):
    response = await page.respond(Request("/metrics", headers or {}))
    body = b"".join([chunk async for chunk in response.body])
    response.sent()
    return body.decode(), response.content_type


async def jobs_part(page):
    shown, _ = await text(page)
    return "".join(
        line + "\n" for line in shown.splitlines() if line.startswith("devserver_")
    )


async def test_a_job_in_full():
    page = page_of()
    tasks = {"a": "SUCCESS", "b": "FAILED", "c": "PROCESSING", "d": "ODD"}
    publish(page, [advance(NEW, answer("PROCESSING", tasks, abnormal_count=1), START)])
    job = 'target="prod",job_id="job-1"'
    assert await jobs_part(page) == (
        f'devserver_job_phase{{{job},phase="active"}} 1\n'
        f'devserver_job_phase{{{job},phase="succeeded"}} 0\n'
        f'devserver_job_phase{{{job},phase="failed"}} 0\n'
        f'devserver_job_phase{{{job},phase="deleted"}} 0\n'
        f'devserver_job_phase{{{job},phase="gone"}} 0\n'
        f'devserver_job_phase{{{job},phase="unknown"}} 0\n'
        f'devserver_job_status{{{job},status="PROCESSING"}} 1\n'
        f"devserver_job_abnormal_count{{{job}}} 1\n"
        f'devserver_job_tasks{{{job},status="PROCESSING"}} 1\n'
        f'devserver_job_tasks{{{job},status="SUCCESS"}} 1\n'
        f'devserver_job_tasks{{{job},status="FAILED"}} 1\n'
        f'devserver_job_tasks{{{job},status="UNKNOWN"}} 1\n'
        f'devserver_job_info{{{job},project_id="p",name="say \\"hi\\"\\\\\\n",type="T",'
        'template_id="",user_name=""} 1\n'
        f"devserver_job_created_timestamp_seconds{{{job}}} {START - 10.5}\n"
        f"devserver_job_last_success_timestamp_seconds{{{job}}} {int(START)}\n"
        f'devserver_job_failure_info{{{job},reason="no message was given",count="1"}} 1\n'
        f'devserver_task_status{{{job},task_id="a",server_id="s-a",server_name="n-a",status="SUCCESS"}} 1\n'
        f'devserver_task_status{{{job},task_id="b",server_id="s-b",server_name="n-b",status="FAILED"}} 1\n'
        f'devserver_task_status{{{job},task_id="c",server_id="s-c",server_name="n-c",status="PROCESSING"}} 1\n'
        f'devserver_task_status{{{job},task_id="d",server_id="s-d",server_name="n-d",status="UNKNOWN"}} 1\n'
    )


async def test_a_job_never_answered():
    page = page_of()
    publish(page, [Step(NEW)])
    shown = await jobs_part(page)
    assert 'phase="unknown"} 1\n' in shown
    assert (
        'devserver_job_status{target="prod",job_id="job-1",status="UNKNOWN"} 1' in shown
    )
    assert len(shown.splitlines()) == 7


async def test_no_series_of_an_earlier_state_is_left():
    page = page_of()
    first = advance(NEW, answer("PROCESSING", {"a": "PROCESSING"}), START)
    second = advance(first.record, answer("FINISHED", {"a": "SUCCESS"}), START + 10)
    publish(page, [first])
    publish(page, [second])
    shown = await jobs_part(page)
    assert 'status="PROCESSING"} 1' not in shown
    assert shown.count("devserver_task_status{") == 1
    assert (
        f'devserver_job_finished_timestamp_seconds{{target="prod",job_id="job-1"}} {int(START + 10)}\n'
        in shown
    )
    full, _ = await text(page)
    assert 'watcher_jobs{target="prod",phase="succeeded"} 1\n' in full
    assert 'watcher_jobs{target="prod",phase="active"} 0\n' in full


async def test_a_job_that_is_gone_from_the_watch_leaves_nothing():
    page = page_of()
    publish(page, [advance(NEW, answer("FINISHED", {"a": "FAILED"}), START)])
    page._board.drop([KEY, JobKey("prod", "never-there")])
    assert await jobs_part(page) == ""
    full, _ = await text(page)
    assert 'phase="failed"} 1' not in full


async def test_a_vanished_task_has_no_series():
    page = page_of()
    step = advance(
        NEW, answer("PROCESSING", {"a": "PROCESSING", "b": "SUCCESS"}), START
    )
    publish(page, [step])
    for seconds in (10, 20):
        one = answer("PROCESSING", {"a": "PROCESSING"})
        step = advance(step.record, one, START + seconds)
        publish(page, [step])
    shown = await jobs_part(page)
    assert 'task_id="b"' not in shown
    assert (
        'devserver_job_tasks{target="prod",job_id="job-1",status="SUCCESS"} 0' in shown
    )


async def test_an_unchanged_look_moves_only_its_time():
    page = page_of()
    same = answer("PROCESSING", {"a": "PROCESSING"})
    first = advance(NEW, same, START)
    publish(page, [first])
    before = await jobs_part(page)
    publish(page, [advance(first.record, same, START + 10.25)])
    after = await jobs_part(page)
    assert page.served(KEY)
    assert after == before.replace(f" {int(START)}\n", f" {START + 10.25}\n")


async def test_served_once_the_present_state_was_scraped():
    page = page_of()
    publish(page, [advance(NEW, answer("FINISHED", {"a": "SUCCESS"}), START)])
    assert not page.served(KEY)
    response = await page.respond(Request("/metrics"))
    assert not page.served(KEY)  # nobody has it yet
    response.sent()
    assert page.served(KEY)


async def test_what_changes_while_it_is_sent_was_not_served():
    page = page_of()
    first = advance(NEW, answer("PROCESSING", {"a": "PROCESSING"}), START)
    publish(page, [first])
    response = await page.respond(Request("/metrics"))
    last = answer("FINISHED", {"a": "SUCCESS"})
    publish(page, [advance(first.record, last, START + 10)])
    response.sent()
    assert not page.served(KEY)
    await text(page)
    assert page.served(KEY)


@pytest.mark.parametrize(
    ("options", "shown_tasks", "degraded"),
    [
        ({}, ["a", "b"], 0),
        ({"tasks": "failed"}, ["b"], 0),
        ({"tasks": "none"}, [], 0),
        ({"max_task_series": 2}, ["a", "b"], 0),
        ({"max_task_series": 1}, ["b"], 1),
        ({"tasks": "failed", "max_task_series": 0}, ["b"], 0),
    ],
)
async def test_which_tasks_are_shown(options, shown_tasks, degraded):
    page = page_of(**options)
    publish(
        page,
        [advance(NEW, answer("PROCESSING", {"a": "SUCCESS", "b": "FAILED"}), START)],
    )
    shown, _ = await text(page)
    assert [
        task
        for task in "ab"
        if f'devserver_task_status{{target="prod",job_id="job-1",task_id="{task}"'
        in shown
    ] == shown_tasks
    assert f"watcher_metrics_degraded {degraded}\n" in shown


async def test_the_ceiling_lifts_when_jobs_go():
    page = page_of(max_task_series=1)
    publish(
        page,
        [advance(NEW, answer("PROCESSING", {"a": "SUCCESS", "b": "FAILED"}), START)],
    )
    await text(page)
    assert page.degraded
    page._board.drop([KEY])
    await text(page)
    assert not page.degraded


async def test_a_scraper_that_leaves_takes_nothing_along():
    page = page_of()
    numbers = range(150)
    jobs = [JobRecord(JobKey("prod", f"job-{number}")) for number in numbers]
    publish(page, [Step(job) for job in jobs])
    with anyio.CancelScope() as scope:
        scope.cancel()
        await page.respond(Request("/metrics"))
    assert scope.cancelled_caught
    shown = await jobs_part(page)
    assert shown.count('phase="unknown"} 1') == len(jobs)


async def test_scrapes_side_by_side_show_the_same():
    page = page_of()
    numbers = range(150)
    jobs = [JobRecord(JobKey("prod", f"job-{number}")) for number in numbers]
    publish(page, [Step(job) for job in jobs])
    shown = []

    async def scrape():
        shown.append(await jobs_part(page))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(scrape)
    assert shown[0].count('phase="unknown"} 1') == len(jobs)
    assert len(set(shown)) == 1


async def test_a_reader_too_far_behind_begins_afresh(monkeypatch):
    monkeypatch.setattr("watcher.polling.board.MOST_DROPPED", 1)
    page = page_of()
    keys = [JobKey("prod", f"job-{number}") for number in range(4)]
    publish(page, [Step(JobRecord(key)) for key in keys])
    await text(page)
    page._board.drop(keys[:3])
    shown = await jobs_part(page)
    assert shown.count('phase="unknown"} 1') == 1


@pytest.mark.parametrize(
    ("headers", "parse", "kind"),
    [
        ({}, classic, "text/plain"),
        (OPENMETRICS, modern, "application/openmetrics-text"),
    ],
)
async def test_both_formats_parse_and_every_family_is_explained(headers, parse, kind):
    page = page_of()
    first = advance(NEW, answer("PROCESSING", {"a": "PROCESSING"}), START)
    publish(page, [first])
    publish(
        page, [advance(first.record, answer("FINISHED", {"a": "FAILED"}), START + 5)]
    )
    page.own.polled("prod", 0.2, 0.1, None)
    page.own.polled("prod", 0.2, -0.1, Reason.THROTTLED)
    page.own.requested("prod", "detail")
    shown, content_type = await text(page, headers)
    assert content_type.startswith(kind)
    families = {family.name: family for family in parse(shown)}
    assert len(families) == shown.count("# TYPE")
    assert all(family.documentation for family in families.values())
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    target = ("target", "prod")
    assert values["watcher_polls_total", target] == 2
    assert values["watcher_poll_failures_total", ("reason", "throttled"), target] == 1
    assert values["watcher_poll_failures_total", ("reason", "rejected"), target] == 0
    assert values["watcher_transitions_total", target, ("to", "FAILED")] == 1
    assert values["watcher_api_requests_total", ("call", "detail"), target] == 1
    assert values["watcher_detection_latency_seconds_count", target] == 1
    assert values["watcher_detection_latency_seconds_sum", target] == 8
    assert any(name.startswith("process_") for name in families)
    assert any(name.startswith("python_gc_") for name in families)


async def test_a_first_sight_is_a_transition_but_no_latency():
    page = page_of()
    publish(page, [advance(NEW, answer("FINISHED", {"a": "ODD"}), START)])
    shown, _ = await text(page)
    assert 'watcher_transitions_total{target="prod",to="UNKNOWN"} 1.0\n' in shown
    assert 'watcher_detection_latency_seconds_count{target="prod"} 0.0\n' in shown


async def test_a_large_page_comes_in_chunks():
    page = page_of()
    for number in range(2000):
        key = JobKey("prod", f"job-{number}")
        publish(page, [Step(JobRecord(key))])
    response = await page.respond(Request("/metrics"))
    chunks = [chunk async for chunk in response.body]
    assert len(chunks) > 2
    assert max(map(len, chunks)) < 2 * CHUNK


async def test_text_that_is_no_utf8():
    page = page_of()
    job = Job("job-1", name="\ud800")
    publish(page, [advance(NEW, Snapshot(job, None), START)])
    shown, _ = await text(page)
    assert 'name="?"' in shown


def failing(*messages):
    tasks = [Task(f"t{n}", "FAILED", message=text) for n, text in enumerate(messages)]
    return advance(NEW, Snapshot(Job("job-1", "PROCESSING"), tuple(tasks)), START)


async def reasons(page):
    """Reason, count and value of each series, in order."""
    shown, _ = await text(page)
    (family,) = [
        each for each in classic(shown) if each.name == "devserver_job_failure_info"
    ]
    return [
        (each.labels["reason"], each.labels["count"], each.value)
        for each in family.samples
    ]


async def test_the_three_commonest_reasons_are_told():
    page = page_of()
    said = ["ret 1", "no disk", "ret 2", "busy", "lost", "lost", "ret 2", None, None]
    publish(page, [failing(*said)])
    assert await reasons(page) == [
        ("ret 2", "3", 3),
        ("lost", "2", 2),
        ("no message was given", "2", 2),
    ]
    publish(page, [failing("busy")])
    assert await reasons(page) == [("busy", "1", 1)]


async def test_a_reason_is_one_short_line_that_is_there_once():
    """Prometheus drops a sample that comes twice."""
    page = page_of()
    start = "x" * 200
    said = [f"{start} disk", f"{start} power", "a\nb\x1b[1m\ud800\u202e", "", " \t"]
    publish(page, [failing(*said)])
    assert sorted(await reasons(page)) == [
        ("a b [1m", "1", 1),
        ("no message was given", "2", 2),
        ("x" * 159 + "…", "2", 2),
    ]


async def test_reasons_are_told_unless_it_is_not_wished():
    page = page_of()
    publish(page, [failing("no disk")])
    page.configure("none", 0, failure_reasons=False)
    shown, _ = await text(page)
    assert "disk" not in shown
    assert "devserver_job_failure_info" not in shown
    page.configure("none", 0)
    assert await reasons(page) == [("no disk", "1", 1)]


async def test_addresses_are_asked_for_at_every_scrape():
    page, found = page_of(), []
    page.own.show_addresses(lambda: found[-1])
    for each in (("https://a", "https://a/runbooks"), ("https://b/x", "https://wiki")):
        found.append(each)
        public, runbooks = each
        shown, _ = await text(page)
        line = f'watcher_page_info{{public_url="{public}",runbook_url="{runbooks}"}} 1'
        assert [x for x in shown.splitlines() if x.startswith("watcher_page_info")] == [
            f"{line}.0"
        ]


async def test_the_state_of_the_api_is_read_at_every_scrape():
    page, api = page_of(), FakeState(1200.5, locked=True)
    page.show_apis({"prod": api})
    shown, _ = await text(page)
    assert 'watcher_clock_skew_seconds{target="prod"} 1200.5\n' in shown
    assert 'watcher_credentials_locked{target="prod"} 1.0\n' in shown
    api.locked = False
    shown, _ = await text(page)
    assert 'watcher_credentials_locked{target="prod"} 0.0\n' in shown


async def test_what_the_list_has_earned_is_read_at_every_scrape():
    page, target = page_of(), SimpleNamespace(trust=Trust(30.0))
    page.own.show_trust({"prod": target})
    page.own.listed("prod", None)
    page.own.listed("prod", Reason.THROTTLED)
    target.trust = Trust(60.0, misses=2)
    shown, _ = await text(page)
    assert 'watcher_list_task_interval_seconds{target="prod"} 60.0\n' in shown
    assert 'watcher_list_misses_total{target="prod"} 2.0\n' in shown
    failures = 'watcher_list_failures_total{reason="throttled",target="prod"} 1.0\n'
    assert failures in shown


async def test_targets_come_and_go():
    page = page_of()
    page.show_apis({"other": FakeState()})
    shown, _ = await text(page)
    assert 'watcher_clock_skew_seconds{target="prod"}' not in shown
    assert 'watcher_jobs{target="prod"' not in shown
    assert 'watcher_polls_total{target="other"} 0.0' in shown


async def test_reloads():
    page = page_of()
    page.own.reloaded(START)
    page.own.reloaded(None)
    shown, _ = await text(page)
    assert "watcher_config_last_reload_successful 0.0" in shown
    assert (
        f"watcher_config_last_reload_success_timestamp_seconds {START:.8e}"
        in shown.replace("1.7e+09", f"{START:.8e}")
    )


class FakeSink:
    name, backlog, delivered, failed, dead_lettered = "hook", 3, 10, 2, 1
    undeliverable = 4


async def test_sinks_and_store():
    page = page_of()
    page.own.show_sinks([FakeSink()])
    page.own.show_store(lambda: 7, lambda: 2.5)
    page.own.committed(0.3)
    shown, _ = await text(page)
    assert 'watcher_sink_backlog{sink="hook"} 3.0\n' in shown
    assert 'watcher_sink_delivered_total{sink="hook"} 10.0\n' in shown
    assert 'watcher_sink_failures_total{sink="hook"} 2.0\n' in shown
    assert 'watcher_sink_dead_letters_total{sink="hook"} 1.0\n' in shown
    assert 'watcher_sink_undeliverable_total{sink="hook"} 4.0\n' in shown
    assert "watcher_store_pending_jobs 7.0\n" in shown
    assert "watcher_store_commit_age_seconds 2.5\n" in shown
    assert 'watcher_store_commit_seconds_bucket{le="0.5"} 1.0\n' in shown
    assert 'watcher_store_commit_seconds_bucket{le="0.1"} 0.0\n' in shown
