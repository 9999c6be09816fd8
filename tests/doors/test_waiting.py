"""The wait on virtual time, and what it shows: pure lines, and a view on a terminal."""

import io
import math
import os

import anyio
import pytest

from tests.fakes import START, FakeApi, snapshot
from watcher.commands.terminal import Live, Span, clipped, painted
from watcher.commands.wait import job_ids
from watcher.commands.wait_faces import summary, view
from watcher.commands.waiting import Progress, Wanted, watch_through
from watcher.core.errors import (
    JobNotFound,
    Refusal,
    Rejected,
    ServerError,
    Throttled,
)
from watcher.core.model import Job, JobKey, JobRecord, Phase, Task
from watcher.settings.loading import load
from watcher.store import MemoryStore

TARGET = {"region": "cn-north-4", "project_id": "p"}


class Telling:
    """A face that notes what it is shown."""

    def __init__(self, seconds=0.0):
        self.events = []
        self.seconds = seconds

    async def show(self, _, events):
        await anyio.sleep(self.seconds)
        self.events += [event.transition.event for event in events]


async def waited(api, *job_ids, any_=False, within=math.inf, slow=0.0, **more):
    """Wait through a fake door; return the code, the records and what was told."""
    settings = load({"targets": {"prod": TARGET}, **more}, environ={})
    wanted = Wanted([JobKey("prod", each) for each in job_ids], any_, within)
    face = Telling(slow)
    wall = lambda: START + anyio.current_time()  # noqa: E731
    code, progress = await watch_through(
        lambda *_: api, settings, wanted, face, wall=wall
    )
    return code, progress.records, face.events


def ends(word, after=0.0, **statuses):
    """A script: the job runs, and ends after some seconds."""
    return lambda job_id, now: (
        snapshot(job_id, "FINISHED", statuses or {"t1": word})
        if now >= after
        else snapshot(job_id)
    )


@pytest.mark.looptime
class TestCodes:
    async def test_all_succeed(self):
        code, records, events = await waited(FakeApi(ends("SUCCESS", 60)), "a", "b")
        assert code == 0
        assert [record.phase for record in records] == [Phase.SUCCEEDED] * 2
        assert events.count("job.finished") == events.count("job.first_seen") == 2

    async def test_one_fails(self):
        answer = lambda job_id, now: ends(  # noqa: E731
            "FAILED" if job_id == "b" else "SUCCESS", 30
        )(job_id, now)
        assert (await waited(FakeApi(answer), "a", "b"))[0] == 1

    @pytest.mark.parametrize(("word", "code"), [("SUCCESS", 0), ("FAILED", 1)])
    async def test_any(self, word, code):
        answer = lambda job_id, now: (  # noqa: E731
            ends(word)(job_id, now) if job_id == "b" else snapshot(job_id)
        )
        found, records, _ = await waited(FakeApi(answer), "a", "b", any_=True)
        assert (found, records[0].phase) == (code, Phase.ACTIVE)

    async def test_too_late(self):
        code, *_ = await waited(FakeApi(), "a", within=90)
        assert code == 3
        assert 90 <= anyio.current_time() < 91

    @pytest.mark.parametrize("error", [ServerError("502"), Throttled("slow")])
    async def test_no_answer_ends_it_but_the_time(self, error):
        code, *_ = await waited(FakeApi(lambda *_: error), "a", within=600)
        assert code == 69
        assert anyio.current_time() >= 600

    async def test_failures_in_between(self):
        def answer(job_id, now):
            if now < 400:
                return ServerError("502") if now < 200 else Throttled("slow")
            return ends("SUCCESS")(job_id, now)

        assert (await waited(FakeApi(answer), "a"))[0] == 0

    @pytest.mark.parametrize(
        "refusal",
        [
            Rejected("unknown key", refusal=Refusal.UNKNOWN_KEY, status_code=401),
            Rejected("no credentials found", refusal=Refusal.CREDENTIALS),
        ],
    )
    async def test_refused(self, refusal):
        api = FakeApi(lambda *_: refusal)
        assert (await waited(api, "a"))[0] == 77
        assert len(api.asked) == 3

    async def test_refused_until_the_time_is_up(self):
        refusal = Rejected("no", refusal=Refusal.SIGNATURE, status_code=401)
        assert (await waited(FakeApi(lambda *_: refusal), "a", within=5))[0] == 77

    async def test_a_key_that_is_held_back(self):
        api = FakeApi()
        api.locked = True
        assert (await waited(api, "a"))[0] == 77

    async def test_what_is_not_permitted_may_yet_be(self):
        def answer(job_id, now):
            if now < 600:
                return Rejected("no", refusal=Refusal.PERMISSION, status_code=403)
            return ends("SUCCESS")(job_id, now)

        assert (await waited(FakeApi(answer), "a"))[0] == 0


@pytest.mark.looptime
class TestNotThere:
    async def test_a_job_is_waited_for_until_it_is_created(self):
        def answer(job_id, now):
            return JobNotFound("no") if now < 300 else ends("SUCCESS", 330)(job_id, now)

        api = FakeApi(answer)
        code, records, events = await waited(api, "a")
        assert (code, records[0].phase) == (0, Phase.SUCCEEDED)
        assert events[0] == "job.first_seen"
        assert events.count("job.finished") == 1, "it never was gone"
        gaps = [b - a for a, b in zip(api.times(), api.times()[1:], strict=False)]
        assert max(gaps) < 15

    async def test_it_ends_with_the_time(self):
        api = FakeApi(lambda *_: JobNotFound("no"))
        code, _, events = await waited(api, "a", within=300)
        assert (code, events) == (3, [])

    async def test_one_that_was_there_is_gone(self):
        def answer(job_id, now):
            return snapshot(job_id) if now < 60 else JobNotFound("no")

        code, records, events = await waited(FakeApi(answer), "a")
        assert (code, records[0].phase) == (1, Phase.GONE)
        assert events[-1] == "job.finished"


@pytest.mark.looptime
async def test_the_journal_is_not_kept(monkeypatch):
    stores = []

    class Noted(MemoryStore):
        def __init__(self, **options):
            super().__init__(**options)
            stores.append(self)

    monkeypatch.setattr("watcher.commands.waiting.MemoryStore", Noted)
    tasks = {f"t{number}": "SUCCESS" for number in range(3000)}
    _, _, events = await waited(FakeApi(ends("", 30, **tasks)), "a")
    assert len(events) > 3000
    assert await stores[0].read(0, 10) == []


@pytest.mark.looptime
async def test_nothing_else_is_asked_for_whatever_is_configured():
    api = FakeApi(ends("SUCCESS", 90))
    everything = {**TARGET, "jobs": ["other"], "discover": {}}
    code, *_ = await waited(
        api, "a", targets={"prod": everything}, poll={"mode": "list"}
    )
    assert (code, {asked for _, asked in api.asked}, api.listed) == (0, {"a"}, [])


@pytest.mark.looptime
async def test_a_slow_reader_misses_nothing():
    answer = lambda job_id, now: ends("SUCCESS", 10 * int(job_id))(job_id, now)  # noqa: E731
    jobs = [str(number) for number in range(1, 7)]
    code, _, events = await waited(FakeApi(answer), *jobs, slow=4.0)
    assert (code, events.count("job.finished")) == (0, len(jobs))


def test_ids_from_a_file_of_windows():
    words = ["\ufeff0319470a\r", "a-1\r\nb_2\r\n", " a-1"]
    assert job_ids(words) == ["0319470a", "a-1", "b_2"]
    for bad in (["a/b"], ["\r"], ["templates"]):
        with pytest.raises(ValueError):
            job_ids(bad)


# What is shown.


def failed_job(count=3, message="dcmi {} failed", **job):
    tasks = [
        Task(f"t{n}", "FAILED", server_name=f"server-{n:03}", message=message.format(n))
        for n in range(count)
    ]
    tasks.append(Task("t-on", "PROCESSING", server_name="server-on"))
    given = Job("0319470a-7fad", "PROCESSING", **job)
    return JobRecord(JobKey("prod", given.id), None, Phase.ACTIVE, given, tuple(tasks))


def texts(lines, columns=None):
    return [painted(line, columns, colours=False) for line in lines]


def test_failed_first_and_like_failures_folded():
    jobs = [JobRecord(JobKey("prod", "late")), failed_job(7, name="upgrade")]
    shown = texts(view(Progress(jobs, 63.0), 120, START))
    assert shown[0] == "waiting for 2 jobs, 7/8 tasks done, 7 failed, 1m3s"
    assert shown[1].startswith("● active    7/8")
    assert "7 failed upgrade 0319470a-7fad" in shown[1]
    assert shown[2].startswith("    7x dcmi 0 failed  server-000, server-001,")
    assert shown[2].endswith(" and 2 more")
    assert shown[3].startswith("? awaited   0/0")
    assert len(shown) == 4


def test_the_summary_names_each_failed_server():
    shown = texts(summary(Progress([failed_job(7)], 3.0), 3, START))
    assert shown[0] == "timed out after 3s: 0 of 1 job finished"
    for number in range(7):
        assert f"    server-{number:03}  dcmi {number} failed" in shown


def test_a_failure_without_a_failed_task_is_said():
    job = Job("a", "FINISHED", 2)
    record = JobRecord(JobKey("prod", "a"), None, Phase.FAILED, job)
    assert "abnormal_count is 2" in texts(summary(Progress([record], 3.0), 1, 0.0))[-1]


def test_hostile_text_steers_nothing():
    record = failed_job(1, "\x1b[2J\u202e{}\r\nrm", name="a\x07b")
    for line in texts(summary(Progress([record], 1.0), 1, START)):
        assert line.isprintable()


@pytest.mark.parametrize("columns", [20, 40, 60, 120])
def test_lines_fit(columns):
    jobs = [failed_job(7, "驱动程序升级失败 " * 9, name="x" * 300), failed_job(0)]
    lines = list(view(Progress(jobs, 63.0), columns, START))
    for line in lines:
        text = painted(line, columns, colours=False)
        wide = sum(2 if char > "\u2e80" else 1 for char in text)
        assert wide <= columns
    assert clipped("驱动程序", 5) == "驱动…"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True

    def news(self):
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


def test_only_what_changed_is_written(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out, size = Terminal(), [os.terminal_size((40, 6))]
    live = Live(out, lambda _: size[0])
    live.show([[Span("one")], [Span("two")]])
    assert out.news() == "\x1b[Jone\x1b[K\ntwo\x1b[K\n"
    live.show([[Span("one")], [Span("two")]])
    assert out.news() == ""
    live.show([[Span("one")], [Span("three", "red")]])
    assert out.news() == "\x1b[2A\r\nthree\x1b[K\n"
    live.show([[Span(str(n))] for n in range(9)])
    assert "… 5 more lines" in out.news()
    size[0] = os.terminal_size((20, 6))
    live.show([[Span("one")]])
    assert out.news() == "\x1b[5A\r\x1b[Jone\x1b[K\n"
    with live:
        pass
    assert out.news() == "\x1b[1A\r\x1b[J"


def test_colours(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    Live(out, lambda _: os.terminal_size((40, 6))).show([[Span("no", "red")]])
    assert out.news() == "\x1b[J\x1b[31mno\x1b[0m\x1b[K\n"
