"""The wait itself: until what is watched has ended, as the rooms that watch see it."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import anyio

from watcher.client.transport import open_session
from watcher.commands.command import Exit
from watcher.core.errors import Reason
from watcher.core.listing import Mode
from watcher.core.model import (
    EventName,
    JobKey,
    JobRecord,
    JournalEvent,
    Phase,
    PollFailed,
    Transition,
)
from watcher.core.schedule import TICK
from watcher.daemon.fleet import OpenDoor
from watcher.daemon.joining import Watching, join
from watcher.daemon.targets import Targets
from watcher.polling.board import Board
from watcher.ports import Retention
from watcher.settings.schema import Settings
from watcher.store import MemoryStore

SHOW_EVERY = 1.0
"""Seconds after which what is shown is made anew, though nothing changed."""
REFUSALS = 3
"""Refusals of one job running, after which nobody believes in the key any more."""
BATCH = 1000
OWED_TO = "wait"
ENDED_BY = 128
"""What shells add to the number of the signal that ended a program."""
READER_LEFT = ENDED_BY + signal.SIGPIPE


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is waited for.

    Attributes:
        keys: The jobs.
        any: Whether one of them is enough.
        timeout: Seconds; infinity for no end.
    """

    keys: Sequence[JobKey]
    any: bool
    timeout: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How it goes.

    Attributes:
        records: What is known of each job, in the order in which they were given.
        seconds: Since the wait began.
    """

    records: Sequence[JobRecord]
    seconds: float


class Face(Protocol):
    """Who is shown how it goes."""

    async def show(self, progress: Progress, events: Sequence[JournalEvent]) -> None:
        """Show how it goes, and what was told since.

        Raises:
            OSError: Nobody reads it any more.
        """


class Hearing:
    """Hears from the poller whether the API answers.

    Attributes:
        answered: Whether it showed a job, or said that there is none.
    """

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self.answered = False

    def polled(
        self, target: str, seconds: float, lag: float, failure: Reason | None
    ) -> None:
        """Hear how a poll ended."""
        del target, seconds, lag
        self.answered = self.answered or failure in {None, Reason.NOT_FOUND}

    def listed(self, target: str, failure: Reason | None) -> None:
        """Hear of nothing: no list is asked for."""

    def committed(self, seconds: float) -> None:
        """Hear of what does not matter here."""

    def told(self, transitions: Sequence[Transition]) -> None:
        """Hear of what is read from the journal."""


async def watch(
    settings: Settings, wanted: Wanted, face: Face, wall: Callable[[], float]
) -> tuple[int, Progress]:
    """Watch jobs of one target until the wait for them is over.

    Args:
        settings: How they are asked for.
        wanted: The jobs.
        face: Who is shown how it goes.
        wall: Wall clock, Unix seconds.

    Returns:
        The exit code, and how it went.

    Raises:
        SettingsError: The target cannot be asked.
    """
    async with open_session() as session:
        open_door = Targets(session, wall).open
        return await watch_through(open_door, settings, wanted, face, wall)


async def watch_through(
    open_door: OpenDoor,
    settings: Settings,
    wanted: Wanted,
    face: Face,
    wall: Callable[[], float],
) -> tuple[int, Progress]:
    """Watch through a door that is opened here; see `watch`."""
    name = wanted.keys[0].target
    alone = {"jobs": (), "job_files": (), "discover": None}
    targets = {name: settings.targets[name].model_copy(update=alone)}
    poll = settings.poll.model_copy(update={"mode": Mode.DETAIL})
    board, hearing = Board(), Hearing()
    store = MemoryStore(now=wall, sinks=[OWED_TO], retention=Retention(events=0))
    watching = join(board, store, open_door, hearing, wall=wall)
    plan = watching.fleet.plan(targets, poll)
    watching.fleet.put_in_force(plan, anyio.current_time())
    await store.add(wanted.keys)
    await watching.watch_list.load()
    await watching.watch_list.change((), math.inf)
    wait = Wait(wanted, watching, board, store, hearing, wall)
    return await wait.run(face), wait.progress


class Wait:
    """Waits for jobs that are being watched."""

    def __init__(
        self,
        wanted: Wanted,
        watching: Watching,
        board: Board,
        store: MemoryStore,
        hearing: Hearing,
        wall: Callable[[], float],
    ) -> None:
        """Wait for nothing yet.

        Args:
            wanted: The jobs; they are in the watch list.
            watching: What watches them.
            board: Where it shows them.
            store: Where it tells of them.
            hearing: What it tells of the API.
            wall: Wall clock, Unix seconds.
        """
        self._wanted = wanted
        self._watching = watching
        self._board = board
        self._store = store
        self._hearing = hearing
        self._wall = wall
        self._began = anyio.current_time()
        self._seen: set[JobKey] = set()
        self._signal = 0

    @property
    def progress(self) -> Progress:
        """How it goes."""
        shown = self._board.records
        records = [shown.get(key) or JobRecord(key) for key in self._wanted.keys]
        return Progress(records, anyio.current_time() - self._began)

    async def run(self, face: Face) -> int:
        """Wait, and return the exit code."""
        code = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watching.committer.run)
            tasks.start_soon(self._watching.poller.run)
            tasks.start_soon(self._heed, tasks.cancel_scope)
            with anyio.move_on_after(self._wanted.timeout):
                try:
                    code = await self._until_over(face)
                except OSError:
                    code = READER_LEFT
            tasks.cancel_scope.cancel()
        if self._signal:
            return ENDED_BY + self._signal
        return self._too_late() if code is None else code

    async def _heed(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                self._signal = number
                scope.cancel()

    async def _until_over(self, face: Face) -> int:
        while True:
            version = self._board.version
            await self._watch_again()
            progress = self.progress
            code = self._verdict(progress.records)
            await self._tell(face, progress)
            if code is not None:
                return code
            with anyio.move_on_after(SHOW_EVERY):
                await self._board.changed(version)
            await anyio.sleep(TICK)  # what comes together is shown together

    async def _watch_again(self) -> None:
        """Go on with jobs that were concluded to be gone though they never were there."""
        watch_list = self._watching.watch_list
        for record in self.progress.records:
            if record.phase is Phase.GONE and record.job is None:
                await watch_list.remove(record.key)
                await watch_list.add(record.key)

    async def _tell(self, face: Face, progress: Progress) -> None:
        """Show how it goes, with the events that are owed; no others are kept."""
        while True:
            events = await self._store.undelivered(OWED_TO, BATCH)
            await face.show(progress, [each for each in events if self._counts(each)])
            await self._store.delivered(OWED_TO, [each.seq for each in events])
            if len(events) < BATCH:
                break
        await self._store.prune(self._wall())

    def _counts(self, event: JournalEvent) -> bool:
        """Whether an event is of a job that was seen; what never was is not gone."""
        if event.transition.event == EventName.FIRST_SEEN:
            self._seen.add(event.transition.key)
        return event.transition.key in self._seen

    def _verdict(self, records: Collection[JobRecord]) -> int | None:
        over = [
            record.phase
            for record in records
            if record.phase.finished and record.job is not None
        ]
        if len(over) == len(records) or (over and self._wanted.any):
            well = all(phase is Phase.SUCCEEDED for phase in over)
            return Exit.OK if well else Exit.FAILED
        doors = self._watching.fleet.doors.values()
        locked = any(door.locked for door in doors)
        refused = any(
            is_refused(each.failure) and each.failures >= REFUSALS for each in records
        )
        return Exit.REFUSED if locked or refused else None

    def _too_late(self) -> int:
        if self._hearing.answered:
            return Exit.TIMED_OUT
        refused = any(is_refused(each.failure) for each in self.progress.records)
        return Exit.REFUSED if refused else Exit.UNAVAILABLE


def is_refused(failure: PollFailed | None) -> bool:
    """Whether a poll failed for its credentials: refused, held back, or none were had."""
    return (
        failure is not None
        and failure.reason is Reason.REJECTED
        and failure.status_code in {None, HTTPStatus.UNAUTHORIZED}
    )
