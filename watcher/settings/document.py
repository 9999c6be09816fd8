"""A YAML file of settings, and in which line each of them stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from watcher.core.errors import SettingsError

_UNREADABLE = (
    *(OSError, RecursionError, yaml.YAMLError),
    # What PyYAML raises on odd values besides its own errors.
    *(ValueError, TypeError, LookupError, AttributeError, OverflowError),
)

Place = tuple[int, str]
"""How much of a setting's path is given somewhere, and where."""


class Document:
    """A file that was read.

    Attributes:
        values: What it says.
    """

    def __init__(self, file: Path) -> None:
        """Read a file without judging its settings.

        Raises:
            SettingsError: It cannot be read, is not a YAML mapping, or says one thing
                twice.
        """
        self._file = file
        try:
            self._root, twice, values = _parse(file.read_text())
        except yaml.MarkedYAMLError as exc:
            line = f":{exc.problem_mark.line + 1}" if exc.problem_mark else ""
            raise SettingsError([f"{file}{line}: not YAML: {exc.problem}"]) from None
        except _UNREADABLE as exc:
            raise SettingsError([f"{file}: {_reason(exc)}"]) from None
        if twice:
            raise SettingsError([f"{what} ({file}:{line})" for what, line in twice])
        if values is None:
            values = {}
        if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
            raise SettingsError([f"{file}: not a mapping of settings"])
        self.values: dict[str, Any] = values

    def place(self, path: Sequence[str]) -> Place | None:
        """Return how much of a path the file has, and the line of that."""
        node, line, depth = self._root, 0, 0
        for part in path:
            found = _step(node, part)
            if found is None:
                break
            depth, (node, line) = depth + 1, found
        return (depth, f"{self._file}:{line}") if depth else None


def _reason(exc: Exception) -> str:
    match exc:
        case OSError():
            return exc.strerror or "cannot be read"
        case RecursionError():
            return "nested too deeply"
        case UnicodeDecodeError() | yaml.YAMLError():
            return "not readable as text"
        case _:
            return "holds a value that cannot be, such as the 30th of February"


def _parse(text: str) -> tuple[yaml.Node | None, list[tuple[str, int]], object]:
    """Return the tree, the keys that stand twice, and what it comes to without any."""
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        twice = _twice(root)
        values = None if root is None or twice else loader.construct_document(root)
        return root, twice, values
    finally:
        loader.dispose()


def _step(node: yaml.Node | None, part: str) -> tuple[yaml.Node, int] | None:
    for key, value in _entries(node) if node else ():
        if key.value == part:
            mark = value if isinstance(node, yaml.SequenceNode) else key
            return value, mark.start_mark.line + 1
    return None


def _twice(root: yaml.Node | None) -> list[tuple[str, int]]:
    """Return what is wrong with each key that stands twice in a mapping, and its line.

    YAML forbids it, and its reader would let the first one vanish.
    """
    found = []
    seen: set[int] = set()  # what is repeated by its anchor is looked at once
    left = [("", root)]
    while left:
        path, node = left.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        first: dict[tuple[str, str], int] = {}
        for key, value in _entries(node):
            line = key.start_mark.line + 1
            name = f"{path}{key.value}"
            if (key.tag, str(key.value)) in first:
                before = first[key.tag, str(key.value)]
                found.append((f"{name}: is given twice, first in line {before}", line))
            first[key.tag, str(key.value)] = line
            left.append((f"{name}.", value))
    return found


def _entries(node: yaml.Node) -> Iterable[tuple[yaml.Node, yaml.Node]]:
    match node:
        case yaml.MappingNode():
            return list(node.value)
        case yaml.SequenceNode():
            mark = node.start_mark
            return [
                (yaml.ScalarNode("index", str(n), mark), each)
                for n, each in enumerate(node.value)
            ]
        case _:
            return []
