"""When a job is due, how fast a target is asked, and that no delay leaves its bounds."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.core.errors import Reason
from watcher.core.model import (
    LAGGING_LIMIT,
    Job,
    JobKey,
    JobRecord,
    Lasted,
    Phase,
    PollFailed,
    Tick,
)
from watcher.core.schedule import (
    TICK,
    Cadence,
    DueQueue,
    Gate,
    RateLimit,
    backoff,
    next_delay,
)

KEY = JobKey("prod", "j")
CADENCE = Cadence(interval=10, backoff_max=300)
chances = st.floats(0, 1, exclude_max=True)


def record(phase=Phase.ACTIVE, **more):
    return JobRecord(KEY, phase=phase, **more)


def failing(reason, failures=1, retry_after=None):
    failure = PollFailed(reason, retry_after=retry_after)
    return record(failures=failures, failure=failure)


@pytest.mark.parametrize(
    ("state", "delay"),
    [
        (record(), 10),
        (record(Phase.UNKNOWN), 10),  # never answered yet
        (record(Phase.SUCCEEDED), None),
        (record(Phase.FAILED), None),
        (record(Phase.DELETED), None),
        (record(Phase.GONE), None),
        # Kept open by unknown words alone: slowly; but not past the limit of a
        # job that says FINISHED.
        (record(Phase.UNKNOWN, job=Job("j")), 300),
        (failing(Reason.NOT_FOUND), 10),  # to be confirmed soon
        (failing(Reason.NOT_FOUND, 9), 10),
        (failing(Reason.MALFORMED, 1), 10),
        (failing(Reason.MALFORMED, 2), 20),
        (failing(Reason.UNREACHABLE, 5), 160),
        (failing(Reason.SERVER_ERROR, 6), 300),
        (failing(Reason.SERVER_ERROR, 10**6), 300),
        (failing(Reason.THROTTLED, 1, retry_after=5), 10),
        (failing(Reason.THROTTLED, 1, retry_after=1000), 1000),
        (failing(Reason.THROTTLED, 1, retry_after=10**9), 3600),
    ],
)
def test_delay(state, delay):
    assert next_delay(state, CADENCE, 0.0) == delay


@pytest.mark.parametrize(
    ("backoff_max", "seconds", "delay"),
    [(3600, 0.0, 300), (300, 270.0, 30), (300, 299.9, 10), (60, 0.0, 60)],
)
def test_a_lagging_job_of_unknown_words_is_asked_at_its_limit(
    backoff_max, seconds, delay
):
    slow = Cadence(interval=10, backoff_max=backoff_max)
    lagging = Lasted(seconds, 0.0, Tick(0.0, 0.0))
    state = record(Phase.UNKNOWN, job=Job("j"), lagging=lagging)
    assert next_delay(state, slow, 0.0) == delay


@given(chances, st.floats(1, 60), st.floats(60, 3600))
def test_a_lagging_job_of_unknown_words_ends_within_an_interval_of_its_limit(
    chance, interval, backoff_max
):
    cadence = Cadence(interval, backoff_max)
    lagging = Lasted(0.0, 0.0, Tick(0.0, 0.0))
    while lagging.seconds < LAGGING_LIMIT:
        state = record(Phase.UNKNOWN, job=Job("j"), lagging=lagging)
        seconds = lagging.seconds + next_delay(state, cadence, chance)
        lagging = replace(lagging, seconds=seconds)
    assert lagging.seconds <= LAGGING_LIMIT + interval


def test_a_long_interval_is_shortened_to_confirm_a_missing_job():
    slow = Cadence(interval=600, backoff_max=300)
    assert next_delay(failing(Reason.NOT_FOUND), slow, 0.0) == 15
    assert next_delay(failing(Reason.UNREACHABLE), slow, 0.0) == 600


@given(
    st.sampled_from(Reason),
    st.integers(0, 10**9),
    st.none() | st.floats(0, 1e12),
    st.floats(0.01, 1e5),
    st.floats(0.01, 1e5),
    chances,
)
def test_no_delay_leaves_its_bounds(reason, failures, wait, interval, ceiling, chance):
    cadence = Cadence(interval, ceiling)
    delay = next_delay(failing(reason, failures, wait), cadence, chance)
    assert 0 < delay <= max(cadence.ceiling, min(wait or 0, 3600))


@given(chances)
def test_jitter_makes_a_poll_early_and_never_late(chance):
    assert 9 <= next_delay(record(), CADENCE, chance) <= 10


def test_backoff_doubles_up_to_its_ceiling():
    delays = [backoff(failures, 1, 20, 0) for failures in range(7)]
    assert delays == [1, 1, 2, 4, 8, 16, 20]


class TestDueQueue:
    def test_earliest_deadline_first(self):
        queue = DueQueue()
        keys = [JobKey("t", name) for name in "abc"]
        for key, due in zip(keys, (3.0, 1.0, 2.0), strict=True):
            queue.put(key, due)
        assert queue.next_due() == 1.0
        assert [queue.pop_due(2.5), queue.pop_due(2.5), queue.pop_due(2.5)] == [
            (keys[1], 1.0),
            (keys[2], 2.0),
            None,
        ]
        assert len(queue) == 1

    def test_only_what_waits_longer_is_hastened(self):
        queue = DueQueue()
        early, late, absent = (JobKey("t", name) for name in "abc")
        queue.put(early, 1.0)
        queue.put(late, 9.0)
        for key in (early, late, absent):
            queue.bring_forward(key, 5.0)
        assert [queue.due_at(k) for k in (early, late, absent)] == [1.0, 5.0, None]

    @given(
        st.lists(
            st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 20)),
            max_size=40,
        )
    )
    def test_the_last_word_on_a_job_counts(self, changes):
        queue, truth = DueQueue(), {}
        for name, due in changes:
            key = JobKey("t", name)
            if due is None:
                queue.discard(key)
                truth.pop(key, None)
            else:
                queue.put(key, due)
                truth[key] = due
        assert len(queue) == len(truth)
        assert {key: queue.due_at(key) for key in truth} == truth
        popped = []
        while found := queue.pop_due(math.inf):
            popped.append(found)
        assert sorted(popped) == sorted(truth.items())
        assert [due for _, due in popped] == sorted(truth.values())
        assert queue.next_due() is None


class TestRateLimit:
    @given(
        st.floats(0.1, 1000),
        st.lists(st.floats(0, 0.5), min_size=1, max_size=200),
        st.lists(st.booleans(), min_size=200, max_size=200),
    )
    def test_no_second_carries_more_than_the_rate_a_tick_and_one(
        self, rate, gaps, slows
    ):
        limit, now, sent = RateLimit(rate), 0.0, []
        for gap, slow in zip(gaps, slows, strict=False):
            now += gap
            if slow:
                limit.slow_down(now)
            while limit.ready_at() <= now:
                limit.take(now)
                sent.append(now)
        for start in sent:
            carried = sum(start <= at < start + 1 for at in sent)
            assert carried <= rate * (1 + TICK) + 1 + 1e-6

    def test_another_ceiling_is_in_force_at_once(self):
        limit = RateLimit(20)
        limit.slow_down(0)
        limit.limit(5)
        assert (limit.ceiling, limit.rate) == (5, 5)

    @pytest.mark.parametrize("late", [0.0, 0.01, 0.04])
    def test_it_reaches_its_rate_though_ticks_come_late(self, late):
        limit, sent = RateLimit(20), 0
        for tick in range(100):
            now = tick * TICK + late * (tick % 2)
            while limit.ready_at() <= now:
                limit.take(now)
                sent += 1
        assert sent >= 20 * 100 * TICK

    def test_a_throttle_halves_it_and_it_recovers_in_a_minute(self):
        limit = RateLimit(16)
        limit.slow_down(100)
        assert limit.rate == 8
        for _ in range(20):
            limit.slow_down(100)
        assert limit.rate == 16 / 64
        limit.take(130)
        assert limit.rate == pytest.approx(8.25)
        limit.take(200)
        assert limit.rate == 16


class TestGate:
    def test_open(self):
        assert (Gate().failures, Gate().opens_at) == (0, -math.inf)

    def test_a_failure_closes_it_and_one_probe_at_a_time_follows(self):
        gate = Gate().failed(0, 5, 300, 0, 0)
        assert (gate.failures, gate.opens_at) == (1, 6)

    def test_failures_of_one_volley_count_once(self):
        gate = Gate().failed(0, 5, 300, 0, 0).failed(0, 5.5, 300, 0, 0)
        assert (gate.failures, gate.opens_at) == (1, 6)

    def test_a_late_answer_of_the_volley_may_ask_for_more_time(self):
        gate = Gate().failed(0, 5, 300, 0, 0).failed(0, 5.5, 300, 0, 60)
        assert (gate.failures, gate.opens_at) == (1, 65.5)

    def test_pauses_double_up_to_the_ceiling(self):
        gate, now, pauses = Gate(), 0.0, []
        for _ in range(12):
            gate = gate.failed(now, now, 300, 0, 0)
            pauses.append(gate.opens_at - now)
            now = gate.opens_at
        assert pauses[:4] == [1, 2, 4, 8]
        assert pauses[-2:] == [300, 300]

    def test_what_the_server_asks_for_outranks_the_ceiling(self):
        assert Gate().failed(0, 0, 300, 0, 1800).opens_at == 1800

    def test_a_good_answer_opens_it(self):
        gate = Gate().failed(0, 5, 300, 0, 0)
        assert gate.succeeded(6) == Gate()

    def test_a_good_answer_of_the_volley_does_not(self):
        gate = Gate().failed(0, 5, 300, 0, 0)
        assert gate.succeeded(4) is gate
