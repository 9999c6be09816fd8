"""What a sweep over the pages tells, and when the list is given up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.core.errors import Reason
from watcher.core.listing import (
    GIVEN_UP_FOR,
    MOST_PAGES,
    MOST_ROWS,
    Listing,
    Mode,
    Sweep,
)
from watcher.core.model import Job, ListPage, PollFailed


def page(ids, total=None, **changes):
    rows = tuple(
        Job(each, "PROCESSING", 0, updated_at=1.0)
        if each not in changes
        else changes[each]
        for each in ids
    )
    return ListPage(rows, total)


def running(ids):
    return {each: Job(each, "PROCESSING", 0) for each in ids}


REJECTED = PollFailed(Reason.REJECTED, 403, error_msg="no")


def listing(mode=Mode.LIST, task_interval=30.0, discover=None):
    return Listing(mode, interval=10.0, task_interval=task_interval, discover=discover)


class TestSweep:
    def test_pages_up_to_the_total(self):
        sweep = Sweep()
        for ids, offset in [("abc", 0), ("def", 3), ("g", 6)]:
            assert sweep.offset == offset
            assert not sweep.over
            sweep.take(page(ids, 7))
        assert (sweep.over, sweep.complete, sweep.pages) == (True, True, 3)
        assert set(sweep.rows) == set("abcdefg")

    def test_a_server_that_ignores_paging_is_found_out_at_the_second_page(self):
        sweep = Sweep()
        sweep.take(page("abc", 30))
        sweep.take(page("abc", 30))
        assert (sweep.over, sweep.complete) == (True, False)

    def test_an_empty_list_is_complete(self):
        sweep = Sweep()
        sweep.take(page("", 0))
        assert sweep.complete

    def test_without_a_total_an_empty_page_ends_it(self):
        sweep = Sweep()
        sweep.take(page("abc"))
        assert not sweep.over
        sweep.take(page(""))
        assert sweep.complete

    def test_it_has_an_end(self):
        sweep = Sweep()
        for number in range(MOST_PAGES):
            sweep.take(page([str(number)], 10**9))
        assert (sweep.over, sweep.complete) == (True, False)

    @given(
        st.lists(
            st.tuples(st.text("abcdef", max_size=4), st.none() | st.integers(0, 9)),
            min_size=1,
        )
    )
    def test_any_pages_end_or_bring_something_new(self, pages):
        sweep = Sweep()
        for ids, total in pages:
            before = len(sweep.rows)
            sweep.take(page(ids, total))
            if sweep.over:
                return
            assert len(sweep.rows) > before


class TestMoved:
    def sweep(self, known, ids, jobs, **changes):
        known.due_at = 0.0
        return set(known.take(page(ids, len(ids), **changes), running(jobs), 0.0))

    def test_only_what_moved_is_asked_for(self):
        known = listing()
        assert self.sweep(known, "abcd", "abcd") == set()
        assert self.sweep(known, "abcd", "abcd") == set()
        moved = {
            "a": Job("a", "PROCESSING", 1, updated_at=1.0),
            "b": Job("b", "PROCESSING", 0, updated_at=2.0),
            "c": Job("c", "FINISHED", 0, updated_at=1.0),
        }
        assert self.sweep(known, "abcd", "abcd", **moved) == set("abc")
        assert self.sweep(known, "abcd", "abcd", **moved) == {"c"}, "until it agrees"

    def test_a_first_row_that_is_younger_than_the_job_is_asked_for(self):
        jobs = {
            "a": Job("a", "PROCESSING", 0, updated_at=0.5),
            "b": Job("b", "PROCESSING", 0, updated_at=1.0),
        }
        assert listing().take(page("ab", 2), jobs, 0.0) == ["a"]

    def test_absent_jobs_are_asked_for_each_time(self):
        known = listing()
        for _ in range(3):
            assert self.sweep(known, "abc", "abcd") == {"d"}

    def test_a_first_row_is_compared_with_what_the_job_itself_said(self):
        moved = {"a": Job("a", "PROCESSING", 2, updated_at=1.0)}
        assert self.sweep(listing(), "ab", "ab", **moved) == {"a"}

    def test_a_job_that_was_never_asked_stays_due(self):
        rows = listing().take(page("a", 1), {"a": None}, 0.0)
        assert rows == ["a"]


class TestWorth:
    @pytest.mark.parametrize(
        ("jobs", "task_interval", "wanted"),
        [
            (1, 30, False),
            (5, 30, False),
            (6, 30, True),
            (3, 1e6, True),
            (100, 10, False),
            (10_000, 30, True),
        ],
    )
    def test_auto_asks_where_it_may_save_half(self, jobs, task_interval, wanted):
        assert listing(Mode.AUTO, task_interval).wanted(jobs, 0.0) is wanted

    def test_auto_relies_on_it_once_the_pages_are_known(self):
        known = listing(Mode.AUTO)
        known.take(page("abcdef", 6), running("abcdef"), 0.0)
        assert (known.active, known.reason) == (True, "1 pages for 6 jobs")

    def test_auto_asks_until_a_sweep_has_shown_that_too_few_are_left(self):
        known = listing(Mode.AUTO)
        known.take(page("abcdef", 6), running("abcdef"), 0.0)
        assert known.wanted(2, 10.0)
        known.take(page("ab", 2), running("ab"), 10.0)
        assert not known.active
        assert not known.wanted(2, 20.0)
        assert known.wanted(6, 20.0), "more jobs may come at any time"

    def test_auto_gives_up_where_the_pages_are_too_many(self):
        known = listing(Mode.AUTO)
        for ids in ("abc", "def"):
            known.take(page(ids, 6), running("abcdef"), 0.0)
        assert not known.active
        assert not known.wanted(6, GIVEN_UP_FOR - 1)
        assert known.wanted(6, GIVEN_UP_FOR + 1)

    def test_the_operators_word_counts_more_than_the_arithmetic(self):
        known = listing(Mode.LIST)
        known.take(page("ab", 2), running("ab"), 0.0)
        assert known.active
        assert not listing(Mode.DETAIL).wanted(10_000, 0.0)

    def test_nothing_to_ask_without_jobs(self):
        assert not listing(Mode.LIST).wanted(0, 0.0)

    def test_sweeps_begin_an_interval_apart_however_long_they_take(self):
        known = listing()
        known.take(page("ab", 3), running("abc"), 100.0)
        known.take(page("c", 3), running("abc"), 103.0)
        assert known.due_at == 110.0
        known.take(page("ab", 3), running("abc"), 110.0)
        known.take(page("c", 3), running("abc"), 125.0)
        assert known.due_at == 125.0

    def test_not_before_it_is_due(self):
        known = listing()
        known.take(page("ab", 2), running("ab"), 100.0)
        assert not known.wanted(2, 109.9)
        assert known.wanted(2, 110.0)


class TestGivenUp:
    def test_a_short_list_is_given_up_at_once(self):
        known = listing()
        for _ in range(2):
            known.take(page("ab", 9), running("abcdefghi"), 0.0)
        assert not known.active
        assert known.reason == "the list shows 2 of 9 watched jobs"
        assert not known.wanted(9, 100.0)

    def test_a_list_that_is_silent_about_the_watched_jobs_gets_a_second_chance(self):
        known = listing()
        known.take(page("xyz", 3), running("abc"), 0.0)
        assert known.wanted(3, 10.0)
        known.take(page("xyz", 3), running("abc"), 10.0)
        assert not known.wanted(3, 20.0)

    def test_another_list_is_tried_at_once(self):
        known = listing()
        known.take(page("a", 9), running("abcdefghi"), 0.0)
        known.take(page("a", 9), running("abcdefghi"), 0.0)
        assert not known.wanted(9, 100.0)
        known.begin_afresh(100.0)
        assert known.wanted(9, 100.0)
        assert known.page[1] == 0

    def test_so_does_one_that_fails(self):
        known = listing()
        known.take(page("ab", 2), running("ab"), 0.0)
        known.failed(REJECTED, 10.0)
        assert known.active
        known.failed(REJECTED, 30.0)
        assert not known.active
        assert known.reason == "the list call fails: rejected: no"
        assert not known.wanted(2, 30.0 + GIVEN_UP_FOR - 1)
        assert known.wanted(2, 30.0 + GIVEN_UP_FOR)

    def test_one_that_fails_is_asked_ever_more_seldom(self):
        known = listing(discover={"type": "T"})
        pauses = []
        for _ in range(4):
            known.failed(REJECTED, 1000.0)
            pauses.append((known.due_at - 1000.0) / 10.0)
        assert pauses == [2, 4, 8, 16]

    def test_discovery_goes_on_with_it_and_keeps_what_was_found(self):
        known = listing(Mode.DETAIL, discover={"type": "T"})
        assert known.filters == {"type": "T"}
        known.take(page("ab", 2), {}, 0.0)
        assert set(known.found) == {"a", "b"}
        for _ in range(5):
            known.failed(REJECTED, 10.0)
        assert set(known.found) == {"a", "b"}
        assert known.wanted(0, 10_000.0)
        assert not known.active


class TestFailing:
    """The list waits by itself: nothing of it tells when a job may be asked."""

    @pytest.mark.parametrize(
        "reason", [Reason.THROTTLED, Reason.UNREACHABLE, Reason.SERVER_ERROR]
    )
    def test_what_passes_is_tried_again_after_each_pause_and_believed_again(
        self, reason
    ):
        known, pauses, now = listing(), [], 0.0
        known.take(page("ab", 2), running("ab"), now)
        for _ in range(7):
            now = known.due_at
            assert known.wanted(2, now)
            known.failed(PollFailed(reason, error_msg="slow"), now)
            pauses.append(known.due_at - now)
        assert pauses == [20, 40, 80, 160, 320, 600, 600]
        assert not known.active
        assert known.reason == f"the list call fails: {reason}: slow"
        known.take(page("ab", 2), running("ab"), known.due_at)
        assert known.active
        known.failed(PollFailed(reason), 2000.0)
        assert known.active, "counted from the beginning"

    def test_one_that_never_gets_to_its_end_is_given_up_too(self):
        known = listing()
        known.take(page("abcd", 4), running("abcd"), 0.0)
        for _ in range(2):
            assert known.active
            known.take(page("ab", 4), running("abcd"), known.due_at)
            known.failed(PollFailed(Reason.THROTTLED), known.due_at)
            assert known.is_failing
        assert not known.active
        known.take(page("abcd", 4), running("abcd"), known.due_at)
        assert known.active
        assert not known.is_failing

    def test_it_waits_as_long_as_it_was_asked_to(self):
        known = listing()
        known.failed(PollFailed(Reason.THROTTLED, retry_after=90.0), 10.0)
        assert known.due_at == 100.0

    def test_a_long_interval_waits_at_most_twice_its_length(self):
        known = Listing(Mode.LIST, interval=600.0, task_interval=30.0)
        for _ in range(9):
            known.failed(REJECTED, 0.0)
        assert known.due_at == 1200.0


class TestDiscovered:
    """What is found is what can be asked for, and no more than is wanted."""

    def find(self, known, ids, watched=(), total=None):
        known.take(
            page(ids, total or len(ids)), {}, known.due_at, watched=lambda: watched
        )
        return set(known.found)

    def test_ids_that_cannot_be_asked_for_are_dropped(self):
        ids = ["good-1", "no good", "../x", "", "templates", "a" * 65, "x\n"]
        assert self.find(listing(discover={}), ids) == {"good-1"}
        assert self.find(listing(), ids) == {"good-1"}

    def test_they_count_all_the_same_for_the_pages(self):
        known = listing(discover={})
        known.take(page(["?", "!"], 3), {}, 0.0)
        assert known.page[1] == 2
        known.take(page("a", 3), {}, 0.0)
        assert set(known.found) == {"a"}

    def test_no_more_are_found_than_there_is_room_for(self):
        known = Listing(
            Mode.LIST,
            target="prod",
            interval=10.0,
            task_interval=30.0,
            discover={},
            max_jobs=3,
        )
        assert self.find(known, "ab") == {"a", "b"}
        assert known.notices() == []
        found = self.find(known, "abcd", watched={"a", "b"})
        assert found == {"a", "b", "c"}
        (notice,) = known.notices()
        assert (notice.event, notice.level) == ("jobs.full", "warning")
        assert notice.fields == {"target": "prod", "max_jobs": 3}
        assert self.find(known, "abcd", watched={"a", "b", "c"}) == {"a", "b", "c"}
        assert known.notices() == [], "told on the edge"
        # Finished jobs that are still watched take their places until they leave.
        assert self.find(known, "def", watched={"a", "b", "c"}) == set()
        assert self.find(known, "def", watched={"f"}) == {"d", "e", "f"}
        assert known.notices() == []
        assert self.find(known, "defg", watched={"f"}) == {"d", "e", "f"}
        assert len(known.notices()) == 1, "there was room meanwhile"

    def test_a_list_without_an_end_is_read_as_far_as_it_is_wanted(self):
        known = Listing(
            Mode.LIST, interval=10.0, task_interval=30.0, discover={}, max_jobs=3000
        )
        for number in range(3):
            assert known.page[1] == number * 1000
            assert not known.found
            known.take(
                page(map(str, range(number * 1000, number * 1000 + 1000)), 10**12),
                {},
                0.0,
            )
        assert len(known.found) == 3000
        assert [notice.event for notice in known.notices()] == ["jobs.full"]
        assert known.page[1] == 0

    def test_without_discovery_too_it_has_an_end(self):
        sweep = Sweep()
        sweep.take(page(map(str, range(MOST_ROWS)), 10**12))
        assert (sweep.over, sweep.complete) == (True, False)
        known = listing(discover={})
        jobs = [str(number) for number in range(11_000)]
        known.take(page(jobs[:10_500], 11_000), running(jobs), 0.0)
        assert known.page[1] == 10_500, "as many as are watched are read in any case"
