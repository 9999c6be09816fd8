"""What a request asks for, read from its query: one clear line where it is nonsense."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from watcher.core.model import JobRecord, Phase
from watcher.pages.api.order import BY_NAME, Place

MOST_ROWS = 1000
LONGEST_SEARCH = 200
_REMEMBERED = 10_000


def number(name: str, text: str | None, default: int, least: int, most: int) -> int:
    """Read a whole number.

    Raises:
        ValueError: It is none, or out of bounds.
    """
    if text is None:
        return default
    if text.isascii() and text.isdecimal() and len(text) <= len(str(most)):
        value = int(text)
        if least <= value <= most:
            return value
    raise ValueError(f"{name}: must be a number from {least} to {most}")


def one_of(name: str, text: str, known: Collection[str]) -> str:
    """Read a word.

    Raises:
        ValueError: It is another than those that are known.
    """
    if text not in known:
        raise ValueError(f"{name}: must be one of {', '.join(known)}")
    return text


def search(text: str) -> Callable[[str | None], bool]:
    """Make a search in any case that looks at a text that comes often once only.

    Raises:
        ValueError: What is looked for is too long.
    """
    if len(text) > LONGEST_SEARCH:
        raise ValueError(f"q: has more than {LONGEST_SEARCH} characters")
    sought = text.casefold()
    known: dict[str | None, bool] = {None: False}

    def found(where: str | None) -> bool:
        told = known.get(where)
        if told is None:
            told = sought in (where or "").casefold()
            if len(known) < _REMEMBERED:
                known[where] = told
        return told

    return found


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are asked for.

    Attributes:
        target: Only those of it; None for all.
        phases: Only those in one of these; empty for all.
        q: Only those with this text in id, name, type, a server's name or a message.
    """

    target: str | None = None
    phases: frozenset[Phase] = frozenset()
    q: str = ""
    _found: Callable[[str | None], bool] = field(
        default=lambda _: True, repr=False, compare=False
    )

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """Read `target`, `phase` (several with commas) and `q`.

        Raises:
            ValueError: One of them is nonsense.
        """
        words = [word for word in query.get("phase", "").split(",") if word]
        phases = frozenset(Phase(one_of("phase", word, list(Phase))) for word in words)
        q = query.get("q", "").strip()
        return cls(query.get("target") or None, phases, q, search(q))

    def admits(self, record: JobRecord) -> bool:
        """Whether a job is asked for."""
        if self.target is not None and record.key.target != self.target:
            return False
        if self.phases and record.phase not in self.phases:
            return False
        return not self.q or self._is_in(record)

    def _is_in(self, record: JobRecord) -> bool:
        found, job = self._found, record.job
        if self.q.casefold() in record.key.job_id.casefold():
            return True
        if job is not None and (found(job.name) or found(job.type)):
            return True
        return any(found(t.server_name) or found(t.message) for t in record.tasks)


def cursor_of(place: Place) -> str:
    """Write where a page of rows ended."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def place_of(cursor: str | None, sort: str) -> Place | None:
    """Read it again.

    Raises:
        ValueError: It was not given by a page in this order.
    """
    if not cursor:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        if sort == BY_NAME:
            return msgspec.json.decode(text, type=tuple[bool, str, str, str])
        return msgspec.json.decode(text, type=tuple[float, float, str, str])
    except ValueError:
        raise ValueError("cursor: is not one of this list in this order") from None
