"""What `watcher status` shows of the daemon's answers: tables, whatever they hold."""

import io

import pytest

from watcher.commands import status_faces
from watcher.commands.asking import Question, has_failures
from watcher.commands.shown import ShownJob, job_lines
from watcher.commands.status_faces import head, laid_out
from watcher.commands.terminal import cells, painted
from watcher.core.insight import Folded
from watcher.settings.schema import Server

HERE = Server(listen="127.0.0.1:1")


def row(job_id="0319470a-7fad", phase="active", name="upgrade", **more):
    counts = more.pop("counts", {"PROCESSING": 4})
    failures = more.pop("failures", [])
    return {
        "target": "prod",
        "job_id": job_id,
        "name": name,
        "phase": phase,
        "type": "UPGRADE",
        "user_name": None,
        "abnormal_count": None,
        "task_counts": counts,
        "tasks": counts,
        "failures": failures,
        "created_at": "2026-01-15T08:31:12.651773Z",
        "first_seen_at": None,
        "last_success_at": None,
        "last_error": None,
        **more,
    }


def task(number, status="FAILED", message="dcmi failed"):
    return {
        "id": f"t{number}",
        "server_name": f"server-{number:03}",
        "server_id": None,
        "status": status,
        "phase": {"FAILED": "failed", "SUCCESS": "succeeded"}.get(status, "active"),
        "message": message,
    }


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(status_faces, "_wall", lambda: 1768465873.0 + 125)


def texts(lines, columns=None):
    return [painted(line, columns, colours=False) for line in lines]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (
            None,
            [
                "✗ failed    4/4     ██████████ 3 failed upgrade 0319470a-7fad 2m5s  3x dcmi failed (a, b and 1 more)",
                "● active    0/4     ░░░░░░░░░░          query   b2 2m5s",
            ],
        ),
        (
            80,
            [
                "✗ failed    4/4     ██████████ 3 failed upgrade 0319470a 2m5s",
                "    3x dcmi failed  a, b and 1 more",
                "● active    0/4     ░░░░░░░░░░          query   b2 2m5s",
            ],
        ),
        (
            40,
            [
                "✗ failed    4/4     3 failed upgrade 03…",
                "    3x dcmi failed",
                "       a, b and 1 more",
                "● active    0/4              query   b2",
            ],
        ),
    ],
)
def test_jobs_stand_in_columns(columns, shown):
    failures = [{"message": "dcmi failed", "count": 3, "servers": ["a", "b"]}]
    counts = {"FAILED": 3, "SUCCESS": 1}
    rows = [
        row(phase="failed", counts=counts, failures=failures),
        row("b2", name="query"),
    ]
    assert texts(laid_out(Question(HERE), rows, columns), columns) == shown


def test_of_several_targets_each_job_names_its_own():
    both = [row(), row(target="test")]
    assert [
        line.split()[-2] for line in texts(laid_out(Question(HERE), both, None))
    ] == ["prod/0319470a-7fad", "test/0319470a-7fad"]


def test_one_job_shows_its_tasks_and_why_no_answer_comes():
    error = {"reason": "unreachable", "error_msg": "refused"}
    tasks = [task(1), task(2, "SUCCESS", "Driver: 1")]
    job = row(
        counts={"FAILED": 1, "SUCCESS": 1},
        user_name="ops",
        failures=2,
        folded_failures=[{"message": "dcmi failed", "count": 1, "servers": ["s"]}],
        last_error=error,
        last_success_at="2026-01-15T08:33:10Z",
        tasks=tasks,
    )
    assert texts(laid_out(Question(HERE, job="03"), [job], 120))[1:] == [
        "    UPGRADE, by ops, last answer 8s ago",
        "    ! no answer: unreachable: refused",
        "    FAILED     server-001  dcmi failed",
        "    SUCCESS    server-002  Driver: 1",
    ]


def test_where_not_all_failed_servers_fit_they_are_folded_too():
    folded = [{"message": "dcmi failed", "count": 9, "servers": ["a"]}]
    job = row(
        counts={"FAILED": 9},
        failures=0,
        folded_failures=folded,
        tasks=[task(number) for number in range(9)],
    )
    shown = texts(laid_out(Question(HERE, job="03", limit=2), [job], 80), 80)
    assert shown[1] == "    9x dcmi failed  a and 8 more"
    assert shown[-1] == "    … 7 more tasks: --limit 0 shows all"
    assert len([line for line in shown if "FAILED" in line]) == 2


def test_what_keeps_answers_from_coming_is_said_first(monkeypatch):
    targets = [
        {"name": "prod", "key_locked": True, "failing": []},
        {
            "name": "test",
            "key_locked": False,
            "failing": [{"reason": "unreachable", "jobs": 2, "message": "refused"}],
        },
    ]
    monkeypatch.setattr(Question, "freshness", lambda _: {"targets": targets})
    page = {"counts": {"active": 3, "failed": 1, "gone": 0}, "failing": 2}
    assert texts(head(Question(HERE), page)) == [
        "1 failed, 3 active (2 with failures)",
        "! prod: its key was refused too often: nothing is asked until it is replaced",
        "! test: no answer for 2 jobs: unreachable: refused",
    ]


@pytest.mark.parametrize("columns", [20, 40, 80, None])
def test_whatever_they_hold_lines_fit_and_steer_nothing(columns):
    evil = "\x1b[2J\u202e驱动\r\n" * 30
    failures = [{"message": evil, "count": 1, "servers": [evil]}]
    jobs = [row("x" * 64, name=evil, failures=failures), row(name=None)]
    tasks = [{**task(1, evil, evil), "server_name": evil}]
    one = row(tasks=tasks, failures=0, folded_failures=[])
    for rows in (jobs, [one]):
        for line in texts(laid_out(Question(HERE, job="x"), rows, columns), columns):
            assert line.isprintable()
            assert columns is None or cells(line) <= columns


@pytest.mark.parametrize(
    ("job", "failing"),
    [
        (row(), False),
        (row(phase="failed"), True),
        (row(abnormal_count=1), True),
        (row(counts={"FAILED": 1}), True),
        (row(phase="succeeded", counts={"SUCCESS": 1}), False),
    ],
)
def test_what_has_failures(job, failing):
    assert has_failures(job) is failing


def pages(monkeypatch, rows, size):
    """Let a daemon answer with these rows; return the questions that it is asked."""
    asked = []

    def ask(_, path, **query):
        if "stream" in path or "watcher" in path:
            return {"targets": []}
        asked.append(query)
        start = int(query["cursor"] or 0)
        end = start + min(size, query["limit"])
        counts = {"failed": sum(map(has_failures, rows)), "active": 0}
        return {
            "jobs": rows[start:end],
            "counts": counts,
            "failing": 0,
            "next": str(end) if end < len(rows) else None,
            "version": f"{len(asked)}-x",
        }

    monkeypatch.setattr("watcher.commands.asking.ask", ask)
    return asked


def test_after_the_last_failed_job_nothing_more_is_asked(monkeypatch):
    rows = [row(phase="failed") for _ in range(3)] + [row() for _ in range(97)]
    asked = pages(monkeypatch, rows, 2)
    found = [
        each for page in Question(HERE, failed=True).pages() for each in page["jobs"]
    ]
    assert len(found) == 3
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("limit", "failed", "more"),
    [(3, True, False), (2, True, True), (3, False, True), (None, False, False)],
)
def test_what_is_left_out_is_said(monkeypatch, limit, failed, more):
    rows = [row(phase="failed") for _ in range(3)] + [row() for _ in range(7)]
    pages(monkeypatch, rows, 100)
    out = io.StringIO()
    question = Question(HERE, limit=limit, failed=failed)
    assert status_faces.show(question, out, as_json=False) == "1-x"
    assert ("--limit 0 shows all" in out.getvalue()) is more


def test_more_reasons_than_are_shown_are_counted():
    folded = [Folded(f"m{n}", 5 - n, ("s",)) for n in range(5)]
    job = ShownJob("prod", "a", failures=folded)
    assert texts(job_lines([job], 80))[-1] == "    3 more for 2 other reasons"
    assert texts(job_lines([job], None))[0].endswith("; 3 more for 2 other reasons")
