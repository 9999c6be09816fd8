"""The texts in which a search looks: each told once, however many jobs say it.

The same servers and the same messages come in job after job. A search reads each text
once, and then sees for each job whether it has one of those that were found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import islice

import anyio.lowlevel

from watcher.core.model import JobRecord

SLICE = 5000
"""Texts that are read without a pause."""


def texts_of(record: JobRecord) -> Sequence[str]:
    """Return name, type, names of servers and messages of a job, each once."""
    found: dict[str | None, None] = {}
    if record.job is not None:
        found[record.job.name] = found[record.job.type] = None
    for task in record.tasks:
        found[task.server_name] = None
        found[task.message] = None
    return tuple(text for text in found if text)


class Texts:
    """Which texts there are, and in how many jobs."""

    def __init__(self) -> None:
        """Begin without any."""
        self._jobs: Counter[str] = Counter()

    def change(self, before: Sequence[str], after: Sequence[str]) -> None:
        """Take in that a job says other texts than before."""
        if before == after:
            return
        said, says = set(before), set(after)
        self._jobs.update(says - said)
        for text in said - says:
            self._jobs[text] -= 1
            if not self._jobs[text]:
                del self._jobs[text]

    async def matching(self, sought: str) -> AbstractSet[str]:
        """Return the texts that contain what is sought, which is casefolded."""
        found: set[str] = set()
        texts = iter(list(self._jobs))
        while part := list(islice(texts, SLICE)):
            found.update(text for text in part if sought in text.casefold())
            await anyio.lowlevel.checkpoint()
        return found
