"""The scenario and its clock: properties of the seed, no server."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.simulator.clock import Clock, ScenarioClock
from watcher.simulator.scenario import HEAD_START, TASK_LAG, Scenario
from watcher.simulator.timeline import (
    FINISHED,
    PROCESSING,
    Change,
    latest,
    tell,
    visible,
)

scenarios = st.builds(
    Scenario,
    seed=st.integers(),
    jobs=st.integers(1, 12),
    tasks=st.integers(1, 16),
    failing=st.sampled_from([0.0, 0.25, 1.0]),
    arrive_over=st.sampled_from([0.0, 60.0]),
)


def script(scenario, index=0):
    job = scenario.job(index)
    return job, scenario.tasks_of(job, scenario.fleet())


@given(scenarios)
def test_the_same_seed_tells_the_same_story(scenario):
    for index in range(scenario.jobs):
        assert script(scenario, index) == script(scenario, index)


@given(scenarios)
def test_another_seed_tells_another_story(scenario):
    other = Scenario(scenario.seed + 1, scenario.jobs, scenario.tasks)
    assert scenario.job(0).id != other.job(0).id
    assert scenario.fleet()[0].id != other.fleet()[0].id


@given(scenarios)
def test_every_task_goes_from_processing_to_one_end_and_stays(scenario):
    for index in range(scenario.jobs):
        for task in script(scenario, index)[1]:
            moments = [change.at for change in task.changes]
            assert moments == sorted(moments)
            *before, end = [change.status for change in task.changes]
            assert set(before) == {PROCESSING}
            assert end in {"SUCCESS", "FAILED", "SKIPPED"}


@given(scenarios)
def test_a_job_finishes_shortly_after_its_last_task_and_no_end_is_missed(scenario):
    for index in range(scenario.jobs):
        job, tasks = script(scenario, index)
        ends = [task.changes[-1].at for task in tasks]
        finished = job.changes[-1]
        assert finished.status == FINISHED
        assert 0 < finished.at - max(ends) < 1
        assert min(ends) > 0, "a task ended before anybody could look"


@given(scenarios)
def test_jobs_are_in_order_and_exist_at_the_start_unless_they_arrive(scenario):
    created = [scenario.job(index).created for index in range(scenario.jobs)]
    assert created == sorted(created)
    if scenario.arrive_over:
        assert created[0] == 0
        assert created[-1] < scenario.arrive_over
    else:
        assert created[0] >= -HEAD_START
        assert created[-1] == 0


@given(scenarios)
def test_ids_are_distinct(scenario):
    jobs = [script(scenario, index) for index in range(scenario.jobs)]
    assert len({job.id for job, _ in jobs}) == len(jobs)
    assert len({task.id for _, tasks in jobs for task in tasks}) == sum(
        len(tasks) for _, tasks in jobs
    )


@given(scenarios, st.floats(-20, 400))
def test_truth_is_what_can_be_seen(scenario, now):
    """Replaying the truth up to a moment gives what is visible at that moment."""
    job, tasks = script(scenario)
    truth = tell(job, tasks, stamp=lambda moment: moment)
    replayed = {task.id: PROCESSING for task in tasks if task.changes[0].at <= now}
    for move in truth.transitions:
        if move.at <= now:
            assert replayed[move.task_id] == move.from_status
            replayed[move.task_id] = move.to_status
    seen = {task.id: state.status for task, state in visible(tasks, now)}
    assert seen == replayed
    if now > truth.finished_at:
        assert seen == truth.tasks
        assert truth.abnormal_count == list(seen.values()).count("FAILED")


@pytest.mark.parametrize(("failing", "troubled"), [(0.0, 0), (1.0, 50)])
def test_failing_is_the_share_of_jobs_with_failed_tasks(failing, troubled):
    scenario = Scenario(seed=1, jobs=50, tasks=4, failing=failing)
    counts = [
        tell(*script(scenario, index), stamp=float).abnormal_count
        for index in range(50)
    ]
    assert sum(count > 0 for count in counts) == troubled


def test_a_job_is_without_tasks_for_a_moment():
    job, tasks = script(Scenario(seed=1, jobs=1, tasks=3))
    assert visible(tasks, job.created + TASK_LAG / 2) == []
    assert len(visible(tasks, job.created + TASK_LAG)) == 3


def test_an_upgrade_tells_its_progress_without_changing_status():
    scenario = Scenario(seed=1, jobs=5, tasks=1, failing=0.0)
    job, (task,) = script(scenario, 4)
    assert job.type == "ASCEND_SOFTWARE_UPGRADE"
    messages = [change.message for change in task.changes]
    assert messages[1:4] == [
        "Installing the driver.",
        "Installing the firmware.",
        "Restarting the server.",
    ]
    assert len(tell(job, (task,), stamp=float).transitions) == 1


def test_the_default_scenario_moves_within_two_seconds_and_for_minutes():
    scenario = Scenario(seed=0, jobs=12, tasks=16)
    ends = sorted(
        task.changes[-1].at
        for index in range(12)
        for task in script(scenario, index)[1]
    )
    assert ends[0] < 2
    assert 120 < ends[-1] <= 300
    gaps = [late - early for early, late in pairwise(e for e in ends if e < 60)]
    assert max(gaps) < 10


def test_latest_is_the_last_change_up_to_now():
    changes = (Change(1.0, "a"), Change(2.0, "b"))
    assert latest(changes, 0.9) is None
    assert latest(changes, 1.0) == changes[0]
    assert latest(changes, 2.5) == changes[1]


class Hands:
    """A clock that is moved by hand."""

    def __init__(self):
        self.seconds = 0.0
        self.clock = Clock(lambda: 1000.0 + self.seconds, lambda: 5.0 + self.seconds)


def test_scenario_time_runs_at_its_speed_and_stamps_are_real():
    hands = Hands()
    clock = ScenarioClock(hands.clock, speed=10)
    hands.seconds = 3.0
    assert clock.now() == 30.0
    assert clock.stamp(30.0) == 1003.0
    assert clock.stamp(20.0) == 1002.0
    assert clock.stamp(-10.0) == 999.0


def test_a_change_of_speed_leaves_earlier_stamps_alone():
    hands = Hands()
    clock = ScenarioClock(hands.clock, speed=1)
    hands.seconds = 4.0
    clock.set(speed=100)
    hands.seconds = 5.0
    assert clock.now() == 104.0
    assert [clock.stamp(s) for s in (2.0, 4.0, 54.0)] == [1002.0, 1004.0, 1004.5]


def test_a_pause_holds_and_a_jump_passes_over():
    hands = Hands()
    clock = ScenarioClock(hands.clock, speed=0)
    hands.seconds = 7.0
    assert clock.now() == 0.0
    assert clock.stamp(1.0) == math.inf
    clock.set(advance=60.0)
    assert clock.now() == 60.0
    assert clock.stamp(30.0) == 1007.0
    assert clock.stamp(60.0) == 1007.0
    assert clock.stamp(60.1) == math.inf


def test_skew_moves_the_wall_clock_and_not_the_scenario():
    hands = Hands()
    clock = ScenarioClock(hands.clock, skew=-120.0)
    hands.seconds = 2.0
    assert (clock.now(), clock.wall(), clock.stamp(2.0)) == (2.0, 882.0, 882.0)


@pytest.mark.parametrize("speed", [-1.0, math.inf, math.nan])
def test_a_clock_does_not_run_backwards(speed):
    with pytest.raises(ValueError, match="speed"):
        ScenarioClock(Hands().clock, speed=speed)
    with pytest.raises(ValueError, match="advance"):
        ScenarioClock(Hands().clock).set(advance=speed)
