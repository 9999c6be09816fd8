"""A store that lasts as long as the process: for the demo and for tests."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from watcher.core.model import JobKey, JobRecord, JournalEvent, Step
from watcher.core.tracker import begin, most_told
from watcher.ports import ALWAYS_HELD, Fence, Pruned, Retention
from watcher.store.aging import JournalTime
from watcher.store.growth import Growth


class MemoryStore:
    """All ports of a store without a file.

    Args:
        now: Wall clock, Unix seconds; dates the journal for retention.
        sinks: Names of the sinks that each event is owed to.
        retention: How much of the journal is kept.
    """

    leases = None

    def __init__(
        self,
        *,
        now: Callable[[], float],
        sinks: Iterable[str] = (),
        retention: Retention | None = None,
    ) -> None:
        self._now = now
        self._retention = retention or Retention()
        self._time = JournalTime(now(), now())
        self._records: dict[JobKey, JobRecord] = {}
        self._forgotten: dict[JobKey, int] = {}
        self._told_before = 0
        self._journal: list[JournalEvent] = []
        self._committed_at: dict[str, float] = {}
        self._outbox: dict[str, dict[int, JournalEvent]] = {name: {} for name in sinks}
        self._watched: set[JobKey] = set()
        self._notes: dict[str, str] = {}
        self._last_seq = 0
        self._growth = Growth()

    async def load(self, keys: Collection[JobKey]) -> Mapping[JobKey, JobRecord]:
        """Return the records known of these jobs."""
        told = {
            key: max(self._told_before, self._forgotten.get(key, 0)) for key in keys
        }
        begun = {key: begin(key, count) for key, count in told.items() if count}
        known = {key: self._records[key] for key in keys if key in self._records}
        return begun | known

    async def known(self) -> frozenset[JobKey]:
        """Return the jobs of which there are records."""
        return frozenset(self._records)

    async def forget(self, keys: Collection[JobKey]) -> None:
        """Forget the records of these jobs, but for what keeps event ids apart."""
        for key in keys:
            if record := self._records.pop(key, None):
                self._forgotten[key] = most_told(record)

    async def commit(
        self,
        steps: Sequence[Step],
        fence: Fence = ALWAYS_HELD,  # noqa: ARG002
    ) -> Sequence[JournalEvent]:
        """Take over records and transitions; an event id already known is left out."""
        now = self._time.at(self._now())
        events = []
        for step in steps:
            self._records[step.record.key] = step.record
            for transition in step.transitions:
                if transition.event_id in self._committed_at:
                    continue
                self._committed_at[transition.event_id] = now
                self._last_seq += 1
                events.append(JournalEvent(self._last_seq, transition))
        self._journal.extend(events)
        for owed in self._outbox.values():
            owed.update((event.seq, event) for event in events)
        self._growth.reach(self._last_seq)
        return events

    async def undelivered(
        self,
        sink: str,
        limit: int,
        held: Collection[JobKey] = (),
        targets: Collection[str] | None = None,
    ) -> Sequence[JournalEvent]:
        """Return the oldest events that a sink has not taken yet."""
        left_out = frozenset(held)
        owed = self._owed(sink, targets)
        free = (event for event in owed if event.transition.key not in left_out)
        return list(islice(free, limit))

    def _owed(
        self, sink: str, targets: Collection[str] | None
    ) -> Iterator[JournalEvent]:
        for event in self._outbox.get(sink, {}).values():
            if targets is None or event.transition.key.target in targets:
                yield event

    async def delivered(self, sink: str, seqs: Collection[int]) -> None:
        """Remember that a sink took these events."""
        owed = self._outbox.get(sink, {})
        for seq in seqs:
            owed.pop(seq, None)

    async def backlog(self, sink: str, targets: Collection[str] | None = None) -> int:
        """Count the events that a sink has not taken yet."""
        return sum(1 for _ in self._owed(sink, targets))

    async def read(
        self, after: int, limit: int, job_id: str | None = None
    ) -> Sequence[JournalEvent]:
        """Return events with `seq > after`, oldest first."""
        start = bisect_right(self._journal, after, key=lambda event: event.seq)
        found = (
            event
            for event in islice(self._journal, start, None)
            if job_id is None or event.transition.key.job_id == job_id
        )
        return list(islice(found, limit))

    async def grown(self, after: int) -> int:
        """Wait until the highest number given is another than `after`; return it."""
        return await self._growth.beyond(after)

    async def prune(self, now: float) -> Pruned:
        """Drop what is past retention; undelivered events only once past its age."""
        oldest = self._time.at(now) - self._retention.seconds
        expired = {
            event.seq
            for event in self._journal
            if self._committed_at[event.transition.event_id] < oldest
        }
        dead = {name: len(expired & owed.keys()) for name, owed in self._outbox.items()}
        for name in dead:
            await self.delivered(name, expired)
        surplus = self._journal[: max(0, len(self._journal) - self._retention.events)]
        owed_still = {seq for owed in self._outbox.values() for seq in owed}
        gone = expired | ({event.seq for event in surplus} - owed_still)
        for event in self._journal:
            if event.seq in gone:
                del self._committed_at[event.transition.event_id]
        self._journal = [event for event in self._journal if event.seq not in gone]
        kept = {event.transition.key for event in self._journal}
        for key in self._forgotten.keys() - kept:
            self._told_before = max(self._told_before, self._forgotten.pop(key))
        return Pruned(len(gone), {name: count for name, count in dead.items() if count})

    async def watched(self) -> frozenset[JobKey]:
        """Return the jobs added while running."""
        return frozenset(self._watched)

    async def add(self, keys: Collection[JobKey]) -> None:
        """Remember these jobs as added while running."""
        self._watched.update(keys)

    async def remove(self, keys: Collection[JobKey]) -> None:
        """Remember these jobs no longer as added."""
        self._watched.difference_update(keys)

    async def note(self, name: str, text: str) -> None:
        """Keep a text under a name."""
        self._notes[name] = text

    async def notes(self) -> Mapping[str, str]:
        """Return the kept texts, by name."""
        return dict(self._notes)
