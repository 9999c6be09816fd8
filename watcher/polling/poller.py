"""Releases what is due: the only place that waits for time.

One turn of the loop sends all that may go now; it waits for time, for answers and for
room, and never for the store.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import anyio

from watcher.core.errors import ApiError
from watcher.core.model import PollFailed, Snapshot
from watcher.core.schedule import tick_after
from watcher.polling.board import Board
from watcher.polling.committer import Answer, Committer, log_notices
from watcher.polling.release import next_release, release
from watcher.polling.target import Look, PageLook, Target
from watcher.ports import Observer

LONGEST_TURN = 1.0
"""Seconds; the loop turns at least this often, due or not."""
SHORTEST_TURN = 0.02
"""Seconds; places that answers free within it are taken together."""

_Answer = TypeVar("_Answer")


class Poller:
    """Asks the targets for what is due on them.

    Attributes:
        turned_at: Monotonic time of the loop's last turn; liveness is its age.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        board: Board,
        committer: Committer,
        observer: Observer,
        *,
        chance: Callable[[], float],
        turned: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Make a poller; it asks only within `run`.

        Args:
            targets: By name; may change while it runs.
            board: What is known of the jobs.
            committer: Takes in the answers.
            observer: Told of each poll.
            chance: Draws a number in [0, 1).
            turned: Called with the monotonic time at each turn of the loop.
        """
        self._targets = targets
        self._board = board
        self._committer = committer
        self._observer = observer
        self._chance = chance
        self._turned = turned
        self._woken = anyio.Event()
        self._until = 0.0
        self.turned_at = 0.0

    @property
    def attempted(self) -> bool:
        """Whether every job was asked once or is held back by its target's state."""
        return all(target.attempted for target in self._targets.values())

    def wake(self) -> None:
        """Look at once at what is due."""
        self._woken.set()

    async def run(self) -> None:
        """Turn until cancelled; what is on its way then is given up."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                now = self.turned_at = anyio.current_time()
                self._turned(now)
                self._release(tasks, now)
                await self._wait(now)

    def _release(self, tasks: asyncio.TaskGroup, now: float) -> None:
        if not self._committer.has_room:
            return
        for target, request in release(self._targets.values(), now):
            if isinstance(request, Look):
                tasks.create_task(self._look(target, request))
            else:
                tasks.create_task(self._list(target, request))

    async def _wait(self, now: float) -> None:
        soonest = next_release(self._targets.values(), now)
        self._until = min(soonest, now + LONGEST_TURN)
        with anyio.move_on_after(self._until - anyio.current_time()):
            await self._woken.wait()
        self._woken = anyio.Event()

    async def _look(self, target: Target, look: Look) -> None:
        outcome = await _asked(look.api.fetch(look.key.job_id, look.known))
        now = asyncio.get_running_loop().time()
        if not self._is_in_force(target):
            return
        if target.landed(look, outcome, now, self._chance()):
            self._take_in(target, look, outcome, now)
        self._plan(target, now)

    def _take_in(
        self, target: Target, look: Look, outcome: Snapshot | PollFailed, now: float
    ) -> None:
        self._observer.polled(
            target.name,
            seconds=now - look.sent_at,
            lag=look.sent_at - look.due,
            failure=outcome.reason if isinstance(outcome, PollFailed) else None,
        )
        door = look.api
        record = self._committer.take_in(
            Answer(
                look.key, outcome, look.sent_at, now, door.project_id, door.clock_skew
            )
        )
        log_notices(target.settle(look, outcome, record, now, self._chance()))

    async def _list(self, target: Target, asked: PageLook) -> None:
        limit, offset = asked.listing.page
        filters = asked.listing.filters
        page = await _asked(asked.api.list_jobs(filters, limit, offset))
        now, records = anyio.current_time(), self._board.records
        if not self._is_in_force(target):
            return
        failure = page.reason if isinstance(page, PollFailed) else None
        self._observer.listed(target.name, failure)
        log_notices(target.take_page(asked, page, records, now, self._chance()))
        self._plan(target, now)

    def _is_in_force(self, target: Target) -> bool:
        """Whether a reload has not taken the target away while it was asked."""
        return self._targets.get(target.name) is target

    def _plan(self, target: Target, now: float) -> None:
        """Turn earlier where an answer made something due, or room for what is.

        Room is left to the next tick only for a moment: where a key lets few requests
        be on their way, waiting for the tick would leave its places empty.
        """
        due = target.next_send(now)
        if due > now:
            if due < math.inf and tick_after(due) < self._until:
                self.wake()
        elif not target.in_flight:
            self.wake()
        elif (soon := self.turned_at + SHORTEST_TURN) < self._until:
            self._until = soon  # so that it is called once a turn
            asyncio.get_running_loop().call_at(soon, self.wake)


async def _asked(answer: Awaitable[_Answer]) -> _Answer | PollFailed:
    try:
        return await answer
    except ApiError as exc:
        return PollFailed.of(exc)
