"""When the daemon ends by itself, and with which exit code."""

import pytest

from tests.fakes import keys
from watcher.core.model import JobRecord, Phase
from watcher.daemon.ending import Ending
from watcher.polling.board import Board
from watcher.settings.schema import Finished

A, B = keys(2)
WHEN_DONE = Finished(exit_when_done=True)


class Wishes:
    def __init__(self):
        self.codes = []

    def ask_for_end(self, exit_code=0):
        self.codes.append(exit_code)


def look(one, now=0.0, *, complete=True, scraped=False):
    one.look(now, complete=complete, scraped=scraped)


def test_not_before_all_that_there_is_to_watch_is_watched():
    one, board, wishes = ending(Phase.ACTIVE)
    board.show([JobRecord(A, phase=Phase.SUCCEEDED)])
    look(one, complete=False)
    assert wishes.codes == []
    look(one)
    assert wishes.codes == [0]


def ending(*phases, finished=WHEN_DONE):
    board, wishes = Board(), Wishes()
    board.show(
        JobRecord(key, phase=phase)
        for key, phase in zip(keys(len(phases)), phases, strict=True)
    )
    one = Ending(board, finished, wishes, served=set().__contains__)
    look(one)
    return one, board, wishes


@pytest.mark.parametrize(
    ("phases", "codes"),
    [
        ([], []),
        ([Phase.ACTIVE], []),
        ([Phase.SUCCEEDED, Phase.UNKNOWN], []),
        ([Phase.SUCCEEDED, Phase.SUCCEEDED], [0]),
        ([Phase.SUCCEEDED, Phase.FAILED], [1]),
        ([Phase.DELETED], [1]),
        ([Phase.GONE], [1]),
    ],
)
def test_the_end_comes_when_all_are_finished(phases, codes):
    _, _, wishes = ending(*phases)
    assert wishes.codes == codes


def test_not_where_it_is_not_wished():
    one, _, wishes = ending(Phase.FAILED, finished=Finished())
    assert wishes.codes == []
    assert one.exit_code == 0
    one.change(WHEN_DONE)
    look(one)
    assert wishes.codes == [1]


def test_a_signal_before_all_is_done_is_no_failure():
    one, _, _ = ending(Phase.FAILED, Phase.ACTIVE)
    assert one.exit_code == 0


def test_a_failed_job_that_has_left_is_not_forgotten():
    one, board, wishes = ending(Phase.FAILED, Phase.ACTIVE)
    board.drop([A])
    board.show([JobRecord(B, phase=Phase.SUCCEEDED)])
    look(one)
    assert wishes.codes == [1]


def test_a_job_that_failed_and_ran_again_is_judged_by_its_last_run():
    one, board, wishes = ending(Phase.FAILED, Phase.ACTIVE)
    for phase in (Phase.ACTIVE, Phase.SUCCEEDED):
        board.show([JobRecord(A, phase=phase), JobRecord(B, phase=phase)])
        look(one)
    assert wishes.codes == [0]


def test_retired_jobs_count():
    one, board, wishes = ending(Phase.FAILED, Phase.ACTIVE)
    board.retire([A])
    board.drop([B])
    look(one)
    assert wishes.codes == [1]


class TestLingering:
    """Where somebody scrapes, the last state waits to be seen."""

    def test_until_a_scrape_has_sent_it(self):
        one, _, wishes = ending(Phase.ACTIVE)
        seen = one._served.__self__
        one._board.show([JobRecord(A, phase=Phase.SUCCEEDED)])
        for now in (0.0, 30.0):
            look(one, now, scraped=True)
            assert wishes.codes == []
        seen.add(A)
        look(one, 31.0, scraped=True)
        assert wishes.codes == [0]

    def test_no_longer_than_it_may(self):
        one, _, wishes = ending(Phase.ACTIVE)
        one._board.show([JobRecord(A, phase=Phase.FAILED)])
        look(one, 100.0, scraped=True)
        look(one, 159.9, scraped=True)
        assert wishes.codes == []
        look(one, 160.0, scraped=True)
        assert wishes.codes == [1]

    def test_the_time_begins_anew_where_a_job_runs_again(self):
        one, board, wishes = ending(Phase.ACTIVE)
        for now, phase in [
            (0, Phase.SUCCEEDED),
            (59, Phase.ACTIVE),
            (60, Phase.SUCCEEDED),
        ]:
            board.show([JobRecord(A, phase=phase)])
            look(one, float(now), scraped=True)
        assert wishes.codes == []
