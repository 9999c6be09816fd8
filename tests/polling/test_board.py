"""The board: what changed since when, for readers of any speed."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import keys
from watcher.core.model import JobRecord, Phase
from watcher.polling import board as module
from watcher.polling.board import Board

A, B, C = keys(3)


def shown(*some):
    return [JobRecord(key) for key in some]


def test_what_changed_since_a_version():
    board = Board()
    board.show(shown(A, B))
    seen = board.version
    assert list(board.changed_since(0)) == [A, B]
    assert list(board.changed_since(seen)) == []
    board.show(shown(C))
    board.show(shown(A))
    assert list(board.changed_since(seen)) == [C, A]
    assert board.version_of(A) == board.version
    assert board.version_of(B) <= seen


def test_what_went_is_a_change_too():
    board = Board()
    board.show(shown(A, B))
    seen = board.version
    board.drop([A, C])
    assert list(board.changed_since(seen)) == [A]
    assert set(board.records) == {B}
    board.show(shown(A))
    assert list(board.changed_since(seen)) == [A]
    assert set(board.records) == {A, B}


def test_what_went_long_ago_is_forgotten_and_that_is_said(monkeypatch):
    monkeypatch.setattr(module, "MOST_DROPPED", 1)
    board = Board()
    board.show(shown(A, B, C))
    seen = board.version
    board.drop([A])
    assert list(board.changed_since(seen)) == [A]
    board.drop([B])
    assert board.changed_since(seen) is None
    assert list(board.changed_since(board.version)) == []


def test_retired_jobs_are_watched_and_not_shown():
    board = Board()
    board.show([JobRecord(A, phase=Phase.FAILED), JobRecord(B)])
    board.retire([A])
    assert set(board.records) == {B}
    assert board.watched == {A, B}
    assert sorted(board.phases) == [Phase.FAILED, Phase.UNKNOWN]
    board.drop([A])
    assert board.watched == {B}
    board.retire([])
    board.show([JobRecord(A)])
    assert board.retired == {}


@pytest.mark.looptime
async def test_waiting_for_a_change():
    board = Board()
    board.show(shown(A))
    await board.changed(0)
    seen = []

    async def wait(version):
        await board.changed(version)
        seen.append(board.version)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, board.version)
        await anyio.sleep(1)
        assert seen == []
        board.show([])
        await anyio.sleep(1)
        assert seen == []
        board.show(shown(B))
    assert seen == [2]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["show", "drop", "retire", "look"]), st.integers(0, 5)
        )
    )
)
def test_a_reader_that_follows_has_what_the_board_has(steps):
    board, copy, version = Board(), {}, 0
    jobs = keys(6)
    for act, number in steps:
        match act:
            case "show":
                board.show([JobRecord(jobs[number], failures=board.version)])
            case "drop":
                board.drop([jobs[number]])
            case "retire" if jobs[number] in board.records:
                board.retire([jobs[number]])
            case "look":
                for key in board.changed_since(version):
                    copy.pop(key, None)
                    if key in board.records:
                        copy[key] = board.records[key]
                version = board.version
                assert copy == board.records
