"""When settings are read again, and that they come into force whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.to_thread
import structlog

from watcher.core.errors import SettingsError
from watcher.daemon.notify import Notifier
from watcher.daemon.signals import Wishes
from watcher.settings.loading import Origin
from watcher.settings.schema import Settings

LOOK_EVERY = 2.0
"""Seconds between two looks at the files that settings come from."""
FIXED = ("log", "server", "store", "sinks", "journal", "replica")
"""Sections that are in force from one start to the next."""

log = structlog.get_logger()


class Reloader:
    """The settings in force, and the way to others.

    Attributes:
        settings: Those in force.
    """

    def __init__(
        self,
        origin: Origin,
        settings: Settings,
        wishes: Wishes,
        put_in_force: Callable[[Settings], Awaitable[None]],
        reloaded: Callable[[bool], None],
        notifier: Notifier,
    ) -> None:
        """Make a reloader.

        Args:
            origin: Where settings come from.
            settings: Those that were read at the start.
            wishes: Where a reload is asked for.
            put_in_force: Raises SettingsError where they cannot be, and then changes
                nothing.
            reloaded: Told whether what was last read is in force.
            notifier: Told of the beginning and the end of each reload.
        """
        self.settings = settings
        self._origin = origin
        self._wishes = wishes
        self._put_in_force = put_in_force
        self._reloaded = reloaded
        self._notifier = notifier
        self._turn = anyio.Lock()
        self._read = origin.fingerprint()

    async def begin(self) -> None:
        """Put the settings of the start in force.

        Raises:
            SettingsError: They cannot be.
        """
        await self._put_in_force(self.settings)
        self._reloaded(True)

    async def run(self) -> None:
        """Reload when it is asked for, or a file that settings come from has changed."""
        while True:
            with anyio.move_on_after(LOOK_EVERY):
                await self._wishes.reload.wait()
            asked = self._wishes.reload.is_set()
            self._wishes.reload = anyio.Event()
            if asked or await self._has_changed():
                await self.attempt()

    async def _has_changed(self) -> bool:
        return await anyio.to_thread.run_sync(self._origin.fingerprint) != self._read

    async def attempt(self) -> None:
        """Reload now; what is found wrong is logged, and changes nothing."""
        try:
            await self.now()
        except SettingsError as exc:
            log.error("config.reload_failed", findings=exc.findings)

    async def now(self) -> None:
        """Reload now.

        Raises:
            SettingsError: Nothing was changed.
        """
        async with self._turn:
            self._notifier.reloading(anyio.current_time())
            try:
                await self._change()
            except SettingsError:
                self._reloaded(False)
                raise
            finally:
                self._notifier.ready()

    async def _change(self) -> None:
        self._read = await anyio.to_thread.run_sync(self._origin.fingerprint)
        settings = await anyio.to_thread.run_sync(self._origin.load)
        await self._put_in_force(settings)
        before, self.settings = self.settings, settings
        fixed = [
            name for name in FIXED if getattr(before, name) != getattr(settings, name)
        ]
        if fixed:
            log.warning("config.restart_needed", sections=fixed)
        self._reloaded(True)
        log.info("config.reloaded", targets=list(settings.targets))
