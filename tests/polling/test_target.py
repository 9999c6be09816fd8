"""A target as the synchronous class it is: no loop, no clock, tables."""

import math
from dataclasses import replace

import pytest

from tests.fakes import FakeApi, keys, snapshot
from watcher.core.errors import Reason
from watcher.core.listing import Mode
from watcher.core.model import (
    Job,
    JobRecord,
    ListPage,
    Phase,
    PollFailed,
    Snapshot,
)
from watcher.core.trust import Trust
from watcher.polling.release import key_is_full, next_release, release
from watcher.polling.target import Look, Manner, PageLook, Target

GOOD = Snapshot(Job("job-0", "PROCESSING"), ())
FAILED = {reason: PollFailed(reason) for reason in Reason}
A = keys(1)[0]


def target(jobs=1, *, name="prod", api=None, **manner):
    manner.setdefault("mode", Mode.DETAIL)
    one = Target(name, api or FakeApi(), Manner(**manner))
    for key in keys(jobs, name):
        one.watch(JobRecord(key), 0.0)
    return one


def looks(targets, now):
    return [request for _, request in release(targets, now)]


def answer(one, look, outcome=GOOD, now=0.1, record=None, chance=0.0):
    """Let a request land, and settle it where it counts."""
    if not one.landed(look, outcome, now, chance):
        return None
    failure = outcome if isinstance(outcome, PollFailed) else None
    known = record or JobRecord(
        look.key,
        phase=Phase.ACTIVE,
        job=GOOD.job,
        failure=failure,
        failures=int(failure is not None),
    )
    return list(one.settle(look, outcome, known, now, chance))


class TestKnownAnswers:
    def test_the_next_look_knows_the_last_answer_in_the_parts_of_the_record(self):
        one = target()
        (look,) = looks([one], 0.0)
        assert look.known is None
        record = JobRecord(look.key, phase=Phase.ACTIVE, job=replace(GOOD.job))
        answer(one, look, record=record)
        (look,) = looks([one], 100.0)
        assert look.known == GOOD
        assert look.known.job is record.job

    def test_another_door_may_read_it_otherwise(self):
        one = target()
        answer(one, *looks([one], 0.0))
        one.reopen(FakeApi(), 1.0)
        (look,) = looks([one], 100.0)
        assert look.known is None


class TestWhatIsDue:
    def test_a_new_job_at_once_and_once(self):
        one = target()
        (look,) = looks([one], 0.0)
        assert look == Look(one.api, A, 0.0, 0.0, look.watch)
        assert looks([one], 100.0) == []
        assert next_release([one], 0.0) == math.inf

    @pytest.mark.parametrize(
        ("chance", "due"),
        [(0.0, 10.0), (0.5, 5.2), (0.999, 0.9)],  # the second look: anywhere in it
    )
    def test_the_second_look_is_spread_over_the_interval(self, chance, due):
        one = target()
        answer(one, looks([one], 0.0)[0], chance=chance)
        assert one.due_at(A) == pytest.approx(due)

    @pytest.mark.parametrize(("chance", "due"), [(0.0, 20.0), (0.5, 19.5), (1, 19.0)])
    def test_later_looks_are_early_by_a_tenth_at_most(self, chance, due):
        one = target()
        answer(one, looks([one], 0.0)[0])
        answer(one, looks([one], 10.0)[0], now=10.1, chance=chance)
        assert one.due_at(A) == pytest.approx(due)

    def test_finished_jobs_are_not_asked(self):
        one = target(jobs=0)
        one.watch(JobRecord(A, phase=Phase.SUCCEEDED), 0.0)
        assert one.running == 0
        assert one.attempted
        assert looks([one], 0.0) == []

    def test_a_job_that_finishes_is_asked_no_more(self):
        one = target()
        look = looks([one], 0.0)[0]
        answer(one, look, record=JobRecord(A, phase=Phase.FAILED, job=GOOD.job))
        assert one.due_at(A) is None
        assert one.running == 0

    def test_due_times_lie_on_the_grid_of_ticks(self):
        one = target(interval=7.77)
        answer(one, looks([one], 0.033)[0])
        assert one.due_at(A) == pytest.approx(7.8)
        assert next_release([one], 5.0) == pytest.approx(7.8)

    def test_what_falls_due_between_two_ticks_goes_with_the_later(self):
        one = target(jobs=2, requests_per_second=1)
        looks([one], 0.0)
        ready = next_release([one], 0.0)
        assert ready == pytest.approx(0.9)
        assert looks([one], ready)


class TestRoom:
    def test_no_more_than_the_cap(self):
        one = target(jobs=5, max_in_flight=2)
        first = looks([one], 0.0)
        assert len(first) == 2
        assert not one.has_room
        assert next_release([one], 0.0) == pytest.approx(0.1), "a look at each tick"
        answer(one, first[0])
        assert len(looks([one], 0.1)) == 1

    def test_no_more_than_the_rate(self):
        one = target(jobs=100, requests_per_second=20, max_in_flight=100)
        sent = [len(looks([one], tick / 10)) for tick in range(31)]
        assert sent[0] == 3
        assert max(sum(sent[n : n + 10]) for n in range(21)) <= 20 + 2 + 1
        assert sum(sent[:30]) >= 60

    def test_one_probe_while_the_target_fails(self):
        one = target(jobs=3)
        first = looks([one], 0.0)
        for look in first:
            answer(one, look, FAILED[Reason.UNREACHABLE], now=1.0)
        assert looks([one], 1.5) == []
        (probe,) = looks([one], 30.0)
        answer(one, probe, now=30.1)
        assert len(looks([one], 60.0)) == 3

    def test_a_failure_of_a_job_alone_closes_nothing(self):
        for reason in (Reason.NOT_FOUND, Reason.MALFORMED):
            one = target(jobs=2)
            first, second = looks([one], 0.0)
            answer(one, first, FAILED[reason])
            answer(one, second)
            assert one.has_room
            assert not one.failing

    def test_a_throttle_waits_and_halves_the_rate(self):
        one = target(jobs=40, requests_per_second=20)
        first = looks([one], 0.0)
        throttled = PollFailed(Reason.THROTTLED, retry_after=100.0)
        answer(one, first[0], throttled, now=1.0)
        for look in first[1:]:
            answer(one, look, now=1.0)
        assert looks([one], 100.9) == []
        assert one.next_send(2.0) == pytest.approx(101.0)


class TestAnswersThatDoNotCount:
    def test_of_a_job_watched_no_more(self):
        one = target()
        look = looks([one], 0.0)[0]
        one.forget(A)
        assert answer(one, look) is None
        assert one.due_at(A) is None
        assert one.in_flight == 0

    def test_of_an_earlier_watch_of_the_job(self):
        one = target()
        look = looks([one], 0.0)[0]
        one.forget(A)
        one.watch(JobRecord(A), 1.0)
        assert looks([one], 1.0) == [], "one request of a job at a time"
        assert answer(one, look, now=2.0) is None
        assert one.due_at(A) == 2.0
        (again,) = looks([one], 2.0)
        assert answer(one, again, now=2.1) == []

    def test_failures_at_a_door_that_is_closed(self):
        one = target()
        look = looks([one], 0.0)[0]
        one.reopen(FakeApi(), 1.0)
        assert answer(one, look, FAILED[Reason.UNREACHABLE], now=2.0) is None
        assert one.has_room
        (again,) = looks([one], 2.0)
        assert again.api is one.api

    def test_good_answers_of_an_earlier_door_do(self):
        one = target()
        look = looks([one], 0.0)[0]
        one.reopen(FakeApi(), 1.0)
        assert answer(one, look, now=2.0) == []


class TestLease:
    """From its end on nothing is sent and nothing counts, whatever was begun before."""

    def test_nothing_is_sent(self):
        one = target(2)
        one.held_until = 5.0
        assert looks([one], 5.0) == []
        assert next_release([one], 5.0) == math.inf
        assert len(looks([one], 4.9)) == 2

    def test_an_answer_that_comes_after_counts_for_nothing(self):
        one = target()
        (look,) = looks([one], 0.0)
        one.held_until = 5.0
        assert answer(one, look, now=5.0) is None

    def test_nor_does_a_page(self):
        one = target(1, mode=Mode.LIST, discover={})
        page = next(each for each in looks([one], 0.0) if isinstance(each, PageLook))
        one.held_until = 5.0
        row = Job("job-9", "PROCESSING")
        assert list(one.take_page(page, ListPage((row,), 1), {}, 5.0, 0.0)) == []
        assert one.discovered == frozenset()


class TestTakenOver:
    def test_first_looks_are_spread_over_one_interval(self):
        one = target(0, interval=10.0)
        known = [JobRecord(key, last_poll_at=1.0) for key in keys(5)]
        one.take_over(known, 100.0)
        assert [one.due_at(key) for key in keys(5)] == [100, 102, 104, 106, 108]
        assert one.attempted

    def test_or_over_what_the_rate_needs(self):
        one = target(0, interval=1.0, requests_per_second=1.0)
        known = [JobRecord(key, last_poll_at=1.0) for key in keys(5)]
        one.take_over(known, 100.0)
        assert [one.due_at(key) for key in keys(5)] == [100, 101, 102, 103, 104]

    def test_one_that_nobody_asked_yet_is_due_at_once_and_waited_for(self):
        one = target(0, interval=10.0)
        a, b, c = keys(3)
        finished = JobRecord(c, phase=Phase.SUCCEEDED, last_poll_at=1.0)
        one.take_over([JobRecord(a, last_poll_at=1.0), JobRecord(b), finished], 100.0)
        assert (one.due_at(a), one.due_at(b), one.due_at(c)) == (100, 100, None)
        assert not one.attempted


class TestAttempted:
    def test_by_an_answer_of_any_kind(self):
        one = target(jobs=2)
        first, second = looks([one], 0.0)
        answer(one, first)
        assert not one.attempted
        answer(one, second, FAILED[Reason.MALFORMED])
        assert one.attempted

    def test_by_a_target_that_holds_them_back(self):
        one = target(jobs=2, max_in_flight=1)
        answer(one, looks([one], 0.0)[0], FAILED[Reason.REJECTED])
        assert one.attempted

    def test_forgotten_jobs_are_not_waited_for(self):
        one = target(jobs=2)
        for key in keys(2):
            one.forget(key)
        assert one.attempted


class TestChanges:
    def test_another_manner_keeps_what_is_queued(self):
        one = target(jobs=3)
        for look in looks([one], 0.0):
            answer(one, look)
        due = [one.due_at(key) for key in keys(3)]
        one.change(Manner(interval=1.0, max_in_flight=1))
        assert [one.due_at(key) for key in keys(3)] == due
        assert len(looks([one], 10.0)) == 1

    def test_the_same_manner_keeps_the_listing(self):
        one = target(jobs=0, discover={"status": "PROCESSING"})
        asked = looks([one], 0.0)[0]
        one.change(Manner(mode=Mode.DETAIL, discover={"status": "PROCESSING"}))
        page = ListPage((Job("job-7", "PROCESSING"),), 1)
        assert list(one.take_page(asked, page, {}, 0.1, 0.0)) == []
        assert one.discovered == {keys(8)[7]}

    def test_another_door_is_asked_at_once_for_what_failed(self):
        one = target(jobs=2)
        first, second = looks([one], 0.0)
        answer(one, first, FAILED[Reason.REJECTED])
        answer(one, second)
        one.reopen(FakeApi(), 1.0)
        assert one.due_at(A) == 1.0
        assert one.due_at(keys(2)[1]) == pytest.approx(10.0)


class TestPages:
    def test_one_page_at_a_time_before_the_jobs(self):
        one = target(jobs=20, mode=Mode.LIST, max_in_flight=2)
        page, look = looks([one], 0.0)
        assert isinstance(page, PageLook)
        assert isinstance(look, Look)
        assert one.in_flight == 2

    def test_a_page_of_another_listing_is_dropped(self):
        one = target(jobs=0, discover={"status": "PROCESSING"})
        asked = looks([one], 0.0)[0]
        one.change(Manner(mode=Mode.DETAIL, discover={"status": "FINISHED"}))
        page = ListPage((Job("job-7", "FINISHED"),), 1)
        assert list(one.take_page(asked, page, {}, 0.1, 0.0)) == []
        assert one.discovered == frozenset()
        assert one.in_flight == 0

    def test_a_gone_job_that_is_listed_is_asked_once(self):
        one = target(jobs=0, mode=Mode.LIST)
        gone = JobRecord(A, phase=Phase.GONE)
        one.watch(gone, 0.0)
        one.watch(JobRecord(keys(2)[1]), 0.0)
        page = ListPage((Job("job-0", "PROCESSING"), Job("job-1", "PROCESSING")), 2)
        sent = []
        for now in (0.0, 10.0, 20.0):
            requests = looks([one], now)
            sent += [r.key for r in requests if isinstance(r, Look)]
            asked = next(r for r in requests if isinstance(r, PageLook))
            list(one.take_page(asked, page, {A: gone, keys(2)[1]: gone}, now, 0.0))
        assert one.running == 2
        assert sent == [keys(2)[1], A]


class TestSharedKeys:
    def pair(self, limit, jobs=9, **manner):
        def door():
            api = FakeApi()
            api.account, api.key_limit = "AK", limit
            return api

        return [target(jobs, name=name, api=door(), **manner) for name in "ab"]

    @pytest.mark.parametrize(("limit", "each"), [(1, (1, 0)), (2, (1, 1)), (5, (3, 2))])
    def test_the_key_sets_the_limit_and_each_gets_its_share(self, limit, each):
        pair = self.pair(limit, requests_per_second=1000)
        looks(pair, 0.0)
        assert tuple(one.in_flight for one in pair) == each

    def test_none_takes_the_last_place(self):
        first, second = self.pair(3, requests_per_second=1000)
        looks([first], 0.0)
        assert first.in_flight == 3, "alone it may"
        pair = first, second = self.pair(3, requests_per_second=1000)
        for key in keys(9, "b"):
            second.forget(key)
        looks(pair, 0.0)
        assert first.in_flight == 2
        assert key_is_full(first, pair)
        assert not key_is_full(second, pair)


def test_a_wrong_clock_is_said_on_the_edges():
    one = target()
    said = []
    for skew in (0, 61, 59, 31, 29, -61):
        one.api.clock_skew = float(skew)
        due = one.due_at(A)
        look = looks([one], due)[0]
        said += [n.event for n in answer(one, look, now=due) if n.event[:5] == "clock"]
    assert said == ["clock.skewed", "clock.agreed", "clock.skewed"]


ROWS = tuple(Job(key.job_id, "PROCESSING", updated_at=1.0) for key in keys(20))
PAGE = ListPage(ROWS, 20)


def sweep(one, now, page=PAGE, sent=None):
    """Answer the page that is due now, and add what else is sent; return what is said."""
    requests = looks([one], now)
    asked = next(each for each in requests if isinstance(each, PageLook))
    if sent is not None:
        sent += [each for each in requests if isinstance(each, Look)]
    known = {key: JobRecord(key) for key in keys(20)}
    return list(one.take_page(asked, page, known, now, 0.0))


def briefly(notices):
    return [
        (each.event, each.fields.get("mode") or each.fields.get("call"))
        for each in notices
    ]


def test_the_list_is_relied_on_once_it_has_shown_its_use_and_no_longer():
    one = target(jobs=20, mode=Mode.LIST, task_interval=100.0)
    assert briefly(sweep(one, 0.0)) == [("poll.mode", "list")]
    assert sweep(one, 10.0) == []
    refused = PollFailed(Reason.REJECTED, error_msg="no")
    assert briefly(sweep(one, 20.0, refused)) == [("poll.failing", "list")]
    assert briefly(sweep(one, 40.0, refused)) == [("poll.mode", "detail")]


class TestFailingList:
    def test_a_throttled_list_holds_no_look_back(self):
        one = target(jobs=20, mode=Mode.LIST, requests_per_second=100.0)
        slow = PollFailed(Reason.THROTTLED, retry_after=600.0)
        sent = []
        assert briefly(sweep(one, 0.0, slow, sent)) == [("poll.failing", "list")]
        assert len([*sent, *looks([one], 0.1)]) == 16, "as many as may be in flight"
        assert one.failing

    def test_its_outage_is_over_with_a_good_page(self):
        one = target(jobs=20, mode=Mode.LIST, max_in_flight=99)
        sweep(one, 0.0, FAILED[Reason.MALFORMED])
        assert briefly(sweep(one, 20.0)) == [
            ("poll.recovered", "list"),
            ("poll.mode", "list"),
        ]
        assert not one.failing

    def test_a_first_page_alone_ends_no_outage(self):
        one = target(jobs=20, mode=Mode.LIST, max_in_flight=99)
        sweep(one, 0.0, FAILED[Reason.THROTTLED])
        assert sweep(one, 20.0, ListPage(ROWS[:10], 20)) == []
        assert sweep(one, 21.0, FAILED[Reason.THROTTLED]) == []
        assert one.failing

    def test_its_outage_is_over_where_it_is_asked_no_more(self):
        one = target(jobs=1, mode=Mode.LIST)
        sent = []
        sweep(one, 0.0, FAILED[Reason.SERVER_ERROR], sent)
        (look,) = [*sent, *looks([one], 0.1)]
        ended = JobRecord(A, phase=Phase.SUCCEEDED, job=GOOD.job)
        assert briefly(answer(one, look, record=ended)) == [("poll.recovered", "list")]
        assert not one.failing


class TestTrust:
    """In list mode the look at single tasks is as far apart as the list has earned."""

    def relied_on(self, sent=None):
        one = target(
            jobs=20,
            mode=Mode.LIST,
            task_interval_max=600.0,
            max_in_flight=99,
            requests_per_second=1000.0,
        )
        sweep(one, 0.0, sent=sent)
        return one

    def look(self, one, now, moves, updated_at=None):
        due = next(one for one in looks([one], now) if isinstance(one, Look))
        job = Job(due.key.job_id, "PROCESSING", updated_at=updated_at)
        record = JobRecord(due.key, phase=Phase.ACTIVE, job=job, moves=moves)
        return answer(one, due, now=now, record=record)

    def test_a_lie_brings_the_looks_of_all_jobs_forward(self):
        sent = []
        one = self.relied_on(sent)
        one.resume(Trust(600.0))
        for number, look in enumerate([*sent, *looks([one], 0.1)]):
            answer(one, look, now=0.2, chance=number / 20)
        times = [one.due_at(key) for key in keys(20)]
        first = min(times)
        assert max(times) > 300
        for now in range(10, int(first), 10):
            sweep(one, float(now))
        said = self.look(one, first, moves=1, updated_at=1.0)
        assert [(n.event, n.fields["interval"]) for n in said] == [("poll.trust", 30.0)]
        assert max(one.due_at(key) for key in keys(20)) <= first + 30.0

    def test_another_manner_keeps_what_was_earned_within_its_bounds(self):
        one = self.relied_on()
        one.resume(Trust(240.0))
        one.change(Manner(mode=Mode.LIST, task_interval_max=120.0))
        assert one.trust.interval == 120.0

    def test_another_list_begins_afresh_and_that_is_said(self):
        one = self.relied_on()
        one.resume(Trust(240.0))
        one.reopen(FakeApi(), 5.0)
        said = [n for n in sweep(one, 5.0) if n.event == "poll.trust"]
        assert [n.fields["interval"] for n in said] == [30.0]


def test_good_answers_after_an_outage_bring_the_failed_jobs_forward():
    one = target(jobs=4, max_in_flight=1)
    now = 0.0
    for _ in range(4):
        now = max(next_release([one], now), now)
        (look,) = looks([one], now)
        answer(one, look, FAILED[Reason.UNREACHABLE], now=now)
    now = max(next_release([one], now), now)
    (look,) = looks([one], now)
    answer(one, look, snapshot("job-0"), now=now)
    due = [one.due_at(key) for key in keys(4) if key != look.key]
    assert all(at <= now + 10.0 for at in due)
