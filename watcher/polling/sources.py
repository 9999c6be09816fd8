"""Where the ids of the watched jobs come from."""

from __future__ import annotations

import glob
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import anyio.to_thread

from watcher.core.model import JobKey
from watcher.ports import JobSource, Reading

LARGEST_FILE = 8 * 2**20


class Configured:
    """Ids that stand in the configuration itself."""

    def __init__(self, target: str, job_ids: Collection[str]) -> None:
        self._reading = Reading(frozenset(JobKey(target, each) for each in job_ids))

    async def read(self) -> Reading:
        """Return the same jobs each time."""
        return self._reading


class JobFiles:
    """Files of ids, one a line; `#` starts a comment.

    A file that cannot be read, or has a line that is no id, keeps its earlier ids; a
    file that is gone takes its ids along.
    """

    def __init__(
        self, target: str, patterns: Sequence[str], check_id: Callable[[str], str]
    ) -> None:
        """Make a source of files.

        Args:
            target: Target of all the ids.
            patterns: Paths, which may hold wildcards.
            check_id: Returns an id, or raises ValueError with the reason.
        """
        self._target = target
        self._patterns = patterns
        self._check_id = check_id
        self._ids: dict[Path, frozenset[str]] = {}

    async def read(self) -> Reading:
        """Read all files that match now."""
        return await anyio.to_thread.run_sync(self._read)

    def _read(self) -> Reading:
        problems = []
        ids: dict[Path, frozenset[str]] = {}
        for pattern in self._patterns:
            for path in map(Path, sorted(glob.glob(pattern))):  # noqa: PTH207
                try:
                    ids[path] = self._parse(path)
                except FileNotFoundError:
                    continue
                except (OSError, ValueError) as exc:
                    problems.append(f"{path}{_cause(exc)}")
                    ids[path] = self._ids.get(path, frozenset())
        self._ids = ids
        keys = frozenset(JobKey(self._target, i) for each in ids.values() for i in each)
        return Reading(keys, tuple(problems))

    def _parse(self, path: Path) -> frozenset[str]:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(": larger than 8 MiB")
        ids = set()
        for number, line in enumerate(path.read_text().splitlines(), 1):
            entry = line.partition("#")[0].strip()
            try:
                ids.update([self._check_id(entry)] if entry else [])
            except ValueError as exc:
                raise ValueError(f":{number}: {exc}") from None
        return frozenset(ids)


def _cause(exc: Exception) -> str:
    match exc:
        case OSError():
            return f": {exc.strerror}"
        case UnicodeError():
            return ": not UTF-8 text"
        case _:
            return str(exc)


class JobSources:
    """Makes the sources of the settings in force, and keeps those that stay.

    Args:
        check_id: Returns an id, or raises ValueError with the reason.
    """

    def __init__(self, check_id: Callable[[str], str]) -> None:
        self._check_id = check_id
        self._files: dict[tuple[str, tuple[str, ...]], JobFiles] = {}

    def of(
        self, jobs: Mapping[str, tuple[Sequence[str], tuple[str, ...]]]
    ) -> Sequence[JobSource]:
        """Return the sources of each target's ids and patterns, by its name."""
        files = {}
        for name, (_, patterns) in jobs.items():
            if patterns:
                each = (name, patterns)
                files[each] = self._files.get(each) or JobFiles(*each, self._check_id)
        self._files = files
        configured = [Configured(name, ids) for name, (ids, _) in jobs.items()]
        return [*configured, *files.values()]
