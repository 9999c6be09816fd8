"""The state machine: one row per rule, and properties over any history."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watcher.core.errors import Reason
from watcher.core.model import (
    Job,
    JobKey,
    JobRecord,
    Level,
    Phase,
    PollFailed,
    Snapshot,
    Task,
    TaskPhase,
)
from watcher.core.tracker import (
    MOST_FLAGGED,
    advance,
    as_concluded,
    is_repeated,
    listed,
)
from watcher.core.transitions import diff, rfc3339, task_phase

KEY = JobKey("prod", "j")
NEW = JobRecord(KEY, project_id="p")
MISSING = PollFailed(Reason.NOT_FOUND, status_code=400, error_code="ModelArts.6404")


def answer(status="PROCESSING", tasks=None, **more):
    """Build an answer; `tasks` maps ids to status words, None means no list."""
    if tasks is not None:
        tasks = tuple(Task(task_id, word) for task_id, word in tasks.items())
    return Snapshot(Job("j", status=status, **more), tasks)


class History:
    """A job and the steps that a row of answers makes of it, ten seconds apart."""

    def __init__(self, *events, gap=10.0, start=1000.0):
        self.record, self.now, self.steps = NEW, start, []
        for event in events:
            self.add(event, gap)

    def add(self, event, gap=10.0):
        step = advance(self.record, event, self.now)
        self.record = step.record
        self.steps.append(step)
        self.now += gap
        return step

    @property
    def told(self):
        """The transitions of each step in short."""
        return [[brief(each) for each in step.transitions] for step in self.steps]


def brief(transition):
    fields = transition.fields
    match transition.event:
        case "task.transition" | "task.vanished":
            return transition.event, fields["task_id"], fields["from"], fields["to"]
        case "job.transition" | "job.abnormal_count":
            return transition.event, fields["from"], fields["to"]
        case "job.finished":
            return transition.event, fields["phase"]
        case _:
            return (transition.event,)


@pytest.mark.parametrize(
    ("word", "phase"),
    [
        ("PROCESSING", TaskPhase.ACTIVE),
        ("SUCCESS", TaskPhase.SUCCEEDED),
        ("FAILED", TaskPhase.FAILED),
        ("DELETE", TaskPhase.DELETED),
        ("DELETED", TaskPhase.DELETED),
        ("SKIPPED", TaskPhase.SKIPPED),
        ("success", TaskPhase.UNKNOWN),  # words are verbatim
        ("", TaskPhase.UNKNOWN),
        ("PAUSED", TaskPhase.UNKNOWN),
    ],
)
def test_task_phases(word, phase):
    assert task_phase(word) is phase


OK, RUN, BAD, DEL, SKIP, ODD = (
    "SUCCESS",
    "PROCESSING",
    "FAILED",
    "DELETE",
    "SKIPPED",
    "PAUSED",
)


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        # The job's own word, one answer.
        ([answer("PROCESSING", {})], Phase.ACTIVE),
        ([answer("PROCESSING", {"a": OK})], Phase.ACTIVE),
        ([answer("FINISHED", {"a": OK})], Phase.SUCCEEDED),
        ([answer("FINISHED", {"a": OK, "b": SKIP})], Phase.SUCCEEDED),
        ([answer("FINISHED", {"a": OK, "b": DEL})], Phase.SUCCEEDED),
        ([answer("FINISHED", {"a": OK, "b": BAD})], Phase.FAILED),
        ([answer("FINISHED", {"a": OK}, abnormal_count=1)], Phase.FAILED),
        ([answer("FINISHED", {"a": DEL, "b": "DELETED"})], Phase.DELETED),
        ([answer("FINISHED", {"a": OK, "b": RUN})], Phase.ACTIVE),
        ([answer("FINISHED", {"a": OK, "b": ODD})], Phase.UNKNOWN),
        ([answer("FINISHED", {})], Phase.SUCCEEDED),
        ([answer("FINISHED", None)], Phase.SUCCEEDED),
        ([answer("FINISHED", None, abnormal_count=2)], Phase.FAILED),
        ([answer("DELETED", {"a": RUN})], Phase.DELETED),
        ([answer("DELETED", None)], Phase.DELETED),
        ([answer("PROCESSING", {"a": ODD})], Phase.ACTIVE),
        ([answer("PROCESSING", {"a": DEL})], Phase.ACTIVE),
        # A word that does not tell: the tasks do, in two answers running.
        ([answer("ACTIVE", {"a": RUN})], Phase.ACTIVE),
        ([answer("ACTIVE", {"a": OK})], Phase.ACTIVE),
        ([answer("ACTIVE", {"a": OK})] * 2, Phase.SUCCEEDED),
        ([answer(None, {"a": OK})] * 2, Phase.SUCCEEDED),
        ([answer("WEIRD", {"a": OK, "b": BAD})] * 2, Phase.FAILED),
        ([answer("ACTIVE", {"a": DEL})] * 2, Phase.DELETED),
        ([answer("ACTIVE", {"a": ODD})] * 5, Phase.UNKNOWN),
        (
            [
                answer("ACTIVE", {"a": OK}),
                answer("ACTIVE", {"a": RUN}),
                answer("ACTIVE", {"a": OK}),
            ],
            Phase.ACTIVE,
        ),
        # A list that is absent says nothing, one that is empty finishes nothing.
        ([answer("ACTIVE", {"a": OK}), answer("ACTIVE", None)], Phase.ACTIVE),
        (
            [
                answer("ACTIVE", {"a": OK}),
                answer("ACTIVE", None),
                answer("ACTIVE", {"a": OK}),
            ],
            Phase.SUCCEEDED,
        ),
        ([answer("ACTIVE", {})] * 9, Phase.ACTIVE),
        ([answer("ACTIVE", None)] * 9, Phase.ACTIVE),
        ([answer(None, {})] * 9, Phase.UNKNOWN),
        ([answer("WEIRD", None)] * 9, Phase.UNKNOWN),
        ([answer("ACTIVE", {"a": OK}), *[answer("ACTIVE", {})] * 9], Phase.ACTIVE),
        # An absent abnormal_count says nothing either.
        (
            [
                answer("PROCESSING", {"a": OK}, abnormal_count=1),
                answer("FINISHED", {"a": OK}),
            ],
            Phase.FAILED,
        ),
        # What finished may run again.
        (
            [answer("FINISHED", {"a": BAD}), answer("PROCESSING", {"a": RUN})],
            Phase.ACTIVE,
        ),
        # A task that is no longer listed does not hold the job open.
        (
            [
                answer("PROCESSING", {"a": OK, "b": RUN}),
                *[answer("FINISHED", {"a": OK})] * 2,
            ],
            Phase.SUCCEEDED,
        ),
        (
            [answer("PROCESSING", {"a": OK, "b": RUN}), answer("FINISHED", {"a": OK})],
            Phase.ACTIVE,
        ),
    ],
)
def test_job_phases(events, phase):
    assert History(*events).record.phase is phase


def test_never_answered():
    assert History(PollFailed(Reason.UNREACHABLE)).record.phase is Phase.UNKNOWN


class TestLagging:
    """FINISHED while a task says otherwise."""

    @pytest.mark.parametrize(
        ("tasks", "end"),
        [
            ({"a": OK, "b": RUN}, Phase.SUCCEEDED),
            ({"a": OK, "b": ODD}, Phase.SUCCEEDED),
            ({"a": BAD, "b": RUN}, Phase.FAILED),
        ],
    )
    def test_ends_as_it_stands_after_five_minutes(self, tasks, end):
        history = History(*[answer("FINISHED", tasks)] * 30)
        assert not history.record.phase.finished
        step = history.add(answer("FINISHED", tasks))
        assert step.record.phase is end
        assert [n.event for n in step.notices] == ["job.finished_with_open_tasks"]
        assert step.notices[0].fields["waited_seconds"] == 300
        assert step.notices[0].fields["open_tasks"] == 1

    def test_ends_when_they_agree(self):
        history = History(answer("FINISHED", {"a": RUN}))
        step = history.add(answer("FINISHED", {"a": OK}))
        assert step.record.phase is Phase.SUCCEEDED
        assert step.notices == ()

    def test_five_minutes_running(self):
        lagging, running = (answer(w, {"a": RUN}) for w in ("FINISHED", "PROCESSING"))
        history = History(*[lagging] * 20, running, *[lagging] * 20)
        assert history.record.phase is Phase.ACTIVE


class TestGone:
    def test_three_answers_over_thirty_seconds(self):
        history = History(answer(), MISSING, MISSING, MISSING)
        assert history.record.phase is Phase.ACTIVE  # three, but over 20 seconds
        history.add(MISSING)
        assert history.record.phase is Phase.GONE
        assert history.told[-1] == [("job.finished", Phase.GONE)]

    def test_two_answers_are_not_enough(self):
        history = History(MISSING, MISSING, gap=3600)
        assert not history.record.phase.finished

    def test_a_job_never_seen(self):
        history = History(*[MISSING] * 4)
        assert history.record.phase is Phase.GONE
        assert history.steps[-1].transitions[0].fields["job_name"] is None

    def test_a_good_answer_starts_the_count_anew(self):
        history = History(MISSING, MISSING, answer(), MISSING, MISSING)
        assert history.record.missing_answers == 2
        assert history.record.phase is Phase.ACTIVE

    def test_other_failures_neither_count_nor_reset(self):
        lost = PollFailed(Reason.UNREACHABLE)
        history = History(MISSING, lost, lost, lost, MISSING)
        assert history.record.phase is Phase.UNKNOWN
        history.add(MISSING)
        assert history.record.phase is Phase.GONE

    @pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.NOT_FOUND}))
    def test_nothing_else_makes_a_job_gone(self, reason):
        failed = PollFailed(reason, status_code=404)
        history = History(answer(), *[failed] * 1000)
        assert history.record.phase is Phase.ACTIVE
        assert not any(history.told[1:])
        assert history.record.failures == 1000

    def test_a_gone_job_that_answers_is_watched_again(self):
        history = History(answer(tasks={"a": RUN}), *[MISSING] * 4)
        history.add(answer(tasks={"a": OK}))
        assert history.told[-1] == [
            ("job.reappeared",),
            ("task.transition", "a", RUN, OK),
        ]
        assert history.record.phase is Phase.ACTIVE
        assert history.record.finished_at is None


class TestTold:
    def test_a_whole_life(self):
        history = History(
            answer("PROCESSING", {}, name="query", type="T", created_at=900.0),
            answer("PROCESSING", {"a": RUN, "b": RUN}),
            answer("PROCESSING", {"a": OK, "b": RUN}),
            answer("PROCESSING", {"a": OK, "b": BAD}, abnormal_count=1),
            answer("FINISHED", {"a": OK, "b": BAD}, abnormal_count=1),
        )
        assert history.told == [
            [("job.first_seen",)],
            [("task.transition", "a", None, RUN), ("task.transition", "b", None, RUN)],
            [("task.transition", "a", RUN, OK)],
            [("task.transition", "b", RUN, BAD), ("job.abnormal_count", None, 1)],
            [("job.transition", RUN, "FINISHED"), ("job.finished", Phase.FAILED)],
        ]

    def test_results_present_at_first_sight_each_get_an_event(self):
        history = History(answer(tasks={"a": OK, "b": RUN, "c": BAD, "d": ODD}))
        assert history.told == [
            [
                ("job.first_seen",),
                ("task.transition", "a", None, OK),
                ("task.transition", "c", None, BAD),
                ("task.transition", "d", None, ODD),
            ]
        ]

    def test_a_task_goes_back(self):
        history = History(*(answer(tasks={"a": w}) for w in (RUN, BAD, RUN, BAD)))
        assert history.told[1:] == [
            [("task.transition", "a", RUN, BAD)],
            [("task.transition", "a", BAD, RUN)],
            [("task.transition", "a", RUN, BAD)],
        ]
        ids = [t.event_id for step in history.steps for t in step.transitions]
        assert len(ids) == len(set(ids))

    def test_a_task_comes_late(self):
        history = History(answer(tasks={"a": RUN}), answer(tasks={"b": OK, "a": RUN}))
        assert history.told[1] == [("task.transition", "b", None, OK)]

    def test_a_task_vanishes_after_two_lists_without_it_and_goes_on_if_it_returns(self):
        both, one = answer(tasks={"a": RUN, "b": RUN}), answer(tasks={"a": RUN})
        history = History(both, one, answer(tasks=None), one, one, both)
        assert history.told[1:] == [
            [],
            [],
            [("task.vanished", "b", RUN, None)],
            [],
            [],
        ]
        vanished = history.steps[3].transitions[0]
        assert vanished.level is Level.WARNING
        assert vanished.fields["not_before"] == rfc3339(1000.0)
        history.add(answer(tasks={"a": RUN, "b": OK}))
        assert history.told[-1] == [("task.transition", "b", RUN, OK)]

    def test_an_absence_of_one_list_is_nothing(self):
        both, one = answer(tasks={"a": RUN, "b": RUN}), answer(tasks={"a": RUN})
        history = History(both, one, both, one, both)
        assert history.told[1:] == [[], [], [], []]

    def test_a_return_with_another_status_has_its_own_window(self):
        history = History(
            answer(tasks={"a": RUN}), answer(tasks={}), answer(tasks={"a": OK})
        )
        (back,) = history.steps[-1].transitions
        assert back.fields["not_before"] == rfc3339(1000.0)

    def test_words_of_the_job(self):
        words = ("PROCESSING", None, "ACTIVE", "FINISHED")
        history = History(*(answer(word, {"a": RUN}) for word in words))
        assert [told[-1] for told in history.told[1:]] == [
            ("job.transition", "PROCESSING", None),
            ("job.transition", None, "ACTIVE"),
            ("job.transition", "ACTIVE", "FINISHED"),
        ]

    def test_abnormal_count_warns_when_it_rises(self):
        counts = (None, 0, 2, 1, None, 3)
        history = History(*(answer(abnormal_count=c) for c in counts))
        rows = [
            (t.fields["from"], t.fields["to"], t.level)
            for step in history.steps[1:]
            for t in step.transitions
        ]
        assert rows == [
            (0, 2, Level.WARNING),
            (2, 1, Level.INFO),
            (1, 3, Level.WARNING),
        ]

    def test_unknown_words_are_flagged_once_each(self):
        history = History(
            answer("WEIRD", {"a": ODD, "b": "HALTED"}),
            answer("WEIRD", {"a": ODD, "b": OK}),
            answer("WEIRD", {"a": "STALLED", "b": OK}),
        )
        words = [[n.fields["word"] for n in step.notices] for step in history.steps]
        assert words == [[ODD, "HALTED", "WEIRD"], [], ["STALLED"]]

    def test_flags_have_a_bound(self):
        words = {str(number): f"W{number}" for number in range(100)}
        history = History(answer(tasks=words), answer(tasks=words))
        assert [len(step.notices) for step in history.steps] == [MOST_FLAGGED, 0]

    def test_fields_of_a_task_transition(self):
        before = Task("t", RUN)
        after = Task(
            "t",
            BAD,
            server_id="s",
            server_name="n",
            cloud_server_id="c",
            cloud_server_type="BMS",
            message="disk full",
            updated_at=1005.0,
        )
        job = Job("j", status="PROCESSING", name="query", type="T")
        record = advance(NEW, Snapshot(job, (before,)), 1000.0).record
        step = advance(record, Snapshot(job, (after,)), 1010.0, skew=2.0)
        (told,) = step.transitions
        assert told.level is Level.WARNING
        assert told.fields == {
            "project_id": "p",
            "job_id": "j",
            "job_name": "query",
            "job_type": "T",
            "observed_at": "1970-01-01T00:16:50.000000Z",
            "not_before": "1970-01-01T00:16:40.000000Z",
            "task_id": "t",
            "server_id": "s",
            "server_name": "n",
            "cloud_server_id": "c",
            "cloud_server_type": "BMS",
            "from": RUN,
            "to": BAD,
            "message": "disk full",
            "updated_at": "1970-01-01T00:16:45.000000Z",
            "detection_latency_seconds": 3.0,
        }

    def test_a_latency_is_never_negative(self):
        task = Task("t", OK, updated_at=2000.0)
        step = advance(NEW, Snapshot(Job("j"), (task,)), 1000.0)
        assert step.transitions[1].fields["detection_latency_seconds"] == 0

    def test_fields_of_first_sight_and_end(self):
        tasks = (Task("a", OK, updated_at=1020.5), Task("b", OK))
        job = Job(
            "j",
            status="FINISHED",
            created_at=1000.0,
            updated_at=1020.4,
            abnormal_count=0,
        )
        first, *_, last = advance(NEW, Snapshot(job, tasks), 1030.0).transitions
        assert (first.fields["status"], first.fields["phase"]) == (
            "FINISHED",
            Phase.SUCCEEDED,
        )
        assert first.fields["tasks"] == last.fields["tasks"] == {OK: 2}
        assert first.fields["abnormal_count"] == last.fields["abnormal_count"] == 0
        assert last.fields["duration_seconds"] == 20.5
        assert last.level is Level.INFO

    @pytest.mark.parametrize(
        ("job", "duration"),
        [
            (Job("j", status="DELETED"), None),
            (Job("j", status="DELETED", created_at=5.0), None),
            (Job("j", status="DELETED", created_at=5.0, updated_at=7.0), 2.0),
        ],
    )
    def test_duration(self, job, duration):
        *_, last = advance(NEW, Snapshot(job, None), 1000.0).transitions
        assert last.fields["duration_seconds"] == duration
        assert last.level is Level.WARNING

    def test_another_end_after_another_run_is_told_again(self):
        history = History(
            answer("FINISHED", {"a": BAD}),
            answer("PROCESSING", {"a": RUN}),
            answer("FINISHED", {"a": OK}),
        )
        ends = [told[-1] for told in history.told if told[-1][0] == "job.finished"]
        assert ends == [
            ("job.finished", Phase.FAILED),
            ("job.finished", Phase.SUCCEEDED),
        ]


task_words = st.sampled_from([OK, RUN, BAD, DEL, SKIP, ODD, "DELETED"])
job_words = st.sampled_from(
    ["PROCESSING", "FINISHED", "DELETED", "ACTIVE", "ODD", None]
)
task_maps = st.dictionaries(st.sampled_from("abcd"), task_words, max_size=4)
answers = st.builds(
    answer,
    job_words,
    st.none() | task_maps,
    abnormal_count=st.none() | st.integers(0, 3),
)
failures = st.builds(PollFailed, st.sampled_from(Reason))
histories = st.lists(answers | failures, max_size=15)


@given(task_maps)
def test_diff_of_the_same_is_empty(words):
    tasks = [Task(task_id, word) for task_id, word in words.items()]
    assert diff(tasks, tasks) == []


@given(task_maps, task_maps)
def test_replaying_a_diff_gives_the_later_list(before, after):
    lists = [[Task(*pair) for pair in words.items()] for words in (before, after)]
    replayed = dict(before)
    for change in diff(*lists):
        if change.after is None:
            del replayed[change.before.id]
        else:
            known = change.before and change.before.status
            assert replayed.get(change.after.id) == known
            replayed[change.after.id] = change.after.status
    assert replayed == after


@given(histories)
def test_repeating_an_answer_tells_nothing_but_what_needs_several(events):
    history = History(*events, gap=0.001)
    record = history.record
    for event in events[-1:] * 3:
        step = advance(record, event, history.now)
        assert {t.event for t in step.transitions} <= {"task.vanished", "job.finished"}
        record = step.record
    for event in events[-1:]:
        assert advance(record, event, history.now).transitions == ()


repeated = st.lists(st.tuples(answers | failures, st.integers(1, 9)), max_size=9)


@given(repeated)
def test_a_known_answer_concludes_what_a_new_one_does(events):
    fresh = remembering = NEW
    known = None
    for number, event in enumerate(
        each for each, times in events for _ in range(times)
    ):
        at = 1000.0 + 40.0 * number
        again = known if known == event else event
        step, other = advance(fresh, event, at), advance(remembering, again, at)
        assert other == step
        fresh, remembering = step.record, other.record
        if isinstance(again, Snapshot):
            known = as_concluded(remembering, again)


def test_a_known_answer_of_before_is_concluded_from_again():
    tasks = {"a": RUN}
    history = History(answer(tasks=tasks))
    known = as_concluded(history.record, answer(tasks=tasks))
    history.add(answer(tasks=tasks, abnormal_count=1))
    assert not is_repeated(history.record, known)
    known = as_concluded(history.record, answer(tasks=tasks, abnormal_count=1))
    for _ in range(5):
        history.add(MISSING)
    assert history.record.phase is Phase.GONE
    assert [brief(each) for each in history.add(known).transitions] == [
        ("job.reappeared",)
    ]


def test_a_known_answer_is_recognised_and_nothing_is_kept_twice():
    history = History(answer(tasks={"a": RUN}), MISSING)
    known = as_concluded(history.record, answer(tasks={"a": RUN}))
    assert known.tasks is history.record.tasks
    assert is_repeated(history.record, known)
    step = history.add(known)
    assert (step.record.missing_answers, step.record.failure) == (0, None)
    assert step.record.tasks_seen_at == step.record.last_success_at == 1020.0


@settings(max_examples=300)
@given(histories)
def test_replaying_what_was_told_gives_what_is_known(events):
    history = History(*events)
    known = {}
    for step in history.steps:
        for told in step.transitions:
            if told.event == "task.transition":
                task_id = told.fields["task_id"]
                assert known.get(task_id, RUN) == (told.fields["from"] or RUN)
                known[task_id] = told.fields["to"]
    record = history.record
    assert known.items() <= {t.id: t.status for t in record.tasks}.items()
    assert {t.status for t in record.tasks if t.id not in known} <= {RUN}
    assert {t.id for t in listed(record)} <= {t.id for t in record.tasks}


@given(histories)
def test_ids_are_unique_and_do_not_depend_on_when_it_was_seen(events):
    early, late = History(*events), History(*events, start=5e8)
    ids = [[t.event_id for s in h.steps for t in s.transitions] for h in (early, late)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == len(set(ids[0]))


@given(histories)
def test_finished_at_goes_with_the_phase(events):
    for step in History(*events).steps:
        assert (step.record.finished_at is not None) == step.record.phase.finished


def test_an_unchanged_answer_keeps_the_very_same_values():
    history = History(*[answer(tasks={"a": RUN})] * 2)
    first, second = (step.record for step in history.steps)
    assert second.job is first.job
    assert second.tasks is first.tasks
    times = dict.fromkeys(("last_poll_at", "last_success_at", "tasks_seen_at"), 0)
    assert replace(second, **times) == replace(first, **times)


def test_not_before_is_when_the_last_answer_that_showed_it_was_asked_for():
    record = JobRecord(KEY)
    for number, words in enumerate([{"a": RUN}, None, {"a": OK}]):
        now = 1000.0 + 10 * number
        step = advance(record, answer(tasks=words), now, asked_at=now - 3)
        record = step.record
    (told,) = (t for t in step.transitions if t.event == "task.transition")
    assert told.fields["not_before"] == rfc3339(997.0)
    assert told.fields["observed_at"] == rfc3339(1020.0)
