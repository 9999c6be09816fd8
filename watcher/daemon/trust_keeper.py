"""Keeps what the list calls have earned over restarts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
import structlog

from watcher.core.errors import StoreError
from watcher.core.trust import Trust
from watcher.polling.target import Target
from watcher.ports import Notes

_PREFIX = "trust "

log = structlog.get_logger()


class TrustKeeper:
    """Notes the trust of each target where its interval or its misses changed."""

    def __init__(self, targets: Mapping[str, Target], notes: Notes) -> None:
        """Know nothing yet.

        Args:
            targets: By name; may change.
            notes: Where trust is kept.
        """
        self._targets = targets
        self._notes = notes
        self._kept: dict[str, Trust] = {}

    async def load(self) -> None:
        """Let each target go on with what its list had earned.

        Raises:
            StoreError: It cannot be read.
        """
        self.resume(await self._notes.notes(), self._targets.keys())

    def resume(self, notes: Mapping[str, str], targets: Collection[str]) -> None:
        """Let these targets go on with what was noted of them."""
        for name in targets:
            self._kept.pop(name, None)
            target, text = self._targets.get(name), notes.get(_PREFIX + name)
            if target is None or text is None:
                continue
            try:
                target.resume(msgspec.json.decode(text, type=Trust))
            except msgspec.DecodeError:
                continue  # it is earned again
            self._kept[target.name] = target.trust

    async def look(self) -> None:
        """Keep what has changed."""
        for name, target in self._targets.items():
            trust, kept = target.trust, self._kept.get(name)
            if kept and (kept.interval, kept.misses) == (trust.interval, trust.misses):
                continue
            try:
                text = msgspec.json.encode(trust).decode()
                await self._notes.note(_PREFIX + name, text)
            except StoreError as exc:
                log.debug("trust is not kept", error=str(exc))
                return
            self._kept[name] = trust
