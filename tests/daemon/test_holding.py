"""What is relied on ends by the time alone."""

import math

import pytest

from watcher.core.errors import LeaseLost
from watcher.daemon.holding import Holding

UNITS = {"a": "k1", "b": "k1", "c": "k2"}


class At:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def at():
    return At()


@pytest.fixture
def holding(at):
    holding = Holding("me", at)
    holding.units = UNITS
    holding.take({"k1": 3, "k2": 1}, 14.0)
    return holding


def test_after_a_stop_of_the_process_nothing_is_held(holding, at):
    assert holding.targets() == {"a", "b", "c"}
    assert holding.fence().units_of(["a", "c"]) == {"k1", "k2"}
    at.now = 14.0
    assert holding.targets() == frozenset()
    assert holding.ended == {"k1", "k2"}
    with pytest.raises(LeaseLost):
        holding.fence().units_of(["a"])


def test_a_renewal_goes_by_the_epoch(holding, at):
    assert holding.extend({"k1": 3, "k2": 2}, 20.0) == {"k2"}
    at.now = 15.0
    assert holding.until("a") == 20.0
    assert holding.targets() == {"a", "b"}


def test_what_is_given_back_is_asked_no_more_and_still_committed(holding):
    holding.leave("k1")
    assert holding.targets() == {"c"}
    assert holding.until("a") == -math.inf
    assert holding.fence().units_of(["a"]) == {"k1"}
    holding.drop(["k1"])
    assert holding.held == {"k2": 1}


def test_what_a_commit_found_lost_is_held_no_more(holding):
    holding.lose(["k2", "another"])
    assert holding.lost.is_set()
    assert holding.targets() == {"a", "b"}
    assert holding.ended == {"k2"}


def test_a_target_that_no_settings_name_is_nobody_s(holding):
    assert holding.until("nowhere") == -math.inf
    assert holding.targets_of(["k1"]) == {"a", "b"}
    assert holding.next_end == 14.0
