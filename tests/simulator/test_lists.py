"""Lists that tell everything, only the ends, or lie; and jobs without end."""

from __future__ import annotations

import json

import pytest

from watcher.simulator import Clock, Dialect, SimulatorOptions, parse_faults
from watcher.simulator.answers import RawRequest
from watcher.simulator.jobs import KEPT
from watcher.simulator.simulation import Simulator


class Desk:
    """A cloud with a clock of its own, whose only job ends by hand."""

    def __init__(self, **options):
        self.now = 0.0
        clock = Clock(wall=lambda: 1e9 + self.now, monotonic=lambda: self.now)
        options = {"jobs": 1, "tasks": 3, "failing": 0.0, **options}
        self.cloud = Simulator(SimulatorOptions(**options), clock)
        self.pass_by(0.1)
        (self.job_id,) = self.cloud.job_ids
        self.cloud.jobs.patch(self.job_id, "*", "PROCESSING")

    def pass_by(self, seconds):
        self.now += seconds

    def rows(self):
        """What the list and the detail call say of the job."""
        answers = [self.ask(""), self.ask(f"/{self.job_id}")]
        found = [answers[0]["data"][0], answers[1]]
        return [(each["update_at"], each["abnormal_count"]) for each in found]

    def ask(self, path):
        target = f"/v1/{self.cloud.options.project_id}/dev-servers/jobs{path}"
        return json.loads(self.cloud.handle(RawRequest("GET", target, {})).answer.body)

    def fail_one(self):
        self.pass_by(1.0)
        tasks = iter(self.cloud.truth()[self.job_id].tasks)
        self.cloud.jobs.patch(self.job_id, next(tasks), "FAILED", "lost")

    def finish(self):
        self.cloud.jobs.finish(self.job_id)
        self.pass_by(1.0)


def test_a_row_moves_with_each_task():
    desk = Desk()
    before = desk.rows()
    desk.fail_one()
    after = desk.rows()
    assert all(then < now for then, now in zip(before, after, strict=True))
    assert [count for _, count in after] == [1, 1]


def test_rows_that_tell_only_of_ends():
    desk = Desk(dialect=Dialect(rows="ends"))
    before = desk.rows()
    desk.fail_one()
    assert desk.rows() == before
    desk.finish()
    after = desk.rows()
    assert all(then < now for then, now in zip(before, after, strict=True))
    assert [count for _, count in after] == [1, 1]


def test_a_list_that_lies_from_some_moment_on():
    desk = Desk(faults=parse_faults("stale_rows:after=5"))
    desk.fail_one()
    row, job = desk.rows()
    assert row == job, "it tells the truth until then"
    desk.pass_by(5.0)
    lie, truth = desk.rows()
    assert lie != truth
    desk.fail_one()
    row, job = desk.rows()
    assert row == lie
    assert job > truth
    desk.finish()
    row, job = desk.rows()
    assert row == job, "but an end is told"


class TestEndless:
    """Each job that ends is followed by a new one."""

    def cloud(self, **options):
        self.now = 0.0
        clock = Clock(wall=lambda: 1e9 + self.now, monotonic=lambda: self.now)
        return Simulator(SimulatorOptions(endless=True, **options), clock)

    def running(self, cloud):
        now = cloud.clock.wall()
        ends = {job_id: truth.finished_at for job_id, truth in cloud.truth().items()}
        return {job_id for job_id, end in ends.items() if end > now}

    def test_as_many_run_as_before_and_the_ids_are_new(self):
        cloud, seen = self.cloud(jobs=5, tasks=2), set()
        for _ in range(200):
            running = self.running(cloud)
            assert len(running) == 5
            assert all(cloud.jobs.find(job_id) for job_id in running)
            seen |= running
            self.now += 10.0
        assert len(seen) > 50

    def test_those_that_ended_leave_in_the_end(self):
        cloud = self.cloud(jobs=2, tasks=1)
        first = cloud.job_ids[0]
        cloud.jobs.finish(first)
        for _ in range(1000):
            self.now += 10.0
            assert len(cloud.job_ids) <= 2 * KEPT
        assert cloud.jobs.find(first) is None
        assert len(cloud.jobs.present()) == 2 * KEPT

    def test_the_same_seed_tells_the_same_story(self):
        stories = []
        for _ in range(2):
            cloud = self.cloud(jobs=3, tasks=2, seed=7)
            for _ in range(50):
                self.now += 7.0
                cloud.job_ids  # noqa: B018 - a look
            stories.append(cloud.truth())
        assert stories[0] == stories[1]

    def test_a_job_that_is_held_open_has_no_successor(self):
        cloud = self.cloud(jobs=1, tasks=1)
        (job_id,) = cloud.job_ids
        cloud.jobs.patch(job_id, "*", "PROCESSING")
        self.now += 10_000.0
        assert cloud.job_ids == (job_id,)
        cloud.jobs.finish(job_id)
        self.now += 1.0
        assert len(cloud.job_ids) == 2

    def test_what_nobody_asked_for_is_not_made_up_for_years(self):
        cloud = self.cloud(jobs=2, tasks=1)
        self.now += 10 * 365 * 86_400.0
        assert len(self.running(cloud)) == 2

    @pytest.mark.parametrize("endless", [False, True])
    def test_only_where_it_is_wanted(self, endless):
        cloud = self.cloud(jobs=2, tasks=1)
        if not endless:
            cloud = Simulator(SimulatorOptions(jobs=2, tasks=1), cloud.clock._clock)
        self.now += 1000.0
        assert (len(cloud.job_ids) > 2) is endless
