"""The log as people read it: a table of lines, and bursts in the sink."""

import json

import pytest

from tests.core.test_bursts import event
from tests.doors.sinks.test_log import Screen, configured  # noqa: F401 - a fixture
from watcher.console import _EVENTS, render
from watcher.core.model import EventName
from watcher.sinks.log import LogSink

JOB = {
    "timestamp": "2026-01-15T08:31:12.651773Z",
    "level": "info",
    "event_id": "59ab",
    "seq": 7,
    "target": "prod",
    "job_id": "0319470a-7fad-452e",
    "job_name": "software-query",
}
TASK = {**JOB, "event": "task.transition", "server_name": "liteserver-a2-aiserver-007"}
TASKS = {"SUCCESS": 14, "FAILED": 2}


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            {**TASK, "to": "FAILED", "message": "dcmi initialize failed"},
            "FAILED      liteserver-a2-aiserver-007  software-query/0319470a  dcmi initialize failed",
        ),
        (
            {**TASK, "to": "SUCCESS", "message": None, "job_name": None},
            "SUCCESS     liteserver-a2-aiserver-007  0319470a",
        ),
        (
            {**TASK, "to": "FAILED", "message": "m", "count": 9, "servers": ["a", "b"]},
            "FAILED      9 servers                   software-query/0319470a  m  (a, b and 7 more)",
        ),
        (
            {**TASK, "event": "task.vanished", "to": None, "replayed": True},
            "VANISHED    liteserver-a2-aiserver-007  software-query/0319470a   (told again)",
        ),
        (
            {**JOB, "event": "job.first_seen", "phase": "active", "tasks": TASKS},
            "ACTIVE      job first seen              software-query/0319470a  14 SUCCESS, 2 FAILED",
        ),
        (
            {
                **JOB,
                "event": "job.finished",
                "phase": "failed",
                "tasks": TASKS,
                "duration_seconds": 192.5,
            },
            "FAILED      job finished                software-query/0319470a  14 SUCCESS, 2 FAILED in 3m12s",
        ),
        (
            {**JOB, "event": "job.transition", "from": "PROCESSING", "to": "FINISHED"},
            "FINISHED    job                         software-query/0319470a  was PROCESSING",
        ),
        (
            {**JOB, "event": "job.abnormal_count", "from": 0, "to": 2},
            "ABNORMAL    job                         software-query/0319470a  failed on 2 nodes, was 0",
        ),
        (
            {
                "timestamp": JOB["timestamp"],
                "level": "warning",
                "event": "poll.failing",
                "reason": "unreachable",
                "error_msg": "cannot connect",
                "status_code": None,
            },
            'warning     poll.failing  reason=unreachable error_msg="cannot connect"',
        ),
    ],
)
def test_lines(line, shown):
    assert render(line, colours=False) == f"08:31:12Z  {shown}"


def test_every_journal_event_has_a_form():

    assert set(_EVENTS) == set(EventName)


@pytest.mark.parametrize(
    ("to", "code"), [("FAILED", 31), ("SUCCESS", 32), ("PROCESSING", 36), ("?", 33)]
)
def test_a_result_has_its_colour(to, code):
    shown = render({**TASK, "to": to, "message": ""}, colours=True)
    assert f"\x1b[{code}m{to:<10}\x1b[0m" in shown


def test_hostile_text_steers_nothing():
    evil = "\x1b[2J\u202e\r\n"
    line = dict.fromkeys(("to", "server_name", "message", "job_name"), evil)
    assert render({**TASK, **line, "job_id": evil}, colours=False).isprintable()


@pytest.mark.parametrize(("form", "lines"), [("console", 1), ("json", 20)])
async def test_a_burst_is_one_line_where_people_read(configured, form, lines):  # noqa: F811
    stream = Screen()
    writer = configured(stream, form=form)
    sink = LogSink(writer.send, fold=writer.for_people)
    await sink.deliver([event(n) for n in range(20)])
    shown = stream.getvalue().splitlines()
    assert len(shown) == lines
    if form == "json":
        assert [json.loads(line)["seq"] for line in shown] == list(range(20))
    else:
        assert "20 servers" in shown[0]
