"""Where the ids of the watched jobs come from."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import anyio.to_thread

from watcher.core.model import JobKey, check_job_id
from watcher.files import stamp
from watcher.polling import folder
from watcher.polling.folder import LARGEST_FILE, shown
from watcher.ports import JobSource, Reading

MOST_FILES = 1_000
MOST_IDS = 100_000
"""Of one target's files."""

MOST_BAD = 1_000
"""Bad lines of one file: with more it is no file of ids."""

AT_REST = 60.0
"""Seconds after which a file that is seen for the first time is no longer written."""


class Configured:
    """Ids that stand in the configuration itself."""

    def __init__(self, target: str, job_ids: Collection[str]) -> None:
        self._reading = Reading(
            [JobKey(target, each) for each in dict.fromkeys(job_ids)]
        )

    async def read(self) -> Reading:
        """Return the same jobs each time."""
        return self._reading


@dataclass(frozen=True, slots=True)
class _Text:
    """What a file said.

    Attributes:
        ids: Those of all its good lines.
        whole: Those of its good lines that have an end.
        problem: What is wrong with its lines, or None; never quotes one.
    """

    ids: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    problem: str | None = None


_NOTHING = _Text()


@dataclass(slots=True)
class _File:
    """A file over time.

    Attributes:
        ids: Those in force.
        text: What it said at the last look that could read it.
        state: Changes when it is written; None while a second look is due.
    """

    ids: frozenset[str] = frozenset()
    text: _Text | None = None
    state: Hashable = None

    def take(self, text: _Text, state: Hashable, *, at_rest: bool, room: int) -> None:
        """Take in what it says now: whole lines at once, the rest when seen twice.

        A file may be seen half-written, so an id goes, and a last line without an end
        counts, only once two looks running saw the same. None goes while a line is bad.

        Raises:
            ValueError: It says more than there is room for.
        """
        steady = text == self.text or (self.text is None and at_rest)
        kept = frozenset() if steady and not text.problem else self.ids
        ids = kept | (text.ids if steady else text.whole)
        if len(ids - self.ids) > room:
            raise ValueError(
                f"more than {MOST_IDS} ids in all: its new ones are not read"
            )
        self.ids, self.text = ids, text
        self.state = state if steady else None


def _ever() -> float:
    return math.inf


class JobFiles:
    """Files of ids, one a line; `#` starts a comment.

    Who writes them need not be trusted with more than ids: a file is read only if it
    lies in the folder that its pattern names, and no line of it is ever quoted. What
    cannot be read, or has a line that is no id, keeps its earlier ids; a file that is
    gone takes its ids along.
    """

    def __init__(
        self,
        target: str,
        patterns: Sequence[str] = (),
        secrets: Collection[str] = (),
        now: Callable[[], float] = _ever,
    ) -> None:
        """Make a source of files.

        Args:
            target: Target of all the ids.
            patterns: Paths, which may hold wildcards.
            secrets: What is no id, whatever it looks like.
            now: Wall clock, Unix seconds. Without one, each file is taken to be whole
                when it is seen for the first time.
        """
        self._target = target
        self._next = self._followed = patterns, secrets
        self._now = now
        self._files: dict[Path, _File] = {}
        self._left = 0  # bytes that this look may still read

    def follow(self, patterns: Sequence[str], secrets: Collection[str]) -> None:
        """Read these from the next look on; what still matches keeps what it had."""
        self._next = patterns, secrets  # a thread may be looking

    async def read(self) -> Reading:
        """Look, without holding up what else is going on."""
        return await anyio.to_thread.run_sync(self.look)

    def look(self) -> Reading:
        """Read all files that match now."""
        if self._followed != self._next:
            self._followed = self._next
            self._let_go(self._followed[0])
        found = folder.find(self._followed[0])
        problems = [f"{shown(at)}: {reason}" for at, reason in found.closed.items()]
        self._left = LARGEST_FILE
        new = sorted(found.files.keys() - self._files.keys())
        room = max(0, MOST_FILES - len(self._files))
        if len(new) > room:
            problems.append(f"more than {MOST_FILES} files match: some are not read")
        for path in [*self._files, *new[:room]]:
            if path in found.files or not found.hides(path):
                problems += self._look_at(path, found.files.get(path))
        ids = frozenset().union(*(file.ids for file in self._files.values()))
        keys = [JobKey(self._target, each) for each in sorted(ids)]
        return Reading(keys, tuple(problems))

    def _let_go(self, patterns: Sequence[str]) -> None:
        for path, file in list(self._files.items()):
            file.state = None
            if not any(folder.covers(pattern, path) for pattern in patterns):
                del self._files[path]

    def _look_at(self, path: Path, root: Path | None) -> list[str]:
        """Take in what one file says now; return what is wrong with it."""
        file = self._files.setdefault(path, _File())
        try:
            self._take_in(file, path, root)
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            return [f"{shown(path)}: {reason}"]
        if not file.ids and file.text == _NOTHING:
            del self._files[path]
        problem = file.text.problem if file.text else None
        return [f"{shown(path)}:{problem}"] if problem else []

    def _take_in(self, file: _File, path: Path, root: Path | None) -> None:
        room = MOST_IDS - sum(len(each.ids) for each in self._files.values())
        with suppress(FileNotFoundError):
            if root is not None:
                with folder.open_inside(root, path) as opened:
                    self._read(file, opened, room)
                return
        file.take(_NOTHING, None, at_rest=True, room=room)

    def _read(self, file: _File, opened: int, room: int) -> None:
        found = os.fstat(opened)
        state = stamp(found), found.st_ctime_ns
        if state == file.state:
            return
        if self._left < found.st_size <= LARGEST_FILE:
            raise ValueError("waits: more than 8 MiB of files changed at once")
        self._left -= found.st_size
        text = self._parse(folder.read_whole(opened))
        at_rest = found.st_mtime < self._now() - AT_REST
        file.take(text, state, at_rest=at_rest, room=room)

    def _parse(self, text: str) -> _Text:
        ids: set[str] = set()
        unended, bad, first = "", 0, ""
        for number, line in enumerate(StringIO(text), 1):
            entry = line.partition("#")[0].strip()
            if entry in ids:
                continue
            if entry and (fault := self._fault(entry)):
                bad += 1
                first = first or f"{number}: {fault}"
            elif entry and line.endswith("\n"):
                ids.add(entry)
            else:
                unended = entry
            if len(ids) > MOST_IDS or bad > MOST_BAD:
                raise ValueError(f"more than {MOST_IDS} ids, or {MOST_BAD} bad lines")
        more = f" (and {bad - 1} more lines)" if bad > 1 else ""
        whole = frozenset(ids)
        return _Text(whole | {unended} - {""}, whole, f"{first}{more}" if bad else None)

    def _fault(self, entry: str) -> str | None:
        """Say what is wrong with an id, without saying it: it may be a secret."""
        if entry in self._followed[1]:
            return "a secret of the configuration stands where a job id is due"
        try:
            check_job_id(entry)
        except ValueError:
            return "not a job id"
        return None


class JobSources:
    """Makes the sources of the settings in force, and keeps those that stay.

    Args:
        now: Wall clock, Unix seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._files: dict[str, JobFiles] = {}

    def of(
        self,
        jobs: Mapping[str, tuple[Collection[str], Sequence[str]]],
        secrets: Collection[str],
    ) -> Sequence[JobSource]:
        """Return the sources of each target's ids and patterns, by its name.

        Args:
            jobs: Ids and patterns of each target.
            secrets: What is no id in a file, whatever it looks like.
        """
        files = {}
        for name, (_, patterns) in jobs.items():
            if patterns:
                each = self._files.get(name) or JobFiles(name, now=self._now)
                each.follow(patterns, secrets)
                files[name] = each
        self._files = files
        configured = [Configured(name, ids) for name, (ids, _) in jobs.items()]
        return [*configured, *files.values()]
