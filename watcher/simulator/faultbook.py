"""The faults in force: which of them happens on which request."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from watcher.simulator.faults import ALL_PERCENT, Fault, parse_faults


@dataclass(slots=True)
class Rule:
    """A fault in force.

    Attributes:
        seen: Requests so far that were the rule's own.
        applied: Those on which it took effect.
    """

    fault: Fault
    chance: random.Random
    seen: int = 0
    applied: int = 0

    def wants(self, call: str, job_id: str | None, real: float, now: float) -> bool:
        """Count a request and tell whether the fault is to happen on it."""
        fault = self.fault
        moment = real if fault.clock == "real" else now
        if fault.call not in {"any", call} or fault.job not in {None, job_id}:
            return False
        if not fault.after <= moment < fault.until:
            return False
        self.seen += 1
        if fault.count is not None and self.applied >= fault.count:
            return False
        return (
            fault.nth in {None, self.seen}
            and (fault.every is None or self.seen % fault.every == 0)
            and (
                fault.percent is None
                or self.chance.random() * ALL_PERCENT < fault.percent
            )
        )


class FaultBook:
    """The faults in force. On a request the first one that wants it happens."""

    def __init__(self, faults: Iterable[Fault], seed: int) -> None:
        """Put these in force."""
        self._seed = seed
        self._rules: list[Rule] = []
        self.add(faults)

    def __iter__(self) -> Iterator[Rule]:
        """Return the rules in force, with their counts."""
        return iter(tuple(self._rules))

    def add(self, faults: Iterable[Fault] | str) -> None:
        """Put more in force, behind those that are.

        Raises:
            ValueError: A text that is no fault rule.
        """
        added = parse_faults(faults) if isinstance(faults, str) else faults
        for fault in added:
            chance = random.Random(f"{self._seed}/{len(self._rules)}")  # noqa: S311
            self._rules.append(Rule(fault, chance))

    def replace(self, faults: Iterable[Fault] | str) -> None:
        """Put these in force instead.

        Raises:
            ValueError: A text that is no fault rule; nothing changes.
        """
        wanted = parse_faults(faults) if isinstance(faults, str) else tuple(faults)
        self.clear()
        self.add(wanted)

    def clear(self) -> None:
        """Put an end to all of them."""
        self._rules.clear()

    def pick(
        self, call: str, job_id: str | None, real: float, now: float
    ) -> Rule | None:
        """Count a request in every rule; return the one that is to happen.

        Args:
            call: One of `CALLS`.
            job_id: The job it asks for, in its path.
            real: Real seconds since the start.
            now: Scenario seconds.
        """
        wanting = [rule for rule in self._rules if rule.wants(call, job_id, real, now)]
        return wanting[0] if wanting else None
