"""Puts settings in force: all of them at the start, a difference when they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.to_thread
import structlog

from watcher.core.errors import SettingsError
from watcher.core.listing import Listing
from watcher.core.model import JobKey
from watcher.core.outages import Outages
from watcher.core.schedule import Cadence, Pace
from watcher.daemon.notify import Notifier
from watcher.daemon.targets import Targets
from watcher.daemon.watch_list import LOOK_EVERY, Watching
from watcher.pages.metrics import MetricsPage
from watcher.polling.sources import JobSources
from watcher.polling.target import Lane
from watcher.ports import JobApi, JobSource
from watcher.settings.loading import Origin
from watcher.settings.schema import Poll, Settings, Target

FIXED = ("log", "server", "store", "sinks")
"""Sections that are in force from one start to the next."""

log = structlog.get_logger()


class Reload:
    """The settings in force, and the way to others.

    Attributes:
        settings: Those in force.
        lanes: Targets by name; changed in place.
    """

    def __init__(
        self,
        origin: Origin,
        settings: Settings,
        targets: Targets,
        metrics: MetricsPage,
        wall: Callable[[], float],
        notifier: Notifier,
    ) -> None:
        """Put the first settings in force.

        Raises:
            SettingsError: A target cannot be asked.
        """
        self.settings = settings
        self.lanes: dict[str, Lane] = {}
        self._origin = origin
        self._targets = targets
        self._metrics = metrics
        self._wall = wall
        self._notifier = notifier
        self._sources = JobSources(wall)
        self._turn = anyio.Lock()
        self._read = origin.fingerprint()
        self._apply(settings, self._open(settings, None))
        metrics.own.reloaded(wall())

    async def run(self, watching: Watching) -> None:
        """Reload whenever a file that settings come from has changed."""
        while True:
            await anyio.sleep(LOOK_EVERY)
            state = await anyio.to_thread.run_sync(self._origin.fingerprint)
            if state != self._read:
                await self.attempt(watching)

    async def attempt(self, watching: Watching) -> None:
        """Reload now; what is found wrong is logged, and changes nothing."""
        try:
            await self.now(watching)
        except SettingsError as exc:
            log.error("config.reload_failed", findings=exc.findings)

    async def now(self, watching: Watching) -> None:
        """Reload now.

        Raises:
            SettingsError: Nothing was changed.
        """
        async with self._turn:
            self._notifier.reloading(anyio.current_time())
            try:
                await self._change_to_present(watching)
            finally:
                self._notifier.ready()

    async def _change_to_present(self, watching: Watching) -> None:
        self._read = await anyio.to_thread.run_sync(self._origin.fingerprint)
        try:
            settings = await anyio.to_thread.run_sync(self._origin.load)
            apis = self._open(settings, self.settings)
        except SettingsError:
            self._metrics.own.reloaded(None)
            raise
        self._apply(settings, apis)
        watching.finished = settings.finished
        watching.sources = self.sources()
        await watching.look()
        self._metrics.own.reloaded(self._wall())
        log.info("config.reloaded", targets=list(settings.targets))

    def next_due(self, key: JobKey) -> float | None:
        """Return in how many seconds a job is asked next; None where no time is set."""
        lane = self.lanes.get(key.target)
        due = lane.queue.due_at(key) if lane else None
        return None if due is None else due - anyio.current_time()

    def sources(self) -> Sequence[JobSource]:
        """Return the sources of ids of the settings in force."""
        jobs = {
            name: (target.jobs, target.job_files)
            for name, target in self.settings.targets.items()
        }
        return self._sources.of(jobs, self._origin.secrets(self.settings))

    def _open(self, new: Settings, old: Settings | None) -> dict[str, JobApi]:
        """Open the targets that are new or are asked in another way."""
        return {
            name: self._targets.open(
                name,
                target,
                new.poll.timeout,
                partial(self._metrics.own.requested, name),
            )
            for name, target in new.targets.items()
            if old is None
            or name not in old.targets
            or old.poll.timeout != new.poll.timeout
            or _way(old.targets[name]) != _way(target)
        }

    def _apply(self, new: Settings, apis: dict[str, JobApi]) -> None:
        fixed = [
            name for name in FIXED if getattr(self.settings, name) != getattr(new, name)
        ]
        if fixed:
            log.warning("config.restart_needed", sections=fixed)
        for name in self.lanes.keys() - new.targets.keys():
            del self.lanes[name]
        for name, target in new.targets.items():
            if name in self.lanes:
                self._change(self.lanes[name], target, new.poll, apis.get(name))
            else:
                self.lanes[name] = _lane(name, target, new.poll, apis[name])
        self.settings = new
        self._metrics.configure(new.metrics.tasks, new.metrics.max_task_series)
        self._metrics.show_apis({name: lane.api for name, lane in self.lanes.items()})

    def _change(
        self, lane: Lane, target: Target, poll: Poll, api: JobApi | None
    ) -> None:
        old = self.settings
        if api is not None:
            lane.reopen(api, anyio.current_time())
        if old.poll != poll or old.targets[lane.name].discover != target.discover:
            lane.listing = _listing(target, poll)
            lane.cadence = Cadence(poll.interval, poll.backoff_max)
            lane.task_interval = poll.task_interval
            lane.max_in_flight = poll.max_in_flight
            lane.pace.limit(poll.requests_per_second)


def _way(target: Target) -> dict[str, object]:
    """Return what a target's API depends on."""
    return target.model_dump(exclude={"jobs", "job_files", "discover"})


def _lane(name: str, target: Target, poll: Poll, api: JobApi) -> Lane:
    return Lane(
        name=name,
        api=api,
        pace=Pace(poll.requests_per_second),
        cadence=Cadence(poll.interval, poll.backoff_max),
        task_interval=poll.task_interval,
        listing=_listing(target, poll),
        max_in_flight=poll.max_in_flight,
        outages=Outages(name),
    )


def _listing(target: Target, poll: Poll) -> Listing:
    found = target.discover
    filters = None if found is None else found.filters
    return Listing(
        poll.mode,
        interval=poll.interval,
        task_interval=poll.task_interval,
        discover=filters,
    )
