"""Which targets are in force after which settings."""

import pytest

from tests.fakes import FakeApi, keys
from watcher.core.errors import SettingsError
from watcher.core.listing import Mode
from watcher.core.model import JobRecord
from watcher.daemon.fleet import Fleet
from watcher.polling.target import Manner
from watcher.settings.schema import Poll, Target

HERE = "http://127.0.0.1:9"


def settings(**more):
    return Target(endpoint=HERE, project_id="p", **more)


class Doors:
    def __init__(self):
        self.opened = []

    def open(self, name, target, _):
        if target.ca_file:
            raise SettingsError([f"targets.{name}.ca_file: not there"])
        self.opened.append(name)
        return FakeApi()


@pytest.fixture
def doors():
    return Doors()


def put(fleet, targets, poll=None, now=0.0):
    fleet.put_in_force(fleet.plan(targets, poll or Poll()), now)


def test_settings_become_targets_and_their_manner(doors):
    fleet = Fleet(doors.open)
    put(fleet, {"a": settings(), "b": settings(discover={"type": "X"})})
    assert list(fleet.targets) == ["a", "b"]
    assert fleet.targets["a"].manner == Manner(mode=Mode.AUTO)
    assert fleet.targets["b"].manner.discover == {"status": "PROCESSING", "type": "X"}
    assert fleet.doors == {name: fleet.targets[name].api for name in "ab"}


def test_what_stays_keeps_its_door_and_its_jobs(doors):
    fleet = Fleet(doors.open)
    put(fleet, {"a": settings(), "b": settings()})
    kept = fleet.targets["a"]
    kept.watch(JobRecord(keys(1, "a")[0]), 7.0)
    put(fleet, {"a": settings(jobs=["new"]), "c": settings()})
    assert fleet.targets.keys() == {"a", "c"}
    assert fleet.targets["a"] is kept
    assert fleet.due_at(keys(1, "a")[0]) == 7.0
    assert fleet.due_at(keys(1, "b")[0]) is None
    assert doors.opened == ["a", "b", "c"]


def test_another_way_is_another_door_for_the_same_target(doors):
    fleet = Fleet(doors.open)
    put(fleet, {"a": settings()})
    kept, door = fleet.targets["a"], fleet.targets["a"].api
    put(fleet, {"a": settings(region="cn-north-4")})
    assert fleet.targets["a"] is kept
    assert kept.api is not door
    door = kept.api
    put(fleet, {"a": settings(region="cn-north-4")}, Poll(timeout=3))
    assert kept.api is not door
    assert len(doors.opened) == 3


def test_another_manner_needs_no_other_door(doors):
    fleet = Fleet(doors.open)
    put(fleet, {"a": settings()})
    put(fleet, {"a": settings()}, Poll(interval=3, max_in_flight=2))
    assert fleet.targets["a"].manner.interval == 3
    assert fleet.targets["a"].manner.max_in_flight == 2
    assert doors.opened == ["a"]


def test_what_cannot_be_asked_changes_nothing(doors):
    fleet = Fleet(doors.open)
    put(fleet, {"a": settings()})
    with pytest.raises(SettingsError):
        fleet.plan({"a": settings(), "b": settings(ca_file="/nowhere")}, Poll())
    assert list(fleet.targets) == ["a"]
