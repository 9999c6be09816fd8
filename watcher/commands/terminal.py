"""Writes for people: lines that fit, colours where they are wanted, a view kept fresh."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from types import TracebackType
from typing import NamedTuple, Self, TextIO

from watcher.encoding import printable

_CLEAR_LINE, _CLEAR_BELOW, _PLAIN = "\x1b[K", "\x1b[J", "\x1b[0m"
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "bold": 1, "dim": 2}
_WIDE = frozenset("WF")
LEAST_COLUMNS = 20


class Span(NamedTuple):
    """A piece of a line.

    Attributes:
        text: Whatever it is made of; what steers a terminal is written out.
        colour: One of `red`, `green`, `yellow`, `cyan`, `bold`, `dim`, or none.
    """

    text: str
    colour: str = ""


Line = Sequence[Span]


def colours_wanted(out: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written there may be coloured."""
    return out.isatty() and not environ.get("NO_COLOR") and not _is_dumb(environ)


def is_live(out: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what was written there can be written over."""
    return out.isatty() and not _is_dumb(environ)


def _is_dumb(environ: Mapping[str, str]) -> bool:
    return environ.get("TERM", "") in {"", "dumb"}


def columns_of(out: TextIO) -> int | None:
    """Return how wide a terminal is; None for what is none."""
    return _size(out).columns if out.isatty() else None


def rows_of(out: TextIO) -> int:
    """Return how many lines a terminal has."""
    return _size(out).lines


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1


def clipped(text: str, columns: int) -> str:
    """Shorten a text to so many columns, and show that it is."""
    if cells(text) <= columns:
        return text
    room, kept = columns - 1, []
    for char in text:
        room -= _cells(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + "…" if columns > 0 else ""


def padded(text: str, columns: int) -> str:
    """Fill a text up to so many columns."""
    return text + " " * (columns - cells(text))


def painted(line: Line, columns: int | None, *, colours: bool) -> str:
    """Make a line that can be written.

    Args:
        line: Its pieces.
        columns: How many it may take; None: any number.
        colours: Whether to colour it.
    """
    made, room = [], columns
    for text, colour in line:
        shown = printable(text)
        if room is not None:
            shown = clipped(shown, room)
            room -= cells(shown)
        code = _COLOURS.get(colour) if colours and shown else None
        made.append(f"\x1b[{code}m{shown}{_PLAIN}" if code else shown)
    return "".join(made).rstrip()


def write_lines(out: TextIO, lines: Iterable[Line], *, clip: bool = True) -> None:
    """Write lines, as wide as they are where it is no terminal or `clip` is false."""
    columns = columns_of(out) if clip else None
    colours = colours_wanted(out)
    _write(
        out, "".join(painted(line, columns, colours=colours) + "\n" for line in lines)
    )


def _write(out: TextIO, text: str) -> None:
    """Write a text though the encoding of the terminal may lack some of it."""
    encoding = out.encoding or "utf-8"
    out.write(text.encode(encoding, "replace").decode(encoding))
    out.flush()


def _size(out: TextIO) -> os.terminal_size:
    try:
        columns, rows = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        columns = rows = 0
    return os.terminal_size((max(columns or 80, LEAST_COLUMNS), max(rows or 24, 4)))


class Live:
    """A view at the foot of a terminal; only the lines that changed are written again."""

    def __init__(
        self, out: TextIO, size: Callable[[TextIO], os.terminal_size] = _size
    ) -> None:
        """Show nothing yet."""
        self._out = out
        self._size = size
        self._colours = colours_wanted(out)
        self._columns = 0
        self._shown: list[str] = []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the view away."""
        self.show([])

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines in the place of the earlier ones, as many as there is room."""
        columns, rows = self._size(self._out)
        made = [painted(each, columns - 1, colours=self._colours) for each in lines]
        if len(made) >= rows:
            left_out = len(made) - rows + 2
            made[rows - 2 :] = [f"… {left_out} more lines"]
        if columns == self._columns and made == self._shown:
            return
        _write(self._out, self._change(made, columns))
        self._columns, self._shown = columns, made

    def _change(self, made: Sequence[str], columns: int) -> str:
        """Return what turns the lines that are shown into others."""
        if columns != self._columns:
            # The terminal may have broken the earlier lines anew.
            height = sum(
                1 + max(_length(each) - 1, 0) // columns for each in self._shown
            )
            kept: list[str] = []
        else:
            height, kept = len(self._shown), self._shown
        steps = [f"\x1b[{height}A\r" if height else ""]
        if not kept:
            steps.append(_CLEAR_BELOW)
        for new, old in zip_longest(made, kept[: len(made)]):
            steps.append("\n" if new == old else f"{new}{_CLEAR_LINE}\n")
        if len(kept) > len(made):
            steps.append(_CLEAR_BELOW)
        return "".join(steps)


def _length(line: str) -> int:
    """Return how many columns a painted line takes."""
    bare = "".join(part.partition("m")[2] for part in f"m{line}".split("\x1b["))
    return cells(bare)
