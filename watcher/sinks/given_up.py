"""Tells of the events that a sink will never take: one at once, then by the minute."""

from __future__ import annotations

import math
from collections.abc import Sequence

import structlog

from watcher.core.model import JournalEvent
from watcher.ports import Undeliverable

QUIET = 60.0

log = structlog.get_logger()


class GivenUp:
    """Counts and logs what one sink refused for ever.

    Times are monotonic seconds.

    Attributes:
        count: Events given up.
        due: When the next line is to be written; infinite where there is none.
    """

    def __init__(self, sink: str) -> None:
        self.count = 0
        self.due = math.inf
        self._sink = sink
        self._untold = 0
        self._quiet_until = -math.inf
        self._newest: dict[str, object] = {}

    def note(
        self, events: Sequence[JournalEvent], error: Undeliverable, now: float
    ) -> None:
        """Take note of events that are not offered again."""
        self.count += len(events)
        self._untold += len(events)
        key = events[0].transition.key
        self._newest = {
            "error": str(error),
            "status_code": error.status_code,
            "at_seq": events[0].seq,
            "at_event_id": events[0].transition.event_id,
            "target": key.target,
            "job_id": key.job_id,
        }
        self.due = max(now, self._quiet_until)
        self.tell(now)

    def tell(self, now: float) -> None:
        """Write the line that is due by now, if any, of the newest and how many."""
        if now < self.due or not self._untold:
            return
        log.warning(
            "sink.undeliverable",
            sink=self._sink,
            events=self._untold,
            **self._newest,
        )
        self._untold = 0
        self._quiet_until = now + QUIET
        self.due = math.inf
