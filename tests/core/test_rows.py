"""What the rows of a list prove, one look and one sweep after the other."""

import pytest

from watcher.core.listing import Listing, Mode
from watcher.core.model import Job, JobKey, JobRecord, ListPage
from watcher.core.rows import Rows

RUNS = {"a": Job("a", "PROCESSING", 0, updated_at=1.0)}


def row(updated_at=1.0, status="PROCESSING", count=0):
    return {"a": Job("a", status, count, updated_at=updated_at)}


def look(rows, at, *, moved=True, updated_at=None, until=None):
    """Look at the job at this time, a task of which had moved or not."""
    job = Job("a", "PROCESSING", updated_at=updated_at)
    record = JobRecord(JobKey("prod", "a"), job=job, moves=round(at) if moved else 0)
    return rows.looked(record, at, at if until is None else until)


@pytest.fixture
def rows():
    """Rows that were swept at 10 and looked at 11."""
    made = Rows()
    made.swept(row(), RUNS, 10.0)
    look(made, 11.0, moved=False)
    return made


def test_a_row_that_had_moved_told(rows):
    assert rows.swept(row(2.0), RUNS, 20.0) == ["a"]
    assert look(rows, 21.0) is True


def test_a_look_without_a_move_proves_nothing(rows):
    rows.swept(row(2.0), RUNS, 20.0)
    assert look(rows, 21.0, moved=False) is None
    assert list(rows.settle(99.0)) == []


def test_a_row_that_moves_with_the_next_sweep_told(rows):
    assert look(rows, 15.0) is None
    rows.swept(row(2.0), RUNS, 20.0)
    assert list(rows.settle(18.0)) == [True]
    assert list(rows.settle(28.0)) == []


def test_a_row_that_stays_did_not_tell(rows):
    assert look(rows, 15.0) is None
    rows.swept(row(), RUNS, 20.0)
    assert list(rows.settle(18.0)) == [False]


def test_only_a_sweep_that_began_after_the_look_proves_that(rows):
    assert look(rows, 15.0, until=17.0) is None
    rows.swept(row(), RUNS, 20.0)
    assert list(rows.settle(16.0)) == []
    rows.swept(row(2.0), RUNS, 30.0)
    assert list(rows.settle(28.0)) == [True]


def test_the_listing_counts_from_when_the_first_page_was_asked_for():
    listing = Listing(Mode.LIST, interval=10.0, task_interval=30.0)
    page = ListPage(tuple(row().values()), 1)
    listing.take(page, RUNS, 10.0, sent_at=9.0)
    for at in (11.0, 15.0):
        listing.looked(JobRecord(JobKey("prod", "a"), moves=round(at)), at, at + 2)
    listing.take(page, RUNS, 20.0, sent_at=16.0)
    assert listing.trust.misses == 0
    listing.take(page, RUNS, 30.0, sent_at=29.0)
    assert listing.trust.misses == 1


def test_a_job_whose_own_time_stays_needs_no_sweep(rows):
    assert look(rows, 15.0, updated_at=1.0) is False
    assert list(rows.settle(99.0)) == []


def test_one_whose_own_time_moved_waits_for_the_sweep(rows):
    assert look(rows, 15.0, updated_at=2.0) is None


def test_a_row_that_left_told(rows):
    assert rows.swept({}, RUNS, 20.0) == ["a"]
    assert look(rows, 21.0) is True


def test_a_row_that_never_was_there_proves_nothing():
    rows = Rows()
    for at in (10.0, 20.0):
        assert rows.swept({}, RUNS, at) == ["a"]
        assert look(rows, at + 1) is None
    assert list(rows.settle(99.0)) == []


def test_a_first_look_proves_nothing():
    rows = Rows()
    assert look(rows, 5.0) is None, "no row yet"
    rows = Rows()
    rows.swept(row(), RUNS, 10.0)
    assert look(rows, 11.0) is None
    assert list(rows.settle(99.0)) == []


def test_a_first_row_that_differs_from_the_job_had_moved():
    rows = Rows()
    look(rows, 5.0, moved=False)
    assert rows.swept(row(2.0), RUNS, 10.0) == ["a"]
    assert look(rows, 11.0) is True


def test_what_is_not_watched_any_more_is_forgotten(rows):
    look(rows, 15.0)
    assert rows.swept(row(2.0), {}, 20.0) == []
    assert list(rows.settle(99.0)) == []
    rows.swept(row(3.0), RUNS, 30.0)
    assert look(rows, 31.0) is None
