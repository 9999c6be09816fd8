"""Keeps what is watched the same as what the sources of jobs say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

import anyio
import structlog

from watcher.core.errors import StoreError
from watcher.core.model import JobKey, JobRecord
from watcher.polling.board import Board
from watcher.polling.committer import Committer
from watcher.polling.target import Target
from watcher.ports import JobSource
from watcher.ports import WatchList as KeptList

LOOK_EVERY = 2.0
"""Seconds between two looks at the sources of jobs."""
UNSEEN_RETENTIONS = 10
LEAST_UNSEEN = 86_400.0
"""Seconds that a finished job stays at least where nobody has scraped its end."""
MOST_NAMED = 10
SETTLED_AFTER = 3
"""Looks at the sources after which nothing is still to come that stood in them before."""

log = structlog.get_logger()


class WatchList:
    """The set of watched jobs: configured, in files, added by hand, discovered.

    Attributes:
        looked: Whether the sources were read once.
    """

    def __init__(  # noqa: PLR0913 - one for each thing that it is handed
        self,
        targets: Mapping[str, Target],
        board: Board,
        committer: Committer,
        kept: KeptList,
        known: Callable[[], Awaitable[frozenset[JobKey]]],
        *,
        wake: Callable[[], None],
        served: Callable[[JobKey], bool],
        wall: Callable[[], float],
        configured: Callable[[], Collection[str]] | None = None,
    ) -> None:
        """Watch nothing yet.

        Args:
            targets: By name; they ask for the jobs, and tell what they found.
            board: What is known of the jobs.
            committer: Begins and ends what is known.
            kept: Where jobs added while running are kept.
            known: Returns the jobs of which the store has records.
            wake: Called where there is something new to ask for.
            served: Whether somebody was shown a job's final state.
            wall: Wall clock, Unix seconds.
            configured: Where replicas share the store, the names of all targets, asked
                by this one or not. What another asks is never forgotten here.
        """
        self.looked = False
        self._targets = targets
        self._shared = configured is not None
        self._configured = configured or (lambda: targets)
        self._new_here: frozenset[str] = frozenset()
        self._board = board
        self._committer = committer
        self._kept = kept
        self._known = known
        self._left: frozenset[JobKey] = frozenset()
        self._looks = 0
        self._kept_up = False
        self._wake = wake
        self._served = served
        self._wall = wall
        self._sources: Collection[JobSource] = ()
        self._retention = 0.0
        self._projects: Mapping[str, str | None] = {}
        self._given: Mapping[JobKey, None] = {}  # in the order of the configuration
        self._added: frozenset[JobKey] = frozenset()
        self._problems: frozenset[str] = frozenset()
        self._turn = anyio.Lock()

    @property
    def summary(self) -> str:
        """How it goes, in one line."""
        targets = self._targets.values()
        jobs = f"{len(self._board.records)} jobs watched"
        running = f"{sum(target.running for target in targets)} running"
        failing = sorted(target.name for target in targets if target.failing)
        return f"{jobs}, {running}; failing targets: {', '.join(failing) or 'none'}"

    @property
    def complete(self) -> bool:
        """Whether all that the sources say is watched, and all of them were read."""
        return self.looked and self.sound and self._kept_up

    @property
    def sound(self) -> bool:
        """Whether all of the sources could be read."""
        return not self._problems

    async def load(self) -> None:
        """Read what earlier lives left: jobs that were added, and records.

        Before anything is added.

        Raises:
            StoreError: They cannot be read.
        """
        self._added = await self._kept.watched()
        self._left = frozenset() if self._shared else await self._known()

    async def take_over(self, targets: Collection[str]) -> None:
        """Read what another replica left of targets that are asked here from now on.

        Raises:
            StoreError: It cannot be read.
        """
        known = await self._known()
        async with self._turn:
            self._new_here |= frozenset(targets)
            self._left |= {key for key in known if key.target in targets}

    def let_go(self, targets: Collection[str]) -> None:
        """Leave to another replica what is known of these targets."""
        self._new_here -= frozenset(targets)
        self._left = frozenset(k for k in self._left if k.target not in targets)

    async def change(self, sources: Collection[JobSource], retention: float) -> None:
        """Watch what other sources say.

        Args:
            sources: Where ids come from.
            retention: Seconds that a finished job stays visible.
        """
        self._sources, self._retention = sources, retention
        await self._leave_projects()
        await self.look()

    async def _leave_projects(self) -> None:
        """Forget what is known of jobs of another project than is asked from now on."""
        before = self._projects
        self._projects = {name: self._project(name) for name in self._targets}
        moved = {
            name
            for name, project in self._projects.items()
            if None not in {project, before.get(name)} and project != before[name]
        }
        async with self._turn:
            try:
                await self._end([k for k in self._board.watched if k.target in moved])
            except StoreError as exc:  # what it still knows is of another project
                log.warning("jobs.not_kept", error=str(exc))

    def _project(self, target: str) -> str | None:
        one = self._targets.get(target)
        return one.api.project_id if one else None

    async def look(self) -> None:
        """Read the sources and watch exactly what they say."""
        async with self._turn:
            readings = [await source.read() for source in self._sources]
            if self._shared:
                await self._hear_of_others()
            self._tell_problems({line for each in readings for line in each.problems})
            self._given = dict.fromkeys(key for each in readings for key in each.keys)
            await self._keep_discovered()
            await self._watch()
            await self._forget_what_is_left()
            self.looked = True
            self._committer.retire(self._is_over)

    async def _hear_of_others(self) -> None:
        """Read what was added and taken away at other replicas."""
        try:
            self._added = await self._kept.watched()
        except StoreError as exc:
            log.warning("jobs.not_kept", error=str(exc))

    async def add(self, key: JobKey) -> bool:
        """Watch a job from now on, over restarts too; False if it is watched already.

        Raises:
            KeyError: There is no such target.
            StoreError: It could not be kept.
        """
        if key.target not in self._configured():
            raise KeyError(key.target)
        async with self._turn:
            new = key not in self._board.watched
            if key.target not in self._targets:
                new = key not in self._given and key not in self._added
            await self._keep({key}, ())
            await self._watch()
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
            if key in self._discovered:
                raise ValueError("the job is discovered: the list call shows it")
            known = key in self._added
            await self._keep((), {key})
            await self._watch()
            return known

    @property
    def _discovered(self) -> frozenset[JobKey]:
        found = (target.discovered for target in self._targets.values())
        return frozenset().union(*found)

    @property
    def _run_again(self) -> list[JobKey]:
        """Jobs that left, having finished, and that a list shows as running now."""
        retired = self._board.retired.keys()
        targets = self._targets.values() if retired else ()
        return sorted(key for one in targets for key in one.listed_running & retired)

    async def _keep_discovered(self) -> None:
        """Keep what is found, so that its end is seen though the list has it no more."""
        found = self._discovered
        over = frozenset(self._board.retired) - found
        try:
            await self._keep(found - self._given.keys(), over)
        except StoreError as exc:
            log.warning("jobs.not_kept", error=str(exc))

    async def _keep(self, add: Collection[JobKey], remove: Collection[JobKey]) -> None:
        new = frozenset(add) - self._added
        old = (frozenset(remove) & self._added) - frozenset(add)
        if new:
            await self._kept.add(new)
            self._added |= new
        if old:
            await self._kept.remove(old)
            self._added -= old

    async def _watch(self) -> None:
        # What was added to a target that is not in force waits until it is.
        wanted = [
            key
            for key in dict.fromkeys([*self._given, *sorted(self._added)])
            if key.target in self._targets
        ]
        watched = self._board.watched
        gone = sorted(k for k in watched.difference(wanted) if self._may_end(k))
        new = [key for key in wanted if key not in watched]
        new += self._run_again
        self._kept_up = False
        try:
            await self._end(gone)
            await self._begin(new)
            self._kept_up = True
        except StoreError as exc:
            log.warning("jobs.not_kept", error=str(exc))
        if self.looked and (gone or new):
            log.info(
                "jobs.changed",
                added=len(new),
                removed=len(gone),
                added_jobs=_named(new),
                removed_jobs=_named(gone),
            )

    async def _forget_what_is_left(self) -> None:
        """Forget jobs that were taken away while no daemon ran.

        One that is put back later begins afresh. Not before each source could be read,
        and a file that is just being written was seen twice: it may be one of its jobs.
        """
        self._looks += 1
        if self._looks < SETTLED_AFTER or self._problems or not self._left:
            return
        left, self._left = self._left - self._board.watched, frozenset()
        try:
            await self._committer.forget([key for key in left if self._is_ours(key)])
        except StoreError as exc:  # the next call makes up for it
            log.warning("jobs.not_kept", error=str(exc))

    async def _begin(self, keys: Collection[JobKey]) -> None:
        if not keys:
            return
        await self._committer.begin({key: self._project(key.target) for key in keys})
        now = anyio.current_time()
        taken_over: dict[str, list[JobRecord]] = {name: [] for name in self._new_here}
        for key in keys:
            # While the store was asked, a reload may have removed the target, or its
            # lease may have gone.
            target, record = self._targets.get(key.target), self._board.records.get(key)
            if target is None or record is None:
                continue
            if key.target in taken_over:
                taken_over[key.target].append(record)
            else:
                target.watch(record, now)
        for name, records in taken_over.items():
            if target := self._targets.get(name):
                target.take_over(records, now)
        self._new_here = frozenset()
        self._wake()

    async def _end(self, keys: Collection[JobKey]) -> None:
        for key in keys:
            if target := self._targets.get(key.target):
                target.forget(key)
        elsewhere = {key.target for key in keys if not self._is_ours(key)}
        self._committer.let_go(elsewhere)
        await self._committer.forget([key for key in keys if self._is_ours(key)])

    def _may_end(self, key: JobKey) -> bool:
        """Whether a job is not just one whose target is being left to another replica."""
        return self._is_ours(key) or key.target not in self._configured()

    def _is_ours(self, key: JobKey) -> bool:
        """Whether what is known of a job is this replica's to forget."""
        return not self._shared or key.target in self._targets

    def _is_over(self, record: JobRecord) -> bool:
        """Whether a job was shown for long enough, and its end to somebody."""
        if record.finished_at is None:
            return False
        target = self._targets.get(record.key.target)
        if target and target.asks(record.key):
            return False
        age = self._wall() - record.finished_at
        if age < self._retention:
            return False
        unseen = max(UNSEEN_RETENTIONS * self._retention, LEAST_UNSEEN)
        return age >= unseen or self._served(record.key)

    def _tell_problems(self, problems: Collection[str]) -> None:
        for problem in sorted(frozenset(problems) - self._problems):
            log.warning("jobs.unreadable", problem=problem)
        self._problems = frozenset(problems)


def _named(keys: Collection[JobKey]) -> list[str]:
    return [f"{key.target}/{key.job_id}" for key in list(keys)[:MOST_NAMED]]
