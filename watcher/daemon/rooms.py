"""The daemon itself: what watches and what tells, joined, begun and brought to its end.

Nothing here opens a connection, starts a thread or heeds a signal: who hands in the
surroundings runs the same daemon, be it a process or a test on a clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
import structlog

from watcher.core.errors import SettingsError
from watcher.daemon.ending import Ending
from watcher.daemon.holding import Holding
from watcher.daemon.joining import join
from watcher.daemon.keeper import Keeper
from watcher.daemon.notify import Notifier
from watcher.daemon.reloader import Reloader
from watcher.daemon.signals import Wishes
from watcher.daemon.targets import Targets
from watcher.daemon.trust_keeper import TrustKeeper
from watcher.daemon.units import units_of
from watcher.daemon.watch_list import LOOK_EVERY
from watcher.pages.metrics import MetricsPage
from watcher.polling.board import Board
from watcher.polling.sources import JobSources
from watcher.ports import Sink, Store
from watcher.settings.loading import Origin
from watcher.settings.schema import Settings
from watcher.sinks.courier import Courier, RetryPolicy, prune_regularly

if TYPE_CHECKING:
    from watcher.daemon.elsewhere import Elsewhere

NOT_DONE = (
    "finished.exit_when_done: not where replicas share a store, as none of them"
    " watches all jobs; `watcher wait` waits for some"
)
DRAIN = 1.0
"""Seconds for what is left to deliver at the end, where another replica waits for it."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outside:
    """What the daemon stands on; opened, and closed again, by who starts it.

    Attributes:
        store: Where everything is kept.
        doors: Opens the API of each target.
        sinks: Told of each transition.
        notifier: Tells the service manager.
        wall: Wall clock, Unix seconds.
        chance: Draws a number in [0, 1).
        fault_point: Called with the name of each step of commit and delivery; for
            tests that end the process there.
    """

    store: Store
    doors: Targets
    sinks: Sequence[Sink]
    notifier: Notifier
    wall: Callable[[], float]
    chance: Callable[[], float]
    fault_point: Callable[[str], None] = lambda _: None


class Rooms:
    """The parts of the daemon, each handed what it needs.

    Attributes:
        outside: What they stand on.
        board: The present state.
        metrics: The page that shows it, and how the work goes.
        fleet: Which targets are in force.
        committer: Takes in, commits, shows.
        poller: Asks.
        watch_list: Which jobs are watched.
        couriers: One a sink.
        ending: When it ends by itself.
        reloader: When settings are read again.
        keeper: Which targets are this replica's own; None: all are.
        elsewhere: What all replicas watch; None: there is one.
    """

    def __init__(
        self, outside: Outside, origin: Origin, settings: Settings, wishes: Wishes
    ) -> None:
        """Join them; nothing is read or asked yet."""
        self.outside = outside
        self.board = Board()
        self.metrics = MetricsPage(self.board)
        own = self.metrics.own
        leases = outside.store.leases
        self._holding = Holding(leases.owner) if leases else None
        watching = join(
            self.board,
            outside.store,
            lambda name, target, timeout: outside.doors.open(
                name, target, timeout, partial(own.requested, name)
            ),
            own,
            wall=outside.wall,
            chance=outside.chance,
            served=self.metrics.served,
            turned=outside.notifier.turned,
            fault_point=outside.fault_point,
            holding=self._holding,
        )
        self.fleet, self.committer = watching.fleet, watching.committer
        self.poller, self.watch_list = watching.poller, watching.watch_list
        self.couriers = [self._courier(sink) for sink in outside.sinks]
        self.ending = Ending(self.board, settings.finished, wishes, self.metrics.served)
        self.reloader = Reloader(
            origin,
            settings,
            wishes,
            self._put_in_force,
            lambda good: own.reloaded(outside.wall() if good else None),
            outside.notifier,
        )
        self._origin = origin
        self._wishes = wishes
        self._sources = JobSources(outside.wall)
        self._trust = TrustKeeper(self.fleet.targets, outside.store)
        self.keeper = self._keeper(settings.replica.lease)
        self.elsewhere = self._elsewhere()
        self._show_own()

    def _keeper(self, lease: float) -> Keeper | None:
        leases, holding = self.outside.store.leases, self._holding
        if leases is None or holding is None:
            return None
        return Keeper(
            leases,
            lease,
            holding,
            take_up=self._take_up,
            extended=lambda: self.fleet.follow(anyio.current_time()),
            wind_up=self._wind_up,
            let_go=self._let_go,
            chance=self.outside.chance,
        )

    def _elsewhere(self) -> Elsewhere | None:
        if self.keeper is None or self._holding is None:
            return None
        from watcher.daemon.elsewhere import Elsewhere  # noqa: PLC0415 - only there

        outside = self.outside
        holding, replica_of = self._holding, self.keeper.replica_of
        return Elsewhere(self.board, outside.store, holding, replica_of, outside.wall)

    @property
    def shown(self) -> Board:
        """Where every job stands that people and programs may look at."""
        return self.elsewhere.board if self.elsewhere else self.board

    def replica_of(self, target: str) -> str | None:
        """Return which replica watches a target; None: nobody, or there is one."""
        return self.keeper.replica_of(target) if self.keeper else None

    def _courier(self, sink: Sink) -> Courier:
        outside = self.outside
        return Courier(
            sink,
            outside.store,
            outside.store,
            jitter=outside.chance,
            fault_point=outside.fault_point,
            policy=RetryPolicy(drain=DRAIN) if self._holding else None,
            own=self._holding.targets if self._holding else lambda: None,
        )

    def _show_own(self) -> None:
        own, committer = self.metrics.own, self.committer
        own.show_sources(lambda: self.watch_list.sound)
        own.show_trust(self.fleet.targets)
        own.show_sinks(self.couriers)
        if self.keeper:
            own.show_leases(self.keeper)
        own.show_store(
            lambda: committer.pending,
            lambda: committer.commit_age(anyio.current_time()),
        )

    async def begin(self) -> None:
        """Read what earlier lives left, and put the settings in force.

        Raises:
            SettingsError: They cannot be.
            StoreError: It cannot be read.
        """
        await self.watch_list.load()
        await self.reloader.begin()
        await self._trust.load()

    async def _put_in_force(self, settings: Settings) -> None:
        """Hand each room its part of the settings.

        Raises:
            SettingsError: They cannot be in force; nothing was changed.
        """
        if self._holding and settings.finished.exit_when_done:
            raise SettingsError([NOT_DONE])
        fleet, metrics = self.fleet, self.metrics
        plan = fleet.plan(settings.targets, settings.poll)
        if self._holding:
            self._holding.units = units_of(settings.targets)
        fleet.put_in_force(plan, anyio.current_time())
        shown = settings.metrics
        metrics.configure(
            shown.tasks, shown.max_task_series, failure_reasons=shown.failure_reasons
        )
        metrics.show_apis(fleet.doors)
        self.ending.change(settings.finished)
        if self.elsewhere:
            self.elsewhere.retention = settings.finished.retention
        jobs = {
            name: (target.jobs, target.job_files)
            for name, target in settings.targets.items()
        }
        given = self._sources.of(jobs, self._origin.secrets(settings))
        await self.watch_list.change(given, settings.finished.retention)

    async def _take_up(self, targets: Collection[str]) -> None:
        """Begin to watch targets, as a reload that adds them.

        Raises:
            StoreError: What is known of them cannot be read.
        """
        notes = await self.outside.store.notes()
        await self.watch_list.take_over(targets)
        self.fleet.follow(anyio.current_time())
        self._trust.resume(notes, targets)
        self.metrics.show_apis(self.fleet.doors)
        await self.watch_list.look()
        for courier in self.couriers:
            courier.wake()

    async def _wind_up(self, targets: Collection[str]) -> None:
        """Ask targets no more; commit what they answered, end what is being told."""
        self.fleet.follow(anyio.current_time())
        await self.committer.write_out(targets)
        for courier in self.couriers:
            await courier.finish(targets)

    def _let_go(self, targets: Collection[str]) -> None:
        """Leave targets to another replica; the store keeps what it has of them."""
        self.fleet.follow(anyio.current_time())
        self.committer.let_go(targets)
        self.watch_list.let_go(targets)
        self.metrics.show_apis(self.fleet.doors)

    async def work(self) -> None:
        """Do everything until the end is asked for; then commit and tell what is left."""
        outside = self.outside
        async with anyio.create_task_group() as telling:
            for courier in self.couriers:
                telling.start_soon(courier.run)
            async with anyio.create_task_group() as committing:
                committing.start_soon(self.committer.run)
                async with anyio.create_task_group() as asking:
                    asking.start_soon(self.poller.run)
                    asking.start_soon(self._look_regularly)
                    asking.start_soon(self.reloader.run)
                    prune = partial(prune_regularly, outside.store, self.couriers)
                    asking.start_soon(partial(prune, now=outside.wall))
                    if self.keeper:
                        asking.start_soon(self.keeper.run)
                    if self.elsewhere:
                        asking.start_soon(self.elsewhere.run)
                    await self._wishes.end.wait()
                    asking.cancel_scope.cancel()
                log.info("watcher.stopping")
                outside.notifier.stopping()
                self.committer.stop()
            for courier in self.couriers:
                courier.stop()
        if self.keeper:
            await self.keeper.leave()
        log.info("watcher.stopped")

    async def _look_regularly(self) -> None:
        while True:
            await self.watch_list.look()
            await self._trust.look()
            self.outside.notifier.status(self.watch_list.summary)
            self.ending.look(
                anyio.current_time(),
                complete=self.watch_list.complete,
                scraped=self.metrics.scraped,
            )
            await anyio.sleep(LOOK_EVERY)
