"""Jobs in blocks: what a block says of a family is made once a change, and packed once.

All samples of a family stand together, so that the page is, family by family, the parts
of all blocks. A packed part is a whole gzip member, and members in a row are gzip: a
change of one job costs its own block, whatever the others hold. Only the form that a
scraper asked for is kept.

Source: RFC 1952 (2.2, members).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cache

import anyio.lowlevel

from watcher.core.model import JobKey, JobRecord, shows_the_same
from watcher.encoding import gzip_member
from watcher.pages.metrics.families import LAST_SUCCESS, Family

FULL = 512
"""Samples of a block, about; more only where one job alone has more."""
_OF_EACH_JOB = 16
PIECE = 2**17
"""Bytes that are packed, and some lines that are made, between two looks at the clock."""
_SOME_LINES = 200
WITHOUT_PAUSE = 0.002
"""Seconds."""


class Pauses:
    """Lets the loop do other work every few milliseconds."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def rest(self) -> None:
        """Make a pause, if the last was long enough ago."""
        if time.perf_counter() - self._since > WITHOUT_PAUSE:
            await anyio.lowlevel.checkpoint()
            self._since = time.perf_counter()


class _Block:
    """Some jobs, and what was made of them.

    Attributes:
        samples: How many they have, about.
    """

    __slots__ = ("packed", "plain", "records", "samples")

    def __init__(self) -> None:
        self.records: dict[JobKey, JobRecord] = {}
        self.samples = 0
        self.plain: dict[Family, bytes] = {}
        self.packed: dict[Family, bytes] = {}

    def put(self, record: JobRecord) -> None:
        known = self.records.get(record.key)
        self.records[record.key] = record
        self.samples += _samples(record) - (_samples(known) if known else 0)
        if known is not None and shows_the_same(known, record):
            self.plain.pop(LAST_SUCCESS, None)
        else:
            self._forget()

    def drop(self, key: JobKey) -> None:
        self.samples -= _samples(self.records.pop(key))
        self._forget()

    def _forget(self) -> None:
        self.plain.clear()
        self.packed.clear()

    def outgrown_by(self, record: JobRecord) -> bool:
        """Whether a job of its own needs another place as it is now."""
        more = _samples(record) - _samples(self.records[record.key])
        return len(self.records) > 1 and more > 0 and self.samples + more > FULL

    async def text(self, family: Family, pauses: Pauses) -> bytes:
        made, lines = bytearray(), []
        for record in self.records.values():
            for line in family.lines(record):
                lines.append(line)
                if len(lines) == _SOME_LINES:
                    made += _encoded(lines)
                    lines.clear()
                    await pauses.rest()
        return bytes(made + _encoded(lines))


class Blocks:
    """All jobs that are shown.

    A job that is put, or dropped, while parts are read may be in them or not: whoever
    reads holds off who writes.
    """

    def __init__(self) -> None:
        self._of: dict[JobKey, _Block] = {}
        self._blocks: dict[_Block, None] = {}
        self._open = _Block()
        self._looks: list[bytes] | None = None

    def __iter__(self) -> Iterator[JobKey]:
        return iter(self._of)

    def get(self, key: JobKey) -> JobRecord | None:
        """Return a job as it was put last."""
        block = self._of.get(key)
        return block.records[key] if block else None

    def put(self, record: JobRecord) -> None:
        """Show a job as it is now."""
        key = record.key
        block = self._of.get(key)
        if block is None or block.outgrown_by(record):
            self.drop(key)
            block = self._of[key] = self._place(_samples(record))
            self._blocks[block] = None
        block.put(record)
        self._looks = None

    def drop(self, key: JobKey) -> None:
        """Show a job no more."""
        block = self._of.pop(key, None)
        if block is None:
            return
        block.drop(key)
        self._looks = None
        if not block.records:
            del self._blocks[block]
        elif block.samples < self._open.samples:
            self._open = block

    def _place(self, samples: int) -> _Block:
        if samples >= FULL:
            return _Block()
        if self._open.samples + samples > FULL:
            self._open = _Block()
        return self._open

    async def parts(
        self, family: Family, pauses: Pauses, *, packed: bool
    ) -> AsyncIterator[bytes]:
        """Yield what stands on the page of a family, as text or as gzip members."""
        yield _packed_header(family) if packed else family.header()
        if packed and family is LAST_SUCCESS:
            for member in await self._packed_looks(pauses):
                yield member
            return
        for block in self._blocks:
            kept = block.packed if packed else block.plain
            part = kept.get(family)
            if part is None:
                part = await block.text(family, pauses)
                if packed:
                    part = b"".join([each async for each in _members(part, pauses)])
                kept[family] = part
                await pauses.rest()
            if part:
                yield part

    async def _packed_looks(self, pauses: Pauses) -> list[bytes]:
        """Pack what changes with every look in few members, not in one a block."""
        if self._looks is None:
            text = bytearray()
            async for part in self.parts(LAST_SUCCESS, pauses, packed=False):
                text += part
            text = text[len(LAST_SUCCESS.header()) :]
            self._looks = [each async for each in _members(bytes(text), pauses)]
        return self._looks


def _samples(record: JobRecord) -> int:
    return _OF_EACH_JOB + len(record.tasks)


def _encoded(lines: Iterable[str]) -> bytes:
    return "".join(lines).encode("utf-8", "replace")


@cache
def _packed_header(family: Family) -> bytes:
    return gzip_member(family.header())


async def _members(text: bytes, pauses: Pauses) -> AsyncIterator[bytes]:
    for start in range(0, len(text), PIECE):
        yield gzip_member(text[start : start + PIECE])
        await pauses.rest()
