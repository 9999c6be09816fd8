"""The composition root: opens everything, in one exit stack and one task group."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import structlog

from watcher import __version__
from watcher.client.transport import open_session
from watcher.core.errors import SettingsError, WatcherError
from watcher.core.model import check_job_id
from watcher.daemon.notify import Notifier, open_notifier
from watcher.daemon.reloader import Reload
from watcher.daemon.targets import Targets
from watcher.daemon.watch_list import Watching
from watcher.logs import LineWriter, configure_logging
from watcher.pages.api import (
    AddJob,
    Bell,
    EventsPage,
    JobPage,
    JobsPage,
    RemoveJob,
    ShowConfig,
)
from watcher.pages.api import Reload as ReloadAction
from watcher.pages.health import LivenessPage, ReadinessPage
from watcher.pages.landing import LandingPage
from watcher.pages.metrics import MetricsPage
from watcher.polling.poller import Poller
from watcher.ports import Action, Page, Sink, Store
from watcher.settings.loading import Origin
from watcher.settings.schema import Settings
from watcher.settings.showing import as_yaml
from watcher.sinks.courier import Courier, prune_regularly
from watcher.sinks.log import LogSink
from watcher.sinks.webhook import WebhookSink
from watcher.store import open_store
from watcher.web.server import serve
from watcher.web.web_config import WebConfig

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


Run = Callable[[LineWriter], Awaitable[int]]


def _ignore(_: Started) -> None:
    return None


def _no_fault(_: str) -> None:
    return None


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
        return anyio.run(run, writer)
    except (WatcherError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        log.critical("watcher.crashed", exc_info=True)
        return INTERNAL_ERROR
    finally:
        writer.close()


async def run(
    origin: Origin,
    settings: Settings,
    writer: LineWriter,
    started: Callable[[Started], None] = _ignore,
    fault_point: Callable[[str], None] = _no_fault,
) -> int:
    """Watch until a signal comes, or until all is done where that is wished.

    Args:
        origin: Where the settings come from, to read them again.
        settings: What to watch and how.
        writer: Where the log sink writes.
        started: Called once the pages are served.
        fault_point: Called with the name of each step of commit and delivery; for
            tests that end the process there.

    Returns:
        The exit code: 1 where `finished.exit_when_done` ended it and a job did not
        succeed, else 0.

    Raises:
        SettingsError: A target, or the address of the pages, cannot be had.
        StoreError: The store cannot be opened.
    """
    async with AsyncExitStack() as stack:
        sinks = await _open_sinks(stack, settings, writer)
        store = await stack.enter_async_context(
            _open_store(settings, sinks, fault_point)
        )
        metrics = MetricsPage()
        couriers = [
            Courier(sink, store, jitter=random.random, fault_point=fault_point)
            for sink in sinks
        ]
        session = await stack.enter_async_context(open_session())
        notifier = stack.enter_context(open_notifier())
        targets = Targets(session, wall)
        reload = Reload(origin, settings, targets, metrics, wall, notifier)
        bell = Bell()
        poller = Poller(
            reload.lanes,
            store,
            metrics,
            wall=wall,
            chance=random.random,
            announce=partial(_wake, couriers, bell),
            turned=notifier.turned,
        )
        metrics.own.show_sinks(couriers)
        metrics.own.show_pending(lambda: poller.pending)
        watching = Watching(
            poller,
            reload.lanes,
            store,
            settings.finished,
            served=metrics.served,
            wall=wall,
            status=notifier.status,
        )
        watching.sources = reload.sources()
        board = (lambda: poller.records, reload.next_due, wall)
        pages: list[Page] = [
            *_pages(poller, watching, metrics),
            JobsPage(*board),
            JobPage(*board),
            EventsPage(store.events, bell.stroke),
        ]
        actions: list[Action] = [
            AddJob(watching.add, check_job_id),
            RemoveJob(watching.remove),
            ReloadAction(partial(reload.now, watching)),
            ShowConfig(lambda: as_yaml(reload.settings)),
        ]
        url = await stack.enter_async_context(_serve(pages, actions, reload))
        started(Started(url))
        log.info(
            "watcher.started",
            version=__version__,
            targets=list(settings.targets),
            listen=url,
        )
        notifier.ready()
        await _watch(poller, watching, reload, couriers, store, notifier)
        return watching.exit_code


async def _watch(
    poller: Poller,
    watching: Watching,
    reload: Reload,
    couriers: Sequence[Courier],
    store: Store,
    notifier: Notifier,
) -> None:
    async with anyio.create_task_group() as tasks:
        for courier in couriers:
            tasks.start_soon(courier.run)
        async with anyio.create_task_group() as helpers:
            helpers.start_soon(watching.run)
            helpers.start_soon(reload.run, watching)
            helpers.start_soon(_heed_signals, watching, reload)
            helpers.start_soon(partial(prune_regularly, store, couriers, now=wall))
            await poller.run(until=watching.stop.wait)
            helpers.cancel_scope.cancel()
        log.info("watcher.stopping")
        notifier.stopping()
        for courier in couriers:
            courier.stop()
    log.info("watcher.stopped")


async def _heed_signals(watching: Watching, reload: Reload) -> None:
    with anyio.open_signal_receiver(
        signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    ) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                await reload.attempt(watching)
            else:
                watching.stop.set()


def _wake(couriers: Sequence[Courier], bell: Bell) -> None:
    bell.ring()
    for courier in couriers:
        courier.wake()


async def _open_sinks(
    stack: AsyncExitStack, settings: Settings, writer: LineWriter
) -> list[Sink]:
    sinks: list[Sink] = [LogSink(writer.send)]
    for given in settings.sinks:
        sink = WebhookSink(
            given.name,
            given.url.get_secret_value(),
            now=wall,
            secret=given.secret,
            events=given.events,
            phases=given.phases,
            timeout=given.timeout,
        )
        sinks.append(await stack.enter_async_context(sink))
    return sinks


@asynccontextmanager
async def _open_store(
    settings: Settings, sinks: Sequence[Sink], fault_point: Callable[[str], None]
) -> AsyncIterator[Store]:
    folder = Path(os.environ.get("STATE_DIRECTORY", "."))
    names = [sink.name for sink in sinks]
    async with open_store(
        settings.store.url,
        folder=folder,
        now=wall,
        sinks=names,
        fault_point=fault_point,
    ) as store:
        yield store


def _pages(poller: Poller, watching: Watching, metrics: MetricsPage) -> list[Page]:
    return [
        LandingPage(lambda: poller.records),
        metrics,
        LivenessPage(lambda: poller.turned_at, anyio.current_time),
        ReadinessPage(lambda: watching.looked and poller.attempted),
    ]


@asynccontextmanager
async def _serve(
    pages: Sequence[Page], actions: Sequence[Action], reload: Reload
) -> AsyncIterator[str]:
    settings = reload.settings
    file = settings.server.web_config_file
    web_config = WebConfig(file) if file else None

    def token() -> str | None:
        given = reload.settings.server.api_token
        return given.get_secret_value() if given else None

    async with AsyncExitStack() as stack:
        server = serve(
            pages,
            *settings.server.address,
            actions=actions,
            token=token,
            web_config=web_config,
        )
        try:
            host, port = await stack.enter_async_context(server)
        except OSError as exc:
            finding = f"cannot listen on {settings.server.listen}: {exc.strerror}"
            raise SettingsError([f"server.listen: {finding}"]) from None
        scheme = "https" if web_config and web_config.tls else "http"
        yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
