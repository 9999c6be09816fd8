"""Bursts: what is told as one, and what never is."""

import pytest

from watcher.core.bursts import folded
from watcher.core.model import JobKey, JournalEvent, Level, Transition


def event(seq, name="task.transition", job="a", **fields):
    told = {
        "observed_at": "2026-01-15T08:31:12.000000Z",
        "server_name": f"server-{seq:03}",
        "from": "PROCESSING",
        "to": "SUCCESS",
        "message": None,
        **fields,
    }
    transition = Transition(name, f"id{seq}", Level.INFO, JobKey("prod", job), told)
    return JournalEvent(seq, transition)


@pytest.mark.parametrize(("count", "lines"), [(0, 0), (8, 8), (9, 1), (200, 1)])
def test_more_than_eight_are_one(count, lines):
    assert len(list(folded([event(seq) for seq in range(count)]))) == lines


def test_a_burst_says_how_many_and_names_the_first():
    (told,) = folded([event(n, message=f"dcmi {n % 2} failed") for n in range(11)])
    assert told["count"] == 11
    assert told["servers"] == [f"server-{n:03}" for n in range(5)]
    assert told["message"] == "dcmi 0 failed"
    assert (told["seq"], told["event"], told["to"]) == (0, "task.transition", "SUCCESS")


@pytest.mark.parametrize(
    "differs",
    [
        lambda n: {"to": ("SUCCESS", "FAILED")[n % 2]},
        lambda n: {"from": ("PROCESSING", None)[n % 2]},
        lambda n: {"message": ("no power", "no disk")[n % 2]},
        lambda n: {"observed_at": str(n % 2)},
        lambda n: {"job": "ab"[n % 2]},
        lambda n: {"name": ("task.transition", "task.vanished")[n % 2]},
    ],
)
def test_what_differs_is_not_told_as_one(differs):
    assert len(list(folded([event(n, **differs(n)) for n in range(16)]))) == 16
    assert len(list(folded([event(n, **differs(n)) for n in range(18)]))) == 2


def test_what_a_job_says_is_never_folded_and_keeps_its_place():
    events = [event(0, "job.first_seen"), *(event(n) for n in range(1, 11))]
    events += [event(n, "job.transition") for n in range(11, 21)]
    assert [told["seq"] for told in folded(events)] == [0, 1, *range(11, 21)]


def test_few_keep_their_order():
    events = [event(n, to=("SUCCESS", "FAILED")[n % 2]) for n in range(10)]
    assert [told["seq"] for told in folded(events)] == list(range(10))
