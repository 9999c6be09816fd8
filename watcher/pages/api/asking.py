"""What a request asks for, read from its query: one clear line where it is nonsense."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from watcher.core.model import JobRecord, Phase
from watcher.pages.api.order import BY_NAME, Place

MOST_ROWS = 1000
LONGEST_SEARCH = 200


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


def searched(text: str) -> str:
    """Read what is looked for: casefolded.

    Raises:
        ValueError: It is too long.
    """
    if len(text) > LONGEST_SEARCH:
        raise ValueError(f"q: has more than {LONGEST_SEARCH} characters")
    return text.casefold()


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are asked for.

    Attributes:
        target: Only those of it; None for all.
        phases: Only those in one of these; empty for all.
        sought: Only those with this text in id, name, type, a server's name or a
            message, in any case; casefolded, empty for all.
    """

    target: str | None = None
    phases: frozenset[Phase] = frozenset()
    sought: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """Read `target`, `phase` (several with commas) and `q`.

        Raises:
            ValueError: One of them is nonsense.
        """
        words = [word for word in query.get("phase", "").split(",") if word]
        phases = frozenset(Phase(one_of("phase", word, list(Phase))) for word in words)
        sought = searched(query.get("q", "").strip())
        return cls(query.get("target") or None, phases, sought)

    def admits(self, record: JobRecord) -> bool:
        """Whether a job is asked for, as far as target and phase tell."""
        if self.target is not None and record.key.target != self.target:
            return False
        return not self.phases or record.phase in self.phases


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
