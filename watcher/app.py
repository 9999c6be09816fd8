"""The composition root: opens everything, in one exit stack and one task group."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import structlog

from watcher import __version__
from watcher import settings as settings_of
from watcher.client.api import ApiTarget, DevServerApi
from watcher.client.breaker import Breakers
from watcher.client.clock import ServerClock
from watcher.client.credentials.base import Credentials
from watcher.client.credentials.static import (
    EnvironmentCredentials,
    NoCredentials,
    StaticCredentials,
)
from watcher.client.line import Line
from watcher.client.signing import Key
from watcher.client.transport import open_session
from watcher.core.errors import Rejected, SettingsError, WatcherError
from watcher.core.model import Phase
from watcher.core.schedule import Cadence
from watcher.delivery import Courier, prune_regularly
from watcher.logs import LineWriter, configure_logging
from watcher.pages.health import LivenessPage, ReadinessPage
from watcher.pages.landing import LandingPage
from watcher.pages.metrics import MetricsPage
from watcher.poller import Lane, Poller
from watcher.ports import JobSource, Page, Store
from watcher.server import serve
from watcher.settings import Settings, Target, check_job_id
from watcher.sinks.log import LogSink
from watcher.sources import Configured, JobFiles
from watcher.store import open_store

LOOK_EVERY = 2.0
"""Seconds between two looks at the sources of jobs."""
INTERNAL_ERROR = 70

wall = time.time  # noqa: TID251 - handed out from here
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Started:
    """A daemon that answers.

    Attributes:
        url: Address of its pages.
    """

    url: str


def _ignore(_: Started) -> None:
    return None


Run = Callable[[Settings, LineWriter], Awaitable[int]]


def main(settings: Settings, run: Run) -> int:
    """Set up the process, run the daemon in it, and return the exit code.

    Raises:
        SettingsError: What is configured cannot be had, such as an address.
        StoreError: The store cannot be opened.
    """
    writer = configure_logging(
        settings.log.level, settings.log.format, sys.stdout, wall
    )
    try:
        return anyio.run(run, settings, writer)
    except (WatcherError, KeyboardInterrupt):
        raise
    except BaseException:
        log.critical("watcher.crashed", exc_info=True)
        return INTERNAL_ERROR
    finally:
        writer.close()


async def run(
    settings: Settings, writer: LineWriter, started: Callable[[Started], None] = _ignore
) -> int:
    """Watch until a signal comes, or until all is done where that is wished.

    Args:
        settings: What to watch and how.
        writer: Where the log sink writes.
        started: Called once the pages are served.

    Returns:
        The exit code: 1 where `finished.exit_when_done` ended it and a job did not
        succeed, else 0.

    Raises:
        SettingsError: The address of the pages cannot be had.
        StoreError: The store cannot be opened.
    """
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            open_store(
                settings.store.url,
                folder=_state_folder(),
                now=wall,
                sinks=[LogSink.name],
            )
        )
        metrics = MetricsPage(
            settings.targets,
            tasks=settings.metrics.tasks,
            max_task_series=settings.metrics.max_task_series,
        )
        courier = Courier(LogSink(writer.send), store, jitter=random.random)
        lanes = await stack.enter_async_context(_open_lanes(settings, metrics))
        poller = Poller(
            lanes,
            store,
            metrics,
            Cadence(settings.poll.interval, settings.poll.backoff_max),
            wall=wall,
            chance=random.random,
            announce=courier.wake,
        )
        watching = Watching(poller, _sources(settings), metrics, settings)
        pages = (
            LandingPage(lambda: poller.records),
            metrics,
            LivenessPage(lambda: poller.turned_at, anyio.current_time),
            ReadinessPage(lambda: watching.looked and poller.attempted),
        )
        url = await stack.enter_async_context(_serve(pages, settings))
        started(Started(url))
        log.info(
            "watcher.started",
            version=__version__,
            targets=list(settings.targets),
            listen=url,
        )
        await _watch(poller, watching, courier, store)
        return watching.exit_code


@asynccontextmanager
async def _serve(pages: Sequence[Page], settings: Settings) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        server = serve(pages, *settings.server.address)
        try:
            host, port = await stack.enter_async_context(server)
        except OSError as exc:
            finding = f"cannot listen on {settings.server.listen}: {exc.strerror}"
            raise SettingsError([f"server.listen: {finding}"]) from None
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _watch(
    poller: Poller, watching: Watching, courier: Courier, store: Store
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(courier.run)
        async with anyio.create_task_group() as helpers:
            helpers.start_soon(watching.run)
            helpers.start_soon(_stop_on_signal, watching.stop)
            helpers.start_soon(partial(prune_regularly, store, [courier], now=wall))
            await poller.run(until=watching.stop.wait)
            helpers.cancel_scope.cancel()
        log.info("watcher.stopping")
        courier.stop()
    log.info("watcher.stopped")


async def _stop_on_signal(stop: anyio.Event) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stop.set()


def _state_folder() -> Path:
    return Path(os.environ.get("STATE_DIRECTORY", "."))


class Watching:
    """Keeps the poller's jobs the same as what the sources say.

    Attributes:
        looked: Whether the sources were read once.
        stop: Set when the daemon is to end.
    """

    def __init__(
        self,
        poller: Poller,
        sources: Collection[JobSource],
        metrics: MetricsPage,
        settings: Settings,
    ) -> None:
        self.looked = False
        self.stop = anyio.Event()
        self._poller = poller
        self._sources = sources
        self._metrics = metrics
        self._finished = settings.finished
        self._problems: frozenset[str] = frozenset()

    @property
    def exit_code(self) -> int:
        """0, or 1 where a job of a daemon that ends when done did not succeed."""
        phases = {record.phase for record in self._poller.records.values()}
        return int(self._finished.exit_when_done and not phases <= {Phase.SUCCEEDED})

    async def run(self) -> None:
        """Look at the sources every few seconds."""
        while True:
            await self._look()
            self.looked = True
            self._poller.retire(wall() - self._finished.retention, self._metrics.served)
            if self._finished.exit_when_done and self._poller.done:
                self.stop.set()
            await anyio.sleep(LOOK_EVERY)

    async def _look(self) -> None:
        readings = [await source.read() for source in self._sources]
        wanted = frozenset().union(*(reading.keys for reading in readings))
        problems = frozenset().union(*(reading.problems for reading in readings))
        for problem in sorted(problems - self._problems):
            log.warning("jobs.unreadable", problem=problem)
        self._problems = problems
        gone = self._poller.watched - wanted
        new = sorted(wanted - self._poller.watched)
        if gone:
            await self._poller.unwatch(gone)
        if new:
            await self._poller.watch(new)
        if self.looked and (gone or new):
            log.info("jobs.changed", added=len(new), removed=len(gone))


@asynccontextmanager
async def _open_lanes(
    settings: Settings, metrics: MetricsPage
) -> AsyncIterator[dict[str, Lane]]:
    poll = settings.poll
    async with open_session(poll.max_in_flight) as session:
        line = Line(session, ServerClock(wall), Breakers(_tell_breaker))
        apis = {
            name: DevServerApi(
                line,
                _api_target(target, poll.timeout),
                _credentials(target),
                partial(metrics.requested, name),
            )
            for name, target in settings.targets.items()
        }
        metrics.show_apis(apis)
        yield {
            name: Lane.open(name, api, poll.requests_per_second, poll.max_in_flight)
            for name, api in apis.items()
        }


def _api_target(target: Target, timeout: float) -> ApiTarget:
    return ApiTarget(
        endpoint=target.url,
        project_id=target.project_id,
        region=target.region,
        timeout=timeout,
        ca_file=target.ca_file,
    )


def _credentials(target: Target) -> Credentials:
    match target.credentials:
        case settings_of.NoCredentials():
            return NoCredentials()
        case settings_of.StaticCredentials() as given:
            return StaticCredentials(
                Key(given.access_key, given.secret_key, given.security_token)
            )
        case _:
            return EnvironmentCredentials()


def _tell_breaker(account: str, refusal: Rejected | None) -> None:
    if refusal is None:
        log.info("credentials.accepted", access_key=account)
    else:
        log.error(
            "credentials.locked",
            access_key=account,
            refusal=refusal.refusal,
            error_msg=refusal.message,
        )


def _sources(settings: Settings) -> list[JobSource]:
    sources: list[JobSource] = []
    for name, target in settings.targets.items():
        sources.append(Configured(name, target.jobs))
        if target.job_files:
            sources.append(JobFiles(name, target.job_files, check_job_id))
    return sources
