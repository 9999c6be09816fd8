"""A look that changed nothing shows nothing new; any other field does."""

from dataclasses import fields, replace

import pytest

from watcher.core.errors import Reason
from watcher.core.model import (
    LOOK_FIELDS,
    Absence,
    Job,
    JobKey,
    JobRecord,
    Lasted,
    Phase,
    PollFailed,
    Snapshot,
    Task,
    Tick,
    shows_the_same,
)
from watcher.core.tracker import advance

RECORD = JobRecord(JobKey("prod", "j"))
LASTED = Lasted(1.0, 2.0, Tick(3.0, 4.0))
OTHER = {
    "key": JobKey("prod", "k"),
    "project_id": "p",
    "phase": Phase.ACTIVE,
    "job": Job("j"),
    "tasks": (Task("t", "FAILED"),),
    "absences": {"t": Absence(1, 2.0)},
    "first_seen_at": 1.0,
    "last_poll_at": 1.0,
    "last_success_at": 1.0,
    "tasks_seen_at": 1.0,
    "finished_at": 1.0,
    "quiet_answers": 1,
    "lagging": LASTED,
    "missing_answers": 1,
    "missing": LASTED,
    "failures": 1,
    "failure": PollFailed(Reason.THROTTLED),
    "moves": 1,
    "flagged": frozenset({"W"}),
    "ordinals": {"job.first_seen": 1},
}


@pytest.mark.parametrize("name", [field.name for field in fields(JobRecord)])
def test_each_field_shows_unless_it_is_named(name):
    assert name in OTHER, "a new field: say another value, and whether it shows"
    other = replace(RECORD, **{name: OTHER[name]})
    assert shows_the_same(RECORD, other) is (name in LOOK_FIELDS)


def test_the_names_are_those_of_fields():
    assert {field.name for field in fields(JobRecord)} >= LOOK_FIELDS


def test_a_look_that_changed_nothing_shows_the_same():
    answer = Snapshot(Job("j", "PROCESSING"), (Task("t", "ODD"),))
    first = advance(RECORD, answer, 1.0).record
    second = advance(first, answer, 2.0).record
    assert shows_the_same(first, first)
    assert shows_the_same(first, second)
    failed = advance(second, PollFailed(Reason.UNREACHABLE), 3.0).record
    assert shows_the_same(first, failed)
    moved = Snapshot(Job("j", "PROCESSING"), (Task("t", "FAILED"),))
    assert not shows_the_same(first, advance(second, moved, 4.0).record)
