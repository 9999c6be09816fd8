"""What all replicas watch, for who looks at any one of them: read-only, never asked for.

The jobs of this replica's own targets are as its own board has them. Those of the others are
read from the store, so that they are as of the last commit: at each of their events, and all
of them once a minute. While a target changes hands its jobs stay shown as they last were.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from itertools import islice
from typing import Protocol

import anyio

from watcher.core.errors import StoreError
from watcher.core.model import JobKey, JobRecord
from watcher.daemon.holding import Holding
from watcher.polling.board import Board
from watcher.ports import JournalReader, Records

LOOK_EVERY = 1.0
"""Seconds between two looks at what others did."""
ALL_EVERY = 60.0
"""Seconds from the end of one reading of all jobs of others to the next, at least."""
SLICE = 200
"""Records that are read without a pause."""
REST = 4.0
"""Times as long as reading a slice took that nothing is read then."""
NEWS = 1000
"""Events that are read at once."""


class Kept(Records, JournalReader, Protocol):
    """Where all replicas keep what they know."""


class Elsewhere:
    """Shows the jobs of all replicas on one board.

    Attributes:
        board: Those of this replica and of all others; only this writes to it.
        retention: Seconds that a finished job stays visible.
    """

    def __init__(
        self,
        own: Board,
        store: Kept,
        holding: Holding,
        replica_of: Callable[[str], str | None],
        wall: Callable[[], float],
    ) -> None:
        """Show nothing yet.

        Args:
            own: What this replica watches.
            store: Where the others keep what they know.
            holding: Which targets are this replica's own.
            replica_of: Says who watches a target.
            wall: Wall clock, Unix seconds.
        """
        self.board = Board()
        self.retention = 0.0
        self._own = own
        self._store = store
        self._holding = holding
        self._replica_of = replica_of
        self._wall = wall
        self._hands: Mapping[str, str | None] = {}
        self._due: dict[JobKey, None] = {}
        self._heard: int = -1
        self._all_at = 0.0

    async def run(self) -> None:
        """Follow until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow_own)
            tasks.start_soon(self._repeat, self._hear)
            tasks.start_soon(self._repeat, self._read)

    async def _repeat(self, turn: Callable[[], Awaitable[None]]) -> None:
        while True:
            # The keeper tells of it; the next reading of all makes up for it.
            with suppress(StoreError):
                await turn()
            await anyio.sleep(LOOK_EVERY)

    async def _follow_own(self) -> None:
        """Show what this replica watches as soon as its own board does."""
        seen = 0
        while True:
            changed = self._own.changed_since(seen)
            seen = self._own.version
            if changed is None:
                changed = [*self._own.records, *self.board.records]
            records = self._own.records
            self.board.show([records[key] for key in changed if key in records])
            gone = [key for key in changed if key not in records]
            # What another took, or may take, stays shown.
            self.board.drop([k for k in gone if not self._is_another_s(k.target)])
            await self._own.changed(seen)

    def _is_another_s(self, target: str) -> bool:
        return target in self._holding.units and target not in self._holding.targets()

    async def _hear(self) -> None:
        """Note of which jobs another replica told something."""
        highest = await self._store.grown(self._heard)
        if self._heard < 0:  # the first reading of all has what was told before
            self._heard = highest
            return
        if highest < self._heard:
            self._heard, self._all_at = highest, 0.0
        events = await self._store.read(self._heard, NEWS)
        self._heard = events[-1].seq if events else highest
        keys = (event.transition.key for event in events)
        news = dict.fromkeys(key for key in keys if self._is_another_s(key.target))
        self._due = news | self._due

    async def _read(self) -> None:
        """Read the jobs of others that are due, a part of the time."""
        self._tell_hands()
        now = anyio.current_time()
        if now >= self._all_at and not self._due:
            await self._list()
        until = now + LOOK_EVERY
        while self._due and (began := anyio.current_time()) < until:
            keys = list(islice(self._due, SLICE))
            for key in keys:
                del self._due[key]
            self._take(keys, await self._store.load(keys))
            took = anyio.current_time() - began
            await anyio.sleep(min(REST * took, LOOK_EVERY))

    def _tell_hands(self) -> None:
        """Have the jobs of targets that changed hands looked at again."""
        before = self._hands
        self._hands = {name: self._replica_of(name) for name in self._holding.units}
        moved = {n for n, one in self._hands.items() if one != before.get(n)}
        if moved:
            records = self.board.records.values()
            self.board.show([each for each in records if each.key.target in moved])

    async def _list(self) -> None:
        """Have all jobs of others read, and show no more what nobody watches."""
        # The store keeps what is of targets that no settings name any more.
        known = await self._store.known()
        known = frozenset(k for k in known if k.target in self._holding.units)
        own, shown = self._own.records, self.board.records
        self.board.drop([k for k in shown if k not in known and k not in own])
        self._due = dict.fromkeys(k for k in known if self._is_another_s(k.target))
        self._all_at = anyio.current_time() + ALL_EVERY

    def _take(
        self, keys: Collection[JobKey], found: Mapping[JobKey, JobRecord]
    ) -> None:
        """Show what was read, but for what became this replica's own meanwhile."""
        keys = [key for key in keys if self._is_another_s(key.target)]
        now, shown = self._wall(), self.board.records
        over = {
            key
            for key in keys
            if (one := found.get(key)) is None
            or (one.finished_at and now - one.finished_at >= self.retention)
        }
        self.board.drop([key for key in over if key in shown])
        self.board.show(
            [found[k] for k in keys if k not in over and found[k] != shown.get(k)]
        )
