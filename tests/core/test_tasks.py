"""Vanished tasks are kept within bounds, and forgetting one repeats no event."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.core import tasks
from watcher.core.model import Job, JobKey, JobRecord, Phase, Snapshot, Task
from watcher.core.tasks import MOST_VANISHED, VANISHED_KEPT
from watcher.core.tracker import advance, begin, is_running_again, most_told, resumed

KEY = JobKey("prod", "j")
NEW = JobRecord(KEY, project_id="p")


def answer(words):
    return Snapshot(
        Job("j", "PROCESSING"), tuple(Task(*pair) for pair in words.items())
    )


def life(record, answers):
    """Take in answers ten seconds apart; return the record and all that was told."""
    told = []
    for number, one in enumerate(answers):
        step = advance(record, one, 1000.0 + 10 * number)
        told.extend(step.transitions)
        record = step.record
    return record, told


def ids(told):
    return [each.event_id for each in told]


class TestVanished:
    def test_one_that_comes_back_in_time_goes_on_from_its_last_status(self):
        gone = [answer({"a": "PROCESSING"})] * (VANISHED_KEPT - 1)
        record, _ = life(NEW, [answer({"a": "PROCESSING", "b": "FAILED"}), *gone])
        step = advance(record, answer({"a": "PROCESSING", "b": "SUCCESS"}), 9e3)
        (back,) = step.transitions
        assert (back.fields["from"], back.fields["to"]) == ("FAILED", "SUCCESS")

    def test_it_is_forgotten_after_so_many_answers(self):
        gone = [answer({"a": "PROCESSING"})] * VANISHED_KEPT
        both = answer({"a": "PROCESSING", "b": "FAILED"})
        record, told = life(NEW, [both, *gone])
        assert [task.id for task in record.tasks] == ["a"]
        assert record.absences == {}
        assert record.ordinals["task.transition"] == 1
        assert not any(subject.endswith(" b") for subject in record.ordinals)
        _, again = life(record, [both, both])
        assert [(t.fields["from"], t.fields["to"]) for t in again] == [(None, "FAILED")]
        assert not set(ids(told)) & set(ids(again))

    def test_of_too_many_the_longest_gone_go_first(self):
        first = {f"a{number}": "SUCCESS" for number in range(MOST_VANISHED + 5)}
        later = {"b": "SUCCESS", "c": "SUCCESS"}
        answers = [answer({**first, **later}), answer(later), answer({}), answer({})]
        record, told = life(NEW, [*answers, answer({})])
        assert len(record.tasks) == MOST_VANISHED
        assert {"b", "c"} <= {task.id for task in record.tasks}
        vanished = [t for t in told if t.event == "task.vanished"]
        assert len(vanished) == MOST_VANISHED + 7, "told of each before it is forgotten"

    def test_new_ids_with_every_answer_stay_within_bounds(self, monkeypatch):
        monkeypatch.setattr(tasks, "MOST_VANISHED", 20)
        answers = [
            answer({f"{number}-{place}": "SUCCESS" for place in range(10)})
            for number in range(50)
        ]
        record, told = life(NEW, answers)
        assert len(record.tasks) <= 10 + 2 * 10 + 20
        assert len(record.ordinals) <= 3 * len(record.tasks)
        assert len(ids(told)) == len(set(ids(told)))

    def test_an_unchanged_list_keeps_the_tasks_as_they_are(self):
        one = answer({"a": "PROCESSING"})
        record, _ = life(NEW, [one])
        assert advance(record, one, 2e3).record.tasks is record.tasks


words = st.sampled_from(["PROCESSING", "SUCCESS", "FAILED"])
lists = st.lists(st.dictionaries(st.sampled_from("abcde"), words), max_size=40)


@given(lists, st.integers(0, 2), st.integers(3, 6))
def test_whatever_is_forgotten_no_event_id_is_used_twice(words, most, kept):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "MOST_VANISHED", most)
        patch.setattr(tasks, "VANISHED_KEPT", kept)
        record, told = life(NEW, map(answer, words))
        _, later = life(resumed(record, KEY, "q"), map(answer, words))
    assert len(ids(told + later)) == len(set(ids(told + later)))
    listed = set(words[-1]) if words else set()
    assert listed <= {task.id for task in record.tasks}


class TestResumed:
    def test_a_job_that_is_not_known(self):
        assert resumed(None, KEY, "p") == NEW
        assert resumed(None, KEY, None) == JobRecord(KEY)

    def test_what_is_known_goes_on(self):
        record, _ = life(NEW, [answer({"a": "FAILED"})])
        assert resumed(record, KEY, "p") is record
        assert resumed(record, KEY, None) is record
        unnamed = replace(record, project_id=None)
        assert resumed(unnamed, KEY, "p") == record

    def test_the_record_of_another_project_is_not_continued(self):
        record, told = life(NEW, [answer({"a": "FAILED"})])
        other = resumed(record, KEY, "q")
        assert other == replace(begin(KEY, most_told(record)), project_id="q")
        assert (other.job, other.tasks, other.phase) == (None, (), Phase.UNKNOWN)
        _, again = life(other, [answer({"a": "FAILED"})])
        assert [t.event for t in again] == [t.event for t in told]
        assert not set(ids(told)) & set(ids(again))
        assert {t.fields["project_id"] for t in again} == {"q"}


ENDED = Job("j", "FINISHED", updated_at=100.0)


@pytest.mark.parametrize(
    ("phase", "job", "row", "again"),
    [
        (Phase.SUCCEEDED, ENDED, ("PROCESSING", 101.0), True),
        (Phase.FAILED, ENDED, ("PROCESSING", 101.0), True),
        (Phase.DELETED, ENDED, ("PROCESSING", 101.0), True),
        (Phase.SUCCEEDED, ENDED, ("PROCESSING", 100.0), False),  # it lags behind
        (Phase.SUCCEEDED, ENDED, ("PROCESSING", 99.0), False),
        (Phase.SUCCEEDED, ENDED, ("PROCESSING", None), True),
        (Phase.SUCCEEDED, Job("j", "FINISHED"), ("PROCESSING", 99.0), True),
        (Phase.SUCCEEDED, ENDED, ("FINISHED", 101.0), False),
        (Phase.SUCCEEDED, ENDED, (None, 101.0), False),
        (Phase.GONE, ENDED, ("PROCESSING", 99.0), True),
        (Phase.GONE, None, ("PROCESSING", 99.0), True),
        (Phase.GONE, None, ("FINISHED", 99.0), False),
        (Phase.ACTIVE, ENDED, ("PROCESSING", 101.0), False),  # it is asked anyway
    ],
)
def test_running_again(phase, job, row, again):
    status, updated_at = row
    record = replace(NEW, phase=phase, job=job)
    listed = Job("j", status, updated_at=updated_at)
    assert is_running_again(record, listed) is again
