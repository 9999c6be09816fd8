"""A journal event as everybody is shown it: log, webhook, HTTP and `watcher events`."""

from __future__ import annotations

from watcher.core.model import JournalEvent


def envelope(event: JournalEvent) -> dict[str, object]:
    """Lay out an event in the order in which it is shown, ready for JSON.

    Returns:
        `event`, `event_id`, `seq`, `target`, then the transition's own fields;
        `replayed` comes last, and only where it is true.
    """
    transition = event.transition
    shown: dict[str, object] = {
        "event": transition.event,
        "event_id": transition.event_id,
        "seq": event.seq,
        "target": transition.key.target,
        **transition.fields,
    }
    if event.replayed:
        shown["replayed"] = True
    return shown
