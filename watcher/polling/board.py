"""The present state: each watched job's committed record, and what changed when.

Only the committer writes here. Whoever reads keeps the version it has seen and asks what
changed since, so that no reader costs the writer anything and none can go stale.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

import anyio

from watcher.core.model import JobKey, JobRecord, Phase

MOST_DROPPED = 10_000
"""Jobs that are shown no more, of which it is remembered when they went."""


class Board:
    """Records by job, each with the version of its last change.

    Attributes:
        version: Rises with each change.
        records: Every job that is shown.
        retired: Finished jobs that are watched and shown no more, by their phase.
    """

    def __init__(self) -> None:
        """Show nothing yet."""
        self.version = 0
        self._records: dict[JobKey, JobRecord] = {}
        self._retired: dict[JobKey, Phase] = {}
        self._changed: dict[JobKey, int] = {}  # in the order of their versions
        self._dropped: dict[JobKey, None] = {}
        self._complete_since = 0
        self._change: anyio.Event | None = None
        self.records: Mapping[JobKey, JobRecord] = MappingProxyType(self._records)
        self.retired: Mapping[JobKey, Phase] = MappingProxyType(self._retired)

    @property
    def watched(self) -> frozenset[JobKey]:
        """Every watched job, those no longer shown included."""
        return frozenset([*self._retired, *self._records])

    @property
    def phase_of(self) -> Mapping[JobKey, Phase]:
        """The phase of each watched job, those no longer shown included."""
        shown = {key: record.phase for key, record in self._records.items()}
        return self._retired | shown

    @property
    def phases(self) -> Collection[Phase]:
        """The phases of all watched jobs, likewise."""
        return list(self.phase_of.values())

    def version_of(self, key: JobKey) -> int:
        """Return the version at which a job last changed; 0 where it never did."""
        return self._changed.get(key, 0)

    def changed_since(self, version: int) -> Collection[JobKey] | None:
        """Return the jobs that changed or went after a version, oldest change first.

        Returns:
            None where that is so long ago that some that went are not known any more:
            whoever asks begins afresh with `records`.
        """
        if version < self._complete_since:
            return None
        if next(iter(self._changed.values()), 0) > version:
            return list(self._changed)
        keys = []
        for key in reversed(self._changed):
            if self._changed[key] <= version:
                break
            keys.append(key)
        keys.reverse()
        return keys

    async def changed(self, version: int) -> None:
        """Wait until the board is newer than a version."""
        while self.version <= version:
            self._change = self._change or anyio.Event()
            await self._change.wait()

    # What follows is for the committer alone: two writers could show what one of them
    # has not committed.

    def show(self, records: Iterable[JobRecord]) -> None:
        """Put records in the place of the earlier ones."""
        for record in records:
            key = record.key
            self._records[key] = record
            self._retired.pop(key, None)
            self._dropped.pop(key, None)
            self._note(key)
        self._tell()

    def drop(self, keys: Iterable[JobKey]) -> None:
        """Show jobs no more."""
        for key in keys:
            self._retired.pop(key, None)
            if self._records.pop(key, None) is not None:
                self._note(key)
                self._dropped[key] = None
        while len(self._dropped) > MOST_DROPPED:
            oldest = next(iter(self._dropped))
            del self._dropped[oldest]
            self._complete_since = self._changed.pop(oldest)
        self._tell()

    def retire(self, keys: Iterable[JobKey]) -> None:
        """Show finished jobs no more, and remember how they ended."""
        ended = {key: self._records[key].phase for key in keys}
        self.drop(ended)
        self._retired.update(ended)

    def _note(self, key: JobKey) -> None:
        self.version += 1
        self._changed.pop(key, None)  # so that the newest change stands last
        self._changed[key] = self.version

    def _tell(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None
