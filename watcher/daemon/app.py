"""The process: opens what the daemon stands on, serves its pages, heeds signals."""

from __future__ import annotations

import errno
import platform
import random
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from dataclasses import dataclass

import anyio
import structlog

from watcher import __version__
from watcher.client.transport import open_session
from watcher.core.errors import HostError, SettingsError, WatcherError
from watcher.core.model import JobKey, check_job_id
from watcher.core.transitions import rfc3339
from watcher.daemon.collecting import not_while_beginning, spare_what_lives
from watcher.daemon.notify import open_notifier
from watcher.daemon.rooms import Outside, Rooms
from watcher.daemon.signals import Wishes, heeding
from watcher.daemon.targets import Targets
from watcher.logs import LineWriter, configure_logging
from watcher.pages.api import (
    AddJob,
    EventsPage,
    JobPage,
    JobsPage,
    Reload,
    RemoveJob,
    Rows,
    ShowConfig,
    StreamPage,
    WatcherPage,
)
from watcher.pages.health import LivenessPage, ReadinessPage
from watcher.pages.ui import RUNBOOKS, ui_pages
from watcher.ports import Action, Board, Page, Retention, Sink, Store
from watcher.settings.loading import Origin
from watcher.settings.schema import Settings
from watcher.settings.showing import as_yaml
from watcher.sinks.kinds import open_sink
from watcher.sinks.log import LogSink
from watcher.store import open_store
from watcher.web.server import Rules, serve
from watcher.web.web_config import WebConfig

INTERNAL_ERROR = 70
_PASSING = {errno.EADDRINUSE, errno.EADDRNOTAVAIL}
"""Why an address may be had a moment later."""

wall = time.time  # noqa: TID251 - handed out from here
log = structlog.get_logger()

Run = Callable[[LineWriter], Awaitable[int]]
FaultPoint = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Started:
    """A daemon that answers.

    Attributes:
        url: Address of its pages.
        board: What is known of the jobs.
    """

    url: str
    board: Board


def main(settings: Settings, run: Run) -> int:
    """Set up the process, run the daemon in it, and return the exit code.

    Raises:
        SettingsError: What is configured cannot be had, such as an address.
        StoreError: The store cannot be opened.
    """
    _leave_no_core()
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


def _leave_no_core() -> None:
    """Let no dump of the memory be written, which holds keys.

    One byte, for zero does not keep the kernel from handing it to another program.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if most == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


async def run(
    origin: Origin,
    settings: Settings,
    writer: LineWriter,
    started: Callable[[Started], None] = lambda _: None,
    fault_point: FaultPoint = lambda _: None,
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
        HostError: The address of the pages cannot be had now.
        StoreError: The store cannot be opened.
    """
    wishes = Wishes()
    async with AsyncExitStack() as stack:
        stack.enter_context(heeding(wishes))
        outside = await _open(stack, settings, writer, fault_point)
        rooms = Rooms(outside, origin, settings, wishes)
        with not_while_beginning():
            await rooms.begin()
        url = await stack.enter_async_context(_serve(rooms))
        started(Started(url, rooms.board))
        _tell_start(settings, rooms, url)
        outside.notifier.ready()
        async with anyio.create_task_group() as beside:
            beside.start_soon(spare_what_lives)
            await rooms.work()
            beside.cancel_scope.cancel()
        return rooms.ending.exit_code


def _tell_start(settings: Settings, rooms: Rooms, url: str) -> None:
    busy = {key.target for key in rooms.board.records}
    idle = [
        name
        for name, target in settings.targets.items()
        # Where replicas share a store none of them watches anything yet.
        if name not in busy and target.discover is None and not rooms.keeper
    ]
    tell = log.warning if idle else log.info
    tell(
        "watcher.started",
        version=__version__,
        targets=list(settings.targets),
        jobs=len(rooms.board.records),
        idle_targets=idle,
        listen=url,
    )


async def _open(
    stack: AsyncExitStack, settings: Settings, writer: LineWriter, fault: FaultPoint
) -> Outside:
    sinks = await _open_sinks(stack, settings, writer)
    session = await stack.enter_async_context(open_session())
    return Outside(
        store=await stack.enter_async_context(_open_store(settings, sinks, fault)),
        doors=Targets(session, wall),
        sinks=sinks,
        notifier=stack.enter_context(open_notifier()),
        wall=wall,
        chance=random.random,
        fault_point=fault,
    )


async def _open_sinks(
    stack: AsyncExitStack, settings: Settings, writer: LineWriter
) -> list[Sink]:
    opened = [
        await stack.enter_async_context(open_sink(given, wall))
        for given in settings.sinks
    ]
    return [LogSink(writer.send, fold=writer.for_people), *opened]


def _open_store(
    settings: Settings, sinks: Sequence[Sink], fault_point: FaultPoint
) -> AbstractAsyncContextManager[Store]:
    journal, password = settings.journal, settings.store.password
    return open_store(
        settings.store.url,
        password=password.get_secret_value() if password else None,
        lease=settings.replica.lease,
        now=wall,
        sinks=[sink.name for sink in sinks],
        retention=Retention(journal.max_age, journal.max_events),
        fault_point=fault_point,
    )


def _pages(rooms: Rooms) -> list[Page]:
    poller, watch_list = rooms.poller, rooms.watch_list

    def next_due(key: JobKey) -> float | None:
        due = rooms.fleet.due_at(key)
        return None if due is None else due - anyio.current_time()

    rows = Rows(rooms.shown, next_due, wall, rooms.replica_of)
    facts = {"version": __version__, "started_at": rfc3339(wall())}
    return [
        *ui_pages(),
        rooms.metrics,
        LivenessPage(lambda: poller.turned_at, anyio.current_time),
        ReadinessPage(lambda: watch_list.looked and poller.attempted),
        JobsPage(rows),
        JobPage(rows),
        EventsPage(rooms.outside.store),
        StreamPage(rows),
        WatcherPage(
            rooms.shown,
            rooms.metrics.own.registry.collect,
            rooms.fleet.manners,
            facts,
            wall,
            lambda: rooms.keeper.shown() if rooms.keeper else None,
        ),
    ]


def _actions(rooms: Rooms) -> list[Action]:
    reloader = rooms.reloader
    return [
        AddJob(rooms.watch_list.add, check_job_id),
        RemoveJob(rooms.watch_list.remove),
        Reload(reloader.now),
        ShowConfig(lambda: as_yaml(reloader.settings)),
    ]


@asynccontextmanager
async def _serve(rooms: Rooms) -> AsyncIterator[str]:
    reloader = rooms.reloader
    settings = reloader.settings.server
    file = settings.web_config_file
    web_config = WebConfig(file) if file else None

    def token() -> str | None:
        given = reloader.settings.server.api_token
        return given.get_secret_value() if given else None

    rules = Rules(
        token,
        settings.names,
        web_config,
        settings.max_connections,
        rooms.metrics.own.login_failed,
    )
    pages, actions = _pages(rooms), _actions(rooms)
    async with AsyncExitStack() as stack:
        server = serve(pages, *settings.address, actions=actions, rules=rules)
        try:
            host, port = await stack.enter_async_context(server)
        except OSError as exc:
            finding = f"server.listen: cannot listen on {settings.listen}"
            finding += f": {exc.strerror}"
            if exc.errno in _PASSING:
                raise HostError(finding) from None
            raise SettingsError([finding]) from None
        scheme = "https" if web_config and web_config.tls else "http"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        rooms.metrics.own.show_addresses(lambda: addresses(reloader.settings, url))
        yield url


def addresses(settings: Settings, url: str) -> tuple[str, str]:
    """Return where people find the pages, and the runbooks.

    Args:
        settings: Those in force.
        url: Where the pages are served. Where that is on all interfaces, people are
            taken to know this machine by its name.
    """
    anywhere = "://0.0.0.0:", "://[::]:"
    for text in anywhere:
        url = url.replace(text, f"://{platform.node()}:")
    public = (settings.server.public_url or url).rstrip("/")
    return public, (settings.metrics.runbook_url or public + RUNBOOKS).rstrip("/")
