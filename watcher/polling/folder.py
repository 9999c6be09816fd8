"""Files in folders that others may write into: found and read without trusting them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice, takewhile
from pathlib import Path

LARGEST_FILE = 8 * 2**20
MOST_NAMES = 10_000
"""That one look goes through."""

_WILD = re.compile(r"[*?\[]")
_FOLDER = os.O_PATH | os.O_DIRECTORY
_PLAINLY = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class Found:
    """What some patterns match.

    Attributes:
        files: Each file with the folder that it must not lead out of.
        closed: The folders that could not be looked into, and why.
    """

    files: Mapping[Path, Path]
    closed: Mapping[Path, str]

    def hides(self, path: Path) -> bool:
        """Whether a path may be there all the same."""
        return any(path.is_relative_to(folder) for folder in self.closed)


def covers(pattern: str, path: Path) -> bool:
    """Tell whether a pattern could match a path."""
    parts = Path(pattern).parts
    fits = map(fnmatchcase, path.parts, parts)
    return len(path.parts) == len(parts) and all(fits)


def find(patterns: Iterable[str]) -> Found:
    """Find files as `glob` does, but tell a folder that is closed from an empty one."""
    search = _Search()
    files: dict[Path, Path] = {}
    for pattern in patterns:
        parts = Path(pattern).parts
        fixed = list(takewhile(lambda part: not _WILD.search(part), parts[:-1]))
        root = Path(*fixed)
        paths = [root]
        for part in parts[len(fixed) :]:
            paths = [path / n for path in paths for n in search.names(path, part)]
        files.update((path, root) for path in sorted(paths))
    return Found(files, search.closed)


class _Search:
    """One search, through a bounded number of names.

    Attributes:
        closed: The folders that could not be looked into, and why.
    """

    def __init__(self) -> None:
        self.closed: dict[Path, str] = {}
        self._left = MOST_NAMES

    def names(self, folder: Path, part: str) -> list[str]:
        """Return what a part of a pattern matches in a folder."""
        try:
            if not _WILD.search(part):
                (folder / part).lstat()
                return [part]
            with os.scandir(folder) as entries:
                found = [each.name for each in islice(entries, self._left + 1)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as exc:
            self.closed[folder] = exc.strerror or "cannot be read"
            return []
        if len(found) > self._left:
            self.closed[folder] = f"more than {MOST_NAMES} names to look at"
            return []
        self._left -= len(found)
        shown = part.startswith(".")
        return [n for n in found if fnmatchcase(n, part) and (shown or n[0] != ".")]


@contextmanager
def open_inside(root: Path, path: Path) -> Iterator[int]:
    """Open a plain file without ever waiting; its links may not lead out of a folder.

    Whoever may write into the folder could else have any file read that we may read.
    From the folder down no link is followed any more, so that none can be put there
    between the look and the opening.

    Raises:
        OSError: It cannot be opened.
        ValueError: It is not to be read; says why.
    """
    folder = Path(os.path.realpath(root, strict=True))
    real = Path(os.path.realpath(path, strict=True))
    if not real.is_relative_to(folder):
        raise ValueError(f"is a link that leads out of {shown(root)}")
    *parents, name = real.relative_to(folder).parts or (".",)
    with ExitStack() as opened:
        at = _open(opened, folder, _FOLDER, None)
        for parent in parents:
            at = _open(opened, parent, _FOLDER | os.O_NOFOLLOW, at)
        file = _open(opened, name, _PLAINLY | os.O_NOFOLLOW, at)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ValueError("is not a file")
        yield file


def _open(opened: ExitStack, path: str | Path, flags: int, at: int | None) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC, dir_fd=at)
    opened.callback(os.close, descriptor)
    return descriptor


def read_whole(file: int) -> str:
    """Read an open file.

    Raises:
        ValueError: It is too large, or no text.
    """
    with open(file, "rb", closefd=False) as stream:
        data = stream.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError("is larger than 8 MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def shown(path: Path) -> str:
    """Return a path as it may be printed, whatever its name is made of."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
