"""What this replica holds, and until when it may rely on it.

Nothing here waits. Who sends, commits or delivers asks at that moment: a process that was
stopped and goes on finds by the time alone that what it held is another's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import anyio

from watcher.ports import Fence


@dataclass(slots=True)
class _Lease:
    epoch: int
    until: float
    leaving: bool = False


class Holding:
    """The leases of one replica.

    Attributes:
        owner: Name of the replica.
        units: The unit of each target in the settings in force.
        lost: Set once something was lost; whoever follows replaces it.
    """

    def __init__(
        self, owner: str, clock: Callable[[], float] = anyio.current_time
    ) -> None:
        """Hold nothing.

        Args:
            owner: Name of the replica.
            clock: Monotonic seconds.
        """
        self.owner = owner
        self.units: Mapping[str, str] = {}
        self.lost = anyio.Event()
        self._clock = clock
        self._held: dict[str, _Lease] = {}

    @property
    def held(self) -> Mapping[str, int]:
        """The epoch of each unit that is held now, one that is being given back too."""
        now = self._clock()
        return {u: lease.epoch for u, lease in self._held.items() if lease.until > now}

    @property
    def ended(self) -> frozenset[str]:
        """Units that ran out and were not taken note of yet."""
        return frozenset(self._held.keys() - self.held.keys())

    @property
    def next_end(self) -> float:
        """When the first of them runs out, monotonic seconds; infinity: none is held."""
        return min((lease.until for lease in self._held.values()), default=math.inf)

    @property
    def all_units(self) -> frozenset[str]:
        """Every unit of the settings in force, whosever it is."""
        return frozenset(self.units.values())

    def fence(self) -> Fence:
        """Return under what to commit now."""
        return Fence(self.owner, self.held, self.units)

    def until(self, target: str) -> float:
        """Return until when a target may be asked, monotonic seconds."""
        lease = self._held.get(self.units.get(target, ""))
        return -math.inf if lease is None or lease.leaving else lease.until

    def targets(self) -> frozenset[str]:
        """Return those that are asked and told of now."""
        now = self._clock()
        return frozenset(name for name in self.units if self.until(name) > now)

    def targets_of(self, units: Collection[str]) -> frozenset[str]:
        """Return those of some units."""
        return frozenset(name for name, unit in self.units.items() if unit in units)

    def extend(self, epochs: Mapping[str, int], until: float) -> frozenset[str]:
        """Take note of a renewal.

        Args:
            epochs: What is still held, by unit.
            until: To when.

        Returns:
            Units that are not held any more.
        """
        gone = {u for u, lease in self._held.items() if epochs.get(u) != lease.epoch}
        for unit, lease in self._held.items():
            if unit not in gone:
                lease.until = until
        return frozenset(gone)

    def take(self, epochs: Mapping[str, int], until: float) -> None:
        """Hold these from now on."""
        self._held.update({u: _Lease(epoch, until) for u, epoch in epochs.items()})

    def leave(self, unit: str) -> None:
        """Ask and tell no more of a unit; what is known of it can still be committed."""
        self._held[unit].leaving = True

    def drop(self, units: Collection[str]) -> None:
        """Hold these no more."""
        for unit in units:
            self._held.pop(unit, None)

    def lose(self, units: Collection[str]) -> None:
        """Take note that these are another's, so that a commit was refused."""
        for unit in units:
            if unit in self._held:
                self._held[unit].until = -math.inf
        self.lost.set()
