"""Which targets may send now, and in whose turn: several may share an access key."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence

from watcher.core.schedule import TICK, tick_after, tick_before
from watcher.polling.target import Look, PageLook, Target


def release(
    targets: Iterable[Target], now: float
) -> Iterator[tuple[Target, Look | PageLook]]:
    """Take from each target all that may be sent now.

    Targets that share a key take turns, that with the least in flight first.
    """
    for sharing in _by_key(targets):
        while ready := [each for each in sharing if _may_send(each, sharing, now)]:
            target = min(ready, key=lambda each: each.in_flight)
            request = target.send(now)
            if request is not None:
                yield target, request


def next_release(targets: Iterable[Target], now: float) -> float:
    """Return when `release` may next find something; infinity: not before an answer.

    What is held back for want of room is looked at again a tick later.
    """
    soonest = min((each.next_send(now) for each in targets), default=math.inf)
    if soonest == math.inf:
        return math.inf
    if soonest <= now:
        return tick_before(now) + TICK
    return max(soonest, tick_after(soonest))


def _may_send(target: Target, sharing: Sequence[Target], now: float) -> bool:
    return (
        target.next_send(now) <= now
        and target.has_room
        and not key_is_full(target, sharing)
    )


def key_is_full(target: Target, sharing: Sequence[Target]) -> bool:
    """Whether the key lets nothing more of a target go before an answer is there.

    Among targets that share a key, none takes the last place from the others.
    """
    limit = target.api.key_limit
    if limit is None:
        return False
    own = limit if len(sharing) == 1 else max(limit - 1, 1)
    together = sum(each.in_flight for each in sharing)
    return target.in_flight >= own or together >= limit


def _by_key(targets: Iterable[Target]) -> Collection[list[Target]]:
    """Group targets by the key that signs their requests; those without stand alone."""
    groups: dict[str | int, list[Target]] = {}
    for target in targets:
        account = target.api.account
        groups.setdefault(id(target) if account is None else account, []).append(target)
    return groups.values()
