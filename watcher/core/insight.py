"""What many records say together: pure, from what is known to what is worth reading."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache

MOST_GROUPS = 100
MOST_SERVERS = 5
MOST_TEXT = 500
"""Characters of a message that tell it from others."""
MUCH_TEXT, LESS_TEXT, BEGINNING = 1_000_000, 120, 40
"""Characters of all different messages, above which so many of each are read, and so
many of what is left without names tell it from others."""

_QUOTED = re.compile(
    r"""(?<!\w)'[^'\n]{1,200}'(?!\w)|"[^"\n]{1,200}"|`[^`\n]{1,200}`"""
    r"""|“[^”\n]{1,200}”|「[^」\n]{1,200}」"""
)
# Letters of other scripts are no part of a word: their sentences have no spaces.
_IN_WORD = "A-Za-z0-9_.:-"
_NAME = re.compile(
    rf"(?<![{_IN_WORD}])"
    rf"(?:[A-Za-z_.:-]*+[0-9][{_IN_WORD}]*+|[A-Fa-f]{{8,}}+(?![{_IN_WORD}]))"
)
"""A word with a digit in it, or one that is nothing but hex."""
_KEPT_SHAPES = 8192
_LONGEST_KEPT = 200


@dataclass(frozen=True, slots=True)
class Folded:
    """Messages that differ in nothing but numbers and names.

    Attributes:
        message: The commonest of them, verbatim; "" where there was none.
        count: How many there are.
        servers: The first five names of those that said it.
    """

    message: str
    count: int
    servers: tuple[str, ...]


@dataclass(slots=True)
class _Group:
    forms: Counter[str] = field(default_factory=Counter)
    servers: dict[str, None] = field(default_factory=dict)


def fold(messages: Iterable[tuple[str | None, str | None]]) -> list[Folded]:
    """Group messages that are alike but for numbers, ids, hex and quoted names.

    Args:
        messages: Name of a server and what it said, either of which may be missing.

    Returns:
        The groups, largest first, those of one size in the order they first came; at
        most `MOST_GROUPS`.
    """
    every = [(server, said or "") for server, said in messages]
    shapes = _shapes({text for _, text in every})
    groups: dict[str, _Group] = {}
    for server, text in every:
        group = groups.setdefault(shapes[text], _Group())
        group.forms[text] += 1
        if server is not None and len(group.servers) < MOST_SERVERS:
            group.servers[server] = None
    folded = [
        Folded(
            group.forms.most_common(1)[0][0], group.forms.total(), tuple(group.servers)
        )
        for group in groups.values()
    ]
    return sorted(folded, key=lambda each: -each.count)[:MOST_GROUPS]


def _shapes(texts: AbstractSet[str]) -> Mapping[str, str]:
    if sum(min(len(text), MOST_TEXT) for text in texts) > MUCH_TEXT:
        return {text: shape(text[:LESS_TEXT])[:BEGINNING] for text in texts}
    return {
        text: (_kept_shape if len(text) <= _LONGEST_KEPT else shape)(text)
        for text in texts
    }


def shape(text: str) -> str:
    """Return what a message has in common with those that it is folded with."""
    unquoted = _QUOTED.sub("#", text[:MOST_TEXT])
    return " ".join(_NAME.sub("#", unquoted).split())


_kept_shape = lru_cache(_KEPT_SHAPES)(shape)
"""The tasks of a job fail one by one, and each time all of them are folded."""
