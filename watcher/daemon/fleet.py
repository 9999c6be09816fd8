"""The targets in force: which there are, through which doors, asked in which manner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from watcher.core.listing import MOST_JOBS
from watcher.core.model import JobKey
from watcher.polling.target import Manner, Target
from watcher.ports import JobApi
from watcher.settings import schema as given

OpenDoor = Callable[[str, given.Target, float], JobApi]
"""Opens the API of a target: its name, its settings, seconds for one request."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Targets that can be put in force.

    Attributes:
        targets: Settings by name.
        poll: How they are asked.
        doors: The APIs of those that are new or are to be asked through another door.
    """

    targets: Mapping[str, given.Target] = field(default_factory=dict)
    poll: given.Poll = field(default_factory=given.Poll)
    doors: Mapping[str, JobApi] = field(default_factory=dict)


class Fleet:
    """Every target in force.

    Attributes:
        targets: By name; changed in place.
    """

    def __init__(
        self, open_door: OpenDoor, until: Callable[[str], float] = lambda _: math.inf
    ) -> None:
        """Make a fleet without targets.

        Args:
            open_door: Opens the API of a target.
            until: Until when a target may be asked, monotonic seconds: while its lease
                is held. One that may not is not in force.
        """
        self.targets: dict[str, Target] = {}
        self._open_door = open_door
        self._until = until
        self._in_force = Plan()
        self._doors: dict[str, JobApi] = {}

    @property
    def settings(self) -> Mapping[str, given.Target]:
        """The settings of every target that they name, asked by this replica or not."""
        return self._in_force.targets

    @property
    def doors(self) -> Mapping[str, JobApi]:
        """The API of each target."""
        return {name: target.api for name, target in self.targets.items()}

    def manners(self) -> Mapping[str, Mapping[str, object]]:
        """Return how each target is asked, as far as it is shown."""
        return {
            name: {
                "interval_seconds": target.manner.interval,
                "task_interval_seconds": target.manner.task_interval,
                "requests_per_second": target.manner.requests_per_second,
                "mode": target.manner.mode,
                "in_flight": target.in_flight,
                "running": target.running,
            }
            for name, target in self.targets.items()
        }

    def plan(self, targets: Mapping[str, given.Target], poll: given.Poll) -> Plan:
        """Open what is new or is asked through another door; changes nothing.

        Raises:
            SettingsError: A target cannot be asked.
        """
        doors = {
            name: self._open_door(name, target, poll.timeout)
            for name, target in targets.items()
            if self._door_of(name) != (_way(target), poll.timeout)
        }
        return Plan(targets, poll, doors)

    def put_in_force(self, plan: Plan, now: float) -> None:
        """Ask as planned; kept targets keep their jobs, their state and their times."""
        self._in_force = plan
        self._doors = {
            name: plan.doors.get(name) or self._doors[name] for name in plan.targets
        }
        self.follow(now)

    def follow(self, now: float) -> None:
        """Ask those targets whose leases are held now, and no other."""
        plan = self._in_force
        held = {name for name in plan.targets if self._until(name) > now}
        for name in self.targets.keys() - held:
            del self.targets[name]
        for name, settings in plan.targets.items():
            if name not in held:
                continue
            manner, door = _manner(settings, plan.poll), self._doors[name]
            target = self.targets.get(name)
            if target is None:
                target = self.targets[name] = Target(name, door, manner)
            elif target.api is not door:
                target.reopen(door, now)
            target.change(manner)
            target.held_until = self._until(name)

    def due_at(self, key: JobKey) -> float | None:
        """Return when a job is asked next, monotonic seconds; None: no time is set."""
        target = self.targets.get(key.target)
        return target.due_at(key) if target else None

    def _door_of(self, name: str) -> tuple[dict[str, object], float] | None:
        if name not in self._in_force.targets:
            return None
        return _way(self._in_force.targets[name]), self._in_force.poll.timeout


def _way(target: given.Target) -> dict[str, object]:
    """Return what a target's API depends on."""
    return target.model_dump(exclude={"jobs", "job_files", "discover"})


def _manner(target: given.Target, poll: given.Poll) -> Manner:
    found = target.discover
    return Manner(
        interval=poll.interval,
        backoff_max=poll.backoff_max,
        task_interval=poll.task_interval,
        task_interval_max=poll.task_interval_max,
        requests_per_second=poll.requests_per_second,
        max_in_flight=poll.max_in_flight,
        mode=poll.mode,
        discover=found.filters if found else None,
        max_jobs=found.max_jobs if found else MOST_JOBS,
    )
