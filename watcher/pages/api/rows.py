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
from watcher.pages.api.order import Order, Place, has_failures
from watcher.pages.api.texts import Texts, texts_of
from watcher.pages.api.views import Digest, Shown, digest, moment, row
from watcher.ports import Board

NextDue = Callable[[JobKey], float | None]
Clock = Callable[[], float]
Found: TypeAlias = tuple[JobRecord, Digest, float | None, str | None]

SLICE = 200
"""Jobs that are taken in without a pause."""
GLANCE = 2000
"""Jobs that are gone through without a pause."""


@dataclass(slots=True)
class _Row:
    """A job as it is shown.

    Attributes:
        version: Of the board, when it last changed in more than its looks.
        texts: In which a search looks, each once.
        replica: Who watches it, where several share a store.
    """

    record: JobRecord
    version: int
    texts: Sequence[str]
    replica: str | None
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

    def __init__(
        self,
        board: Board,
        next_due: NextDue,
        now: Clock,
        replica_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """Make the rows.

        Args:
            board: What is known of the jobs.
            next_due: Seconds until a job is asked next; None where no time is set.
            now: Wall clock, Unix seconds.
            replica_of: Who watches a target, where several share a store. The board
                tells of its jobs where that changes.
        """
        self.board = board
        self.version = 0
        self._life = secrets.token_hex(4)
        self._next_due = next_due
        self._now = now
        self._replica_of = replica_of
        self._turn = anyio.Lock()
        self._rows: dict[tuple[str, str], _Row] = {}  # by a JobKey, or its like
        self._orders: dict[str, Order] = {}
        self._texts = Texts()
        self._counts: Counter[tuple[str, Phase]] = Counter()
        self._failing: Counter[str] = Counter()

    async def catch_up(self) -> int:
        """Take in what changed since the last time; return the version reached."""
        async with self._turn:
            version = self.board.version
            changed = self.board.changed_since(self.version)
            if changed is None:
                changed = [JobKey(*each) for each in self._rows]
                changed += self.board.records
            for number, key in enumerate(changed, 1):
                self._take(key)
                if number % SLICE == 0:
                    await anyio.lowlevel.checkpoint()
            self.version = version
        return version

    def _take(self, key: JobKey) -> None:
        """Take in one job as it is now."""
        known, record = self._rows.get(key), self.board.records.get(key)
        before = known.record if known else None
        replica = self._replica_of(key.target)
        if known and before and record and _looks_the_same(before, record):
            known.record = record
            if known.replica != replica:
                known.replica = replica
                known.version = self.board.version_of(key)
            return
        texts: Sequence[str] = ()
        if record is None:
            self._rows.pop(key, None)
        else:
            texts = texts_of(record)
            self._rows[key] = _Row(record, self.board.version_of(key), texts, replica)
        self._texts.change(known.texts if known else (), texts)
        for order in self._orders.values():
            order.move(before, record)
        self._count(before, -1)
        self._count(record, 1)

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
        if row is None or not which.admits(row.record):
            return False
        sought = which.sought
        return sought in key.job_id.casefold() or any(
            sought in text.casefold() for text in row.texts
        )

    async def pick(
        self, which: Filter, sort: str, after: Place | None, limit: int
    ) -> Picked:
        """Choose a page of the list."""
        order = await self._order(sort)
        if which.sought:
            return await self._pick_by_search(which, order, after, limit)
        counts = self.counts(which.target)
        total = sum(counts[phase] for phase in which.phases or Phase)
        found: list[Place] = []
        for number, place in enumerate(order.after(after) if total else (), 1):
            row = self._rows.get(place[2:])
            if row is not None and which.admits(row.record):
                found.append(place)
                if len(found) > limit:
                    break
            if number % GLANCE == 0:
                await anyio.lowlevel.checkpoint()
        return _picked(found, limit, total)

    async def _order(self, sort: str) -> Order:
        """Return an order; made a slice at a time where nobody has asked for it yet."""
        async with self._turn:
            if sort not in self._orders:
                order = Order(sort)
                for number, row in enumerate(self._rows.values(), 1):
                    order.put(row.record)
                    if number % SLICE == 0:
                        await anyio.lowlevel.checkpoint()
                self._orders[sort] = order
            return self._orders[sort]

    async def _pick_by_search(
        self, which: Filter, order: Order, after: Place | None, limit: int
    ) -> Picked:
        matching = await self._texts.matching(which.sought)
        sought, rows = which.sought, self._rows
        found: list[Place] = []
        total = 0
        for number, place in enumerate(order.after(None), 1):
            row = rows.get(place[2:])
            if row is None or (
                matching.isdisjoint(row.texts) and sought not in place[3].casefold()
            ):
                pass
            elif which.admits(row.record):
                total += 1
                if len(found) <= limit and (after is None or place > after):
                    found.append(place)
            if number % GLANCE == 0:
                await anyio.lowlevel.checkpoint()
        return _picked(found, limit, total)

    def find(self, key: JobKey) -> Found | None:
        """Return what a job is shown by; None where it went.

        Returns:
            Its record, the sum of its tasks, when it is asked next, and by whom.
        """
        found = self._rows.get(key)
        if found is None:
            return None
        if found.digest is None:
            found.digest = digest(found.record)
        due = moment(self._now(), self._next_due(key))
        return found.record, found.digest, due, found.replica

    def show(self, key: JobKey) -> Shown | None:
        """Lay out a row as it is now; None where the job went."""
        found = self.find(key)
        return None if found is None else row(*found)


def _picked(found: Sequence[Place], limit: int, total: int) -> Picked:
    keys = [JobKey(*place[2:]) for place in found[:limit]]
    return Picked(keys, total, found[limit - 1] if len(found) > limit else None)


def _looks_the_same(one: JobRecord, other: JobRecord) -> bool:
    """Whether a row needs no look: nothing changed but when it was asked."""
    if (one.failure and one.failure.reason) != (other.failure and other.failure.reason):
        return False
    return shows_the_same(one, other)
