"""What ends a job after a while counts time that passed, not what the clock shows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.core.elapsed import lasting
from watcher.core.errors import Reason
from watcher.core.model import (
    Job,
    JobKey,
    JobRecord,
    Phase,
    PollFailed,
    Snapshot,
    Task,
    Tick,
)
from watcher.core.tracker import advance
from watcher.store.codec import decode_record, encode

MISSING = PollFailed(Reason.NOT_FOUND, status_code=400)
LAGS = Snapshot(Job("j", "FINISHED"), (Task("a", "PROCESSING"),))
DAY = 86_400.0


class Life:
    """A job, and both clocks of the machine that looks at it."""

    def __init__(self):
        self.record = JobRecord(JobKey("prod", "j"), project_id="p")
        self.wall, self.tick = 1e9, Tick(1.0, 50.0)

    def look(self, event, times, every):
        for _ in range(times):
            step = advance(self.record, event, self.wall, tick=self.tick)
            self.record = step.record
            self.pass_by(every)
        return self.record.phase

    def pass_by(self, seconds):
        self.wall += seconds
        self.tick = self.tick._replace(seconds=self.tick.seconds + seconds)

    def restart(self, after, step=0.0):
        """End and begin again; the wall clock is set meanwhile by `step`."""
        self.record = decode_record(encode(self.record))
        self.wall += after + step
        self.tick = Tick(self.tick.life + 1, 7.0)


@pytest.mark.parametrize("step", [600.0, -DAY, 10 * 365 * DAY])
class TestClockSet:
    def test_while_a_task_lags(self, step):
        life = Life()
        life.look(LAGS, 1, 10)
        life.wall += step
        assert life.look(LAGS, 29, 10) is Phase.ACTIVE
        assert life.look(LAGS, 1, 10) is Phase.SUCCEEDED

    def test_while_a_job_is_missing(self, step):
        life = Life()
        life.look(MISSING, 2, 1)
        life.wall += step
        assert life.look(MISSING, 2, 1) is Phase.UNKNOWN
        life.pass_by(30)
        assert life.look(MISSING, 1, 1) is Phase.GONE

    def test_during_a_restart(self, step):
        life = Life()
        life.look(MISSING, 3, 1)
        life.restart(2, step)
        assert life.look(MISSING, 1, 1) is Phase.UNKNOWN, "at most four seconds"
        assert life.look(MISSING, 31, 1) is Phase.GONE

    def test_during_a_restart_while_a_task_lags(self, step):
        life = Life()
        life.look(LAGS, 13, 10)
        life.restart(2, step)
        assert life.look(LAGS, 1, 10) is Phase.ACTIVE
        assert life.look(LAGS, 18, 10) is Phase.SUCCEEDED


def test_a_restart_counts_as_long_as_it_took():
    life = Life()
    life.look(LAGS, 16, 10)
    life.restart(90)
    life.look(LAGS, 1, 10)
    assert life.record.lagging.seconds == 250


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(-DAY, DAY), st.booleans()), max_size=30
    )
)
def test_no_setting_of_the_clock_counts_for_more_than_was_seen(looks):
    wall, tick, lasted, passed = 1e9, Tick(0.0, 5.0), None, 0.0
    for gap, step, restarts in looks:
        before = lasted
        wall += gap + step
        if restarts:
            tick = Tick(tick.life + 1, 0.0)
        else:
            tick = Tick(tick.life, tick.seconds + gap)
        lasted = lasting(lasted, wall, tick)
        if before is None:
            assert lasted.seconds == 0
        elif restarts:
            assert before.seconds <= lasted.seconds <= 2 * before.seconds
        else:
            passed = before.seconds + gap
            assert lasted.seconds == pytest.approx(passed)


def test_a_record_of_an_earlier_version_is_read_and_its_waiting_begins_anew():
    record = replace(Life().record, job=Job("j", "FINISHED"), missing_answers=2)
    text = encode(record).replace(
        '"missing_answers"', '"lagging_since":1.5,"missing_since":2.5,"missing_answers"'
    )
    old = text.replace('"lagging":null,', "").replace('"missing":null,', "")
    assert old != text
    assert decode_record(old) == record
    life = Life()
    life.record = decode_record(old)
    assert life.look(MISSING, 1, 1) is Phase.UNKNOWN
