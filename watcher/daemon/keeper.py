"""Keeps the leases of this replica: renews them, takes what is free, gives back.

Only time that passed counts here, and only the database's clock there. What was renewed is
relied on until the renewal *began* and a lease less `MARGIN` has gone by; then everything
of the unit stops, whether the store can be asked or not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping

import anyio
import structlog

from watcher.core.errors import StoreError
from watcher.daemon.holding import Holding
from watcher.daemon.units import share_of
from watcher.ports import Leases, LeaseTable, Whose

LOOK_EVERY = 1.0
"""Seconds between two looks at who holds what."""
MARGIN = 1.0
"""Seconds before its end from which on a lease is not relied on."""
RENEWALS = 3
"""In the time of one lease."""
GIVE_BACK_EVERY = 60.0
"""Seconds between two units that are given back to even the shares."""
WRITE_WITHIN = 2.0
"""Seconds for what is to be committed and delivered of a unit that is given back."""
SHORT = 8
"""Characters of a replica's name by which people tell it from others."""

Names = Collection[str]

log = structlog.get_logger()


class Keeper:
    """Says which targets this replica asks.

    Attributes:
        table: Who holds what, as it was last seen.
        losses: Units that were lost, not given back.
    """

    def __init__(
        self,
        leases: Leases,
        lease: float,
        holding: Holding,
        *,
        take_up: Callable[[Names], Awaitable[None]],
        extended: Callable[[], None],
        wind_up: Callable[[Names], Awaitable[None]],
        let_go: Callable[[Names], None],
        chance: Callable[[], float],
    ) -> None:
        """Keep nothing yet.

        Args:
            leases: Where leases are.
            lease: Seconds from a renewal to its end.
            holding: What is held; nobody else changes it but to say what is lost.
            take_up: Begins to watch targets; may raise StoreError, and is called again.
            extended: Lets those that are watched be asked for longer.
            wind_up: Commits and delivers what there is of targets asked no more.
            let_go: Forgets about targets, whose records stay in the store.
            chance: Draws a number in [0, 1).
        """
        self.table = LeaseTable({}, 0)
        self.losses = 0
        self._leases = leases
        self._lease = lease
        self._holding = holding
        self._take_up = take_up
        self._extended = extended
        self._wind_up = wind_up
        self._let_go = let_go
        self._chance = chance
        self._renew_at = 0.0
        self._give_back_at = 0.0
        self._free_since: dict[str, float] = {}
        self._taken_up: frozenset[str] = frozenset()
        self._failures = 0

    @property
    def units(self) -> Mapping[str, Whose]:
        """Whose each unit of the settings in force is."""
        return {unit: self._whose(unit) for unit in sorted(self._holding.all_units)}

    def _whose(self, unit: str) -> Whose:
        if unit in self._holding.held:
            return Whose.HELD
        return Whose.FREE if self._holder(unit) is None else Whose.ELSEWHERE

    def replica_of(self, target: str) -> str | None:
        """Return who watches a target, in short; None: nobody does."""
        one = self._holder(self._holding.units.get(target, ""))
        return None if one is None else one[:SHORT]

    def _holder(self, unit: str) -> str | None:
        owner = self._holding.owner
        if unit in self._holding.held:
            return owner
        other = self.table.holders.get(unit)
        return None if other == owner else other

    def shown(self) -> Mapping[str, object]:
        """Return this replica and the units of all, for who looks at the watcher."""
        owner = self._holding.owner
        return {
            "name": owner,
            "alive": self.table.replicas,
            "losses": self.losses,
            "units": [
                {
                    "name": unit,
                    "targets": sorted(self._holding.targets_of([unit])),
                    "state": whose,
                    "replica": self._holder(unit),
                }
                for unit, whose in self.units.items()
            ],
        }

    async def run(self) -> None:
        """Keep until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_time)
            while True:
                await self._turn()
                await anyio.sleep(LOOK_EVERY)

    async def leave(self) -> None:
        """Let go of everything at once: all that there was is committed and told."""
        try:
            with anyio.move_on_after(WRITE_WITHIN):
                await self._leases.leave()
        except StoreError as exc:  # it runs out by itself
            log.warning("lease.failing", error=str(exc))

    async def _watch_time(self) -> None:
        """Let go of what ran out or was lost, also while the store does not answer."""
        while True:
            self._lose(self._holding.ended, "it could not be renewed in time")
            wait = self._holding.next_end - anyio.current_time()
            with anyio.move_on_after(max(0.0, min(wait, LOOK_EVERY))):
                await self._holding.lost.wait()
                self._holding.lost = anyio.Event()
                ended = self._holding.ended
                self._lose(ended, "another replica may hold it: a commit was refused")

    async def _turn(self) -> None:
        try:
            if anyio.current_time() >= self._renew_at:
                await self._renew()
            await self._share_out()
            await self._follow()
        except StoreError as exc:
            self._failures += 1
            if self._failures == 1:
                log.warning("lease.failing", error=str(exc))
            return
        if self._failures:
            log.info("lease.recovered", failures=self._failures)
        self._failures = 0

    async def _renew(self) -> None:
        began = anyio.current_time()
        held = self._holding.held
        epochs = await self._leases.renew()
        # Not what ran out meanwhile: it was let go of, and is taken up afresh.
        self._lose(self._holding.ended, "it could not be renewed in time")
        until = began + self._lease - MARGIN
        self._lose(self._holding.extend(epochs, until), "another replica took it")
        self._extended()
        back = {u: n for u, n in epochs.items() if u not in self._holding.held}
        self._begin({u: n for u, n in back.items() if u not in held}, until)
        wait = self._lease / RENEWALS
        self._renew_at = began + wait * (0.9 + 0.2 * self._chance())

    async def _share_out(self) -> None:
        """Take what is free within the fair share; give back what is beyond it."""
        units = self._holding.all_units
        self.table = await self._leases.owners()
        now, held = anyio.current_time(), self._holding.held
        if stale := held.keys() - units:
            await self._give_back(stale)
        self._note_free(units, now)
        share = share_of(self._holding.owner, self.table, units)
        if room := max(0, share - len(held)) or len(self._left_over(now)):
            await self._take(room)
        elif len(held) > share and now >= self._give_back_at:
            self._give_back_at = now + GIVE_BACK_EVERY
            await self._give_back([max(held)])

    def _note_free(self, units: Names, now: float) -> None:
        free = {unit for unit in units if self.table.holders.get(unit) is None}
        self._free_since = {u: self._free_since.get(u, now) for u in free}

    def _left_over(self, now: float) -> Names:
        """Return what nobody has come for, though it is another's share."""
        wait = 2 * self._lease
        return [u for u, since in self._free_since.items() if now - since >= wait]

    async def _take(self, most: int) -> None:
        # Each in an order of its own, so that replicas do not all reach for the same.
        start = int(self._chance() * len(self._free_since))
        free = sorted(self._free_since)
        order = [*free[start:], *free[:start]]
        if not order:
            return
        began = anyio.current_time()
        wanted = {unit: self._holding.targets_of([unit]) for unit in order}
        taken = await self._leases.take(wanted, most)
        self._begin(taken, began + self._lease - MARGIN)

    def _begin(self, epochs: Mapping[str, int], until: float) -> None:
        self._holding.take(epochs, until)
        for unit, epoch in epochs.items():
            self._free_since.pop(unit, None)
            targets = sorted(self._holding.targets_of([unit]))
            log.info("lease.taken", unit=unit, epoch=epoch, targets=targets)

    async def _follow(self) -> None:
        """Watch what is held and was not watched yet."""
        self._taken_up &= self._holding.targets()
        if new := self._holding.targets() - self._taken_up:
            await self._take_up(new)
            self._taken_up |= new

    async def _give_back(self, units: Names) -> None:
        for unit in units:
            self._holding.leave(unit)
        targets = self._holding.targets_of(units)
        self._taken_up -= targets
        with anyio.move_on_after(WRITE_WITHIN):
            await self._wind_up(targets)
        self._let_go(targets)
        self._holding.drop(units)
        await self._leases.release(units)
        for unit in units:
            log.info("lease.given_back", unit=unit)

    def _lose(self, units: Names, why: str) -> None:
        if not units:
            return
        targets = self._holding.targets_of(units)
        self._holding.drop(units)
        self._taken_up -= targets
        self._let_go(targets)
        self.losses += len(units)
        for unit in sorted(units):
            named = sorted(self._holding.targets_of([unit]))
            log.warning("lease.lost", unit=unit, targets=named, reason=why)
