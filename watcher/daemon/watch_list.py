"""Keeps what the poller watches the same as what its sources say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import anyio
import structlog

from watcher.core.errors import StoreError
from watcher.core.model import JobKey, Phase
from watcher.polling.poller import Poller
from watcher.polling.target import Lane
from watcher.ports import JobSource, Store
from watcher.settings.schema import Finished

LOOK_EVERY = 2.0
"""Seconds between two looks at the sources of jobs."""

log = structlog.get_logger()


class Watching:
    """The set of watched jobs: configured, in files, added by hand, discovered.

    Attributes:
        looked: Whether the sources were read once.
        finished: What becomes of finished jobs; replaced by a reload.
        sources: Where ids come from; replaced by a reload.
        stop: Set when the daemon is to end.
    """

    def __init__(
        self,
        poller: Poller,
        lanes: Mapping[str, Lane],
        store: Store,
        finished: Finished,
        *,
        served: Callable[[JobKey], bool],
        wall: Callable[[], float],
        status: Callable[[str], None],
    ) -> None:
        """Watch nothing yet.

        Args:
            poller: What watches.
            lanes: Targets by name; those that discover tell what they found.
            store: Where jobs added while running are kept.
            finished: What becomes of finished jobs.
            served: Whether somebody was shown a job's final state.
            wall: Wall clock, Unix seconds.
            status: Told in one line how it goes.
        """
        self.looked = False
        self.finished = finished
        self.sources: Collection[JobSource] = ()
        self.stop = anyio.Event()
        self._poller = poller
        self._lanes = lanes
        self._store = store
        self._served = served
        self._wall = wall
        self._status = status
        self._given: frozenset[JobKey] = frozenset()
        self._added: frozenset[JobKey] = frozenset()
        self._problems: frozenset[str] = frozenset()
        self._turn = anyio.Lock()

    @property
    def sound(self) -> bool:
        """Whether all of the sources could be read."""
        return not self._problems

    @property
    def exit_code(self) -> int:
        """0, or 1 where a job of a daemon that ends when done did not succeed."""
        succeeded = set(self._poller.phases) <= {Phase.SUCCEEDED}
        return int(self.finished.exit_when_done and not succeeded)

    @property
    def done(self) -> bool:
        """Whether there are jobs and all of them are finished."""
        phases = self._poller.phases
        return bool(phases) and all(phase.finished for phase in phases)

    async def run(self) -> None:
        """Look at the sources every few seconds."""
        self._added = await self._store.watched()
        while True:
            await self.look()
            self._status(self._summary())
            if self.finished.exit_when_done and self.done:
                self.stop.set()
            await anyio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """Read the sources and watch exactly what they say."""
        async with self._turn:
            readings = [await source.read() for source in self.sources]
            self._tell_problems({line for each in readings for line in each.problems})
            self._given = frozenset().union(*(reading.keys for reading in readings))
            await self._keep_added(self._discovered())
            await self._watch(self._given | self._added)
            self.looked = True
            before = self._wall() - self.finished.retention
            self._poller.retire(before, self._served)

    async def add(self, key: JobKey) -> bool:
        """Watch a job from now on, over restarts too; False if it is watched already.

        Raises:
            KeyError: There is no such target.
            StoreError: It could not be kept.
        """
        if key.target not in self._lanes:
            raise KeyError(key.target)
        async with self._turn:
            new = key not in self._poller.watched
            await self._save(self._added | {key})
            await self._watch(self._given | self._added)
            return new

    async def remove(self, key: JobKey) -> bool:
        """Stop watching a job that was added; False if it is not watched.

        Raises:
            ValueError: It stands in the configuration or a job file, or is discovered.
            StoreError: It could not be forgotten.
        """
        async with self._turn:
            if key in self._given:
                raise ValueError("the job stands in the configuration or a job file")
            if key in self._discovered():
                raise ValueError("the job is discovered: the list call shows it")
            known = key in self._added
            await self._save(self._added - {key})
            await self._watch(self._given | self._added)
            return known

    def _summary(self) -> str:
        lanes = self._lanes.values()
        jobs = f"{len(self._poller.records)} jobs watched"
        running = f"{sum(len(lane.running) for lane in lanes)} running"
        failing = sorted(lane.name for lane in lanes if lane.outages.failing)
        return f"{jobs}, {running}; failing targets: {', '.join(failing) or 'none'}"

    def _discovered(self) -> frozenset[JobKey]:
        return frozenset(
            JobKey(name, job_id)
            for name, lane in self._lanes.items()
            if lane.listing.discovers
            for job_id in lane.listing.found
        )

    async def _keep_added(self, discovered: frozenset[JobKey]) -> None:
        over = self._poller.retired - discovered
        reachable = {key for key in self._added if key.target in self._lanes}
        try:
            await self._save(frozenset(reachable - over) | (discovered - self._given))
        except StoreError as exc:
            log.warning("jobs.not_kept", error=str(exc))

    async def _save(self, added: frozenset[JobKey]) -> None:
        if added != self._added:
            await self._store.save_watched(added)
            self._added = added

    async def _watch(self, wanted: frozenset[JobKey]) -> None:
        watched = self._poller.watched
        gone, new = watched - wanted, sorted(wanted - watched)
        try:
            await self._poller.unwatch(gone)
            await self._poller.watch(new)
        except StoreError as exc:
            log.warning("jobs.not_kept", error=str(exc))
        if self.looked and (gone or new):
            log.info("jobs.changed", added=len(new), removed=len(gone))

    def _tell_problems(self, problems: Collection[str]) -> None:
        for problem in sorted(frozenset(problems) - self._problems):
            log.warning("jobs.unreadable", problem=problem)
        self._problems = frozenset(problems)
