"""The rows of the list of jobs: follow the board by what changed, and know their order.

What a row says of the tasks is made when it is first shown, and kept until it changes.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import anyio
import anyio.lowlevel

from watcher.core.model import JobKey, JobRecord, Phase, shows_the_same
from watcher.pages.api.asking import Filter
from watcher.pages.api.order import Order, Place, has_failures, key_at
from watcher.pages.api.views import Digest, Shown, digest, moment, row
from watcher.ports import Board

NextDue = Callable[[JobKey], float | None]
Clock = Callable[[], float]

SLICE = 200
"""Jobs that are looked at without a pause."""
MANY = 1000
"""Changes at once, above which an order is rather made anew."""

Move: TypeAlias = tuple[JobRecord | None, JobRecord | None]


@dataclass(slots=True)
class _Row:
    """A job as it is shown.

    Attributes:
        version: Of the board, when it last changed in more than its looks.
    """

    record: JobRecord
    version: int
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Picked:
    """A page of the list.

    Attributes:
        keys: The jobs on it.
        total: How many are asked for, on all pages.
        last: Where the page ended; None where nothing follows.
    """

    keys: Sequence[JobKey]
    total: int
    last: Place | None


class Rows:
    """Every job that the board shows, for the list and the stream.

    Attributes:
        version: Of the board, as far as it was followed.
    """

    def __init__(self, board: Board, next_due: NextDue, now: Clock) -> None:
        """Make the rows.

        Args:
            board: What is known of the jobs.
            next_due: Seconds until a job is asked next; None where no time is set.
            now: Wall clock, Unix seconds.
        """
        self.board = board
        self.version = 0
        self._life = secrets.token_hex(4)
        self._next_due = next_due
        self._now = now
        self._turn = anyio.Lock()
        self._rows: dict[JobKey, _Row] = {}
        self._orders: dict[str, Order] = {}
        self._counts: Counter[tuple[str, Phase]] = Counter()
        self._failing: Counter[str] = Counter()

    async def catch_up(self) -> int:
        """Take in what changed since the last time; return the version reached."""
        async with self._turn:
            version = self.board.version
            changed = self.board.changed_since(self.version)
            if changed is None:
                changed = [*self._rows, *self.board.records]
            moved: list[Move] = []
            for number, key in enumerate(changed, 1):
                moved += self._take(key)
                if number % SLICE == 0:
                    await anyio.lowlevel.checkpoint()
            self._reorder(moved)
            self.version = version
        return version

    def _reorder(self, moved: Sequence[Move]) -> None:
        if len(moved) > MANY:
            self._orders.clear()
        for order in self._orders.values():
            for before, after in moved:
                order.move(before, after)

    def _take(self, key: JobKey) -> Sequence[Move]:
        """Take in one job as it is now; return what it was and is, where that differs."""
        known, record = self._rows.get(key), self.board.records.get(key)
        before = known.record if known else None
        if known and before and record and _looks_the_same(before, record):
            known.record = record
            return ()
        if record is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = _Row(record, self.board.version_of(key))
        self._count(before, -1)
        self._count(record, 1)
        return ((before, record),)

    def _count(self, record: JobRecord | None, by: int) -> None:
        if record is None:
            return
        target = record.key.target
        self._counts[target, record.phase] += by
        if record.phase is Phase.ACTIVE and has_failures(record):
            self._failing[target] += by

    def mark(self, version: int) -> str:
        """Write a version of the board so that no other process takes it for its own."""
        return f"{version}-{self._life}"

    def read_mark(self, text: str) -> int | None:
        """Read it again; None where another process wrote it."""
        version, _, life = text.partition("-")
        ours = life == self._life and version.isascii() and version.isdecimal()
        return int(version) if ours else None

    def changed_since(self, version: int) -> Collection[tuple[JobKey, int]] | None:
        """Return what changed in more than its looks, up to the version reached.

        Returns:
            Each with a version to go on from, which never falls: who has seen one of
            them has seen all before it. None: it is not known any more.
        """
        changed = self.board.changed_since(version)
        if changed is None:
            return None
        rows, board = self._rows, self.board
        return [
            (key, min(board.version_of(key), self.version))
            for key in changed
            if (
                rows[key].version > version if key in rows else key not in board.records
            )
        ]

    def counts(self, target: str | None) -> Mapping[Phase, int]:
        """Count the jobs of a target, or all, by phase."""
        found = dict.fromkeys(Phase, 0)
        for (name, phase), count in self._counts.items():
            if target in {None, name}:
                found[phase] += count
        return found

    def failing(self, target: str | None) -> int:
        """Count the active ones of them on which something failed already."""
        return self._failing.total() if target is None else self._failing[target]

    def admitted(self, key: JobKey, which: Filter) -> bool:
        """Whether a job is shown, and asked for."""
        row = self._rows.get(key)
        return row is not None and which.admits(row.record)

    async def pick(
        self, which: Filter, sort: str, after: Place | None, limit: int
    ) -> Picked:
        """Choose a page of the list."""
        order = self._orders.get(sort)
        if order is None:
            records = [row.record for row in self._rows.values()]
            order = self._orders[sort] = Order(sort, records)
        if not which.q:
            return self._pick_quickly(which, order.after(after), limit)
        return await self._pick_by_search(which, order, after, limit)

    def _pick_quickly(
        self, which: Filter, places: Sequence[Place], limit: int
    ) -> Picked:
        counts = self.counts(which.target)
        total = sum(counts[phase] for phase in which.phases or Phase)
        found: list[Place] = []
        for place in places:
            if self.admitted(key_at(place), which):
                found.append(place)
                if len(found) > limit:
                    break
        return _picked(found, limit, total)

    async def _pick_by_search(
        self, which: Filter, order: Order, after: Place | None, limit: int
    ) -> Picked:
        found: list[Place] = []
        total = 0
        for number, place in enumerate(order.after(None), 1):
            if self.admitted(key_at(place), which):
                total += 1
                if len(found) <= limit and (after is None or place > after):
                    found.append(place)
            if number % SLICE == 0:
                await anyio.lowlevel.checkpoint()
        return _picked(found, limit, total)

    def find(self, key: JobKey) -> tuple[JobRecord, Digest, float | None] | None:
        """Return what a job is shown by; None where it went.

        Returns:
            Its record, the sum of its tasks, and when it is asked next.
        """
        found = self._rows.get(key)
        if found is None:
            return None
        if found.digest is None:
            found.digest = digest(found.record)
        due = moment(self._now(), self._next_due(key))
        return found.record, found.digest, due

    def show(self, key: JobKey) -> Shown | None:
        """Lay out a row as it is now; None where the job went."""
        found = self.find(key)
        return None if found is None else row(*found)


def _picked(found: Sequence[Place], limit: int, total: int) -> Picked:
    keys = [key_at(place) for place in found[:limit]]
    return Picked(keys, total, found[limit - 1] if len(found) > limit else None)


def _looks_the_same(one: JobRecord, other: JobRecord) -> bool:
    """Whether a row needs no look: nothing changed but when it was asked."""
    if (one.failure and one.failure.reason) != (other.failure and other.failure.reason):
        return False
    return shows_the_same(one, other)
