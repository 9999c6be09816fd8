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


def line(event: JournalEvent) -> dict[str, object]:
    """Lay out an event as the log has it: `timestamp` and `level` come first.

    The log's `timestamp` is when its line was written; here, where no line is written,
    it is when the change was observed.
    """
    transition = event.transition
    return {
        "timestamp": transition.fields.get("observed_at"),
        "level": transition.level,
        **envelope(event),
    }
