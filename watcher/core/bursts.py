"""Bursts of like transitions, told as one: for people who read the log as it runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from watcher.core.insight import MOST_SERVERS, shape
from watcher.core.journal import envelope
from watcher.core.model import EventName, JournalEvent

MOST_APART = 8
"""Like transitions of one job and look that are told one by one."""

Likeness: TypeAlias = tuple[object, ...]


def folded(events: Sequence[JournalEvent]) -> Iterator[dict[str, object]]:
    """Lay out events in their order, a burst as one at the place of its first.

    A burst is more than eight transitions of tasks of one job, seen by one look, that
    differ in nothing but the server and the numbers and names in their messages.

    Yields:
        What `envelope` makes of an event. That of a burst has the commonest `message`,
        `count`, how many there are, and `servers`, the first five.
    """
    bursts = defaultdict[Likeness, list[JournalEvent]](list)
    likenesses = [_likeness(event) for event in events]
    for likeness, event in zip(likenesses, events, strict=True):
        bursts[likeness].append(event)
    for likeness, event in zip(likenesses, events, strict=True):
        burst = bursts[likeness]
        if len(burst) <= MOST_APART:
            yield envelope(event)
        elif event is burst[0]:
            yield _told_as_one(burst)


def _likeness(event: JournalEvent) -> Likeness:
    told = event.transition
    fields = told.fields
    if told.event not in {EventName.TASK_TRANSITION, EventName.TASK_VANISHED}:
        return (event.seq,)
    return (
        told.event,
        told.key,
        fields.get("observed_at"),
        fields.get("from"),
        fields.get("to"),
        shape(str(fields.get("message") or "")),
        event.replayed,
    )


def _told_as_one(burst: Sequence[JournalEvent]) -> dict[str, object]:
    messages = Counter(event.transition.fields.get("message") for event in burst)
    servers = [
        event.transition.fields.get("server_name")
        or event.transition.fields.get("server_id")
        or event.transition.fields.get("task_id")
        for event in burst
    ]
    return {
        **envelope(burst[0]),
        "message": messages.most_common(1)[0][0],
        "count": len(burst),
        "servers": servers[:MOST_SERVERS],
    }
