"""What is leased: an access key with all targets that use it, and how many are whose."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import assert_never

from watcher.ports import LeaseTable
from watcher.settings import schema as given

DIGITS = 12
"""Hexadecimal digits of a digest in a name."""


def unit_of(name: str, target: given.Target) -> str:
    """Return the unit of a target: the same in each replica with these settings.

    Ceiling, list sweep and breaker belong to an access key, so that replicas which never
    share one have nothing to agree on while they ask. Where a key is known only once it
    is looked for, targets whose settings look in the same place are one unit.

    Args:
        name: Of the target.
        target: Its settings.

    Returns:
        A name that shows no credential: a digest stands in its place.
    """
    match target.credentials:
        case given.NoCredentials():
            return f"target-{name}"
        case given.StaticCredentials() as key:
            return f"key-{_digest(key.access_key)}"
        case given.TokenCredentials() as user:
            return f"user-{_digest(user.domain, user.user)}"
        case (
            given.ChainCredentials()
            | given.ProfileCredentials()
            | given.MetadataCredentials() as found
        ):
            return found.kind
        case other:  # pragma: no cover
            assert_never(other)


def units_of(targets: Mapping[str, given.Target]) -> Mapping[str, str]:
    """Return the unit of each target."""
    return {name: unit_of(name, target) for name, target in targets.items()}


def _digest(*texts: str) -> str:
    told = "\0".join(texts).encode()
    return hashlib.sha256(told).hexdigest()[:DIGITS]


def share_of(owner: str, table: LeaseTable, units: Collection[str]) -> int:
    """Return how many of these units a replica is to hold.

    The shares of all add up to all units. What does not divide evenly goes to those that
    hold most, by name where they hold as many, so that nothing moves without need.

    Args:
        owner: The replica.
        table: Who holds what.
        units: All there are.
    """
    each, rest = divmod(len(units), max(1, table.replicas))
    held = Counter(one for u in units if (one := table.holders.get(u)) is not None)

    def place(one: str) -> tuple[int, str]:
        return -held[one], one

    before = sum(place(one) < place(owner) for one in held.keys() - {owner})
    return each + (before < rest)
