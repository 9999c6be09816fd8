"""Leases on units of work, kept by the clock of the database alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import LiteralString

from watcher.ports import LeaseTable
from watcher.store.postgres.line import Line

_RENEW: LiteralString = """
WITH alive AS (
  INSERT INTO watcher.replicas (owner, alive_until)
  VALUES (%(owner)s, clock_timestamp() + make_interval(secs => %(ttl)s))
  ON CONFLICT (owner) DO UPDATE SET alive_until = excluded.alive_until)
UPDATE watcher.leases
SET leased_until = clock_timestamp() + make_interval(secs => %(ttl)s)
WHERE owner = %(owner)s RETURNING unit, epoch
"""
# One take at a time, each seeing what the one before it took: else two could take one
# target by two names. It waits for takes only, never for a commit or a renewal.
_QUEUE: LiteralString = "SELECT FROM watcher.version FOR UPDATE"
# A commit under way holds its lease FOR KEY SHARE: it is passed over here, while the
# plain update of a renewal goes on beside it.
_TAKE: LiteralString = """
WITH wanted AS (
  SELECT unit, min(n) AS n, array_agg(target) FILTER (WHERE target <> '') AS targets
  FROM unnest(%(units)s::text[], %(targets)s::text[])
    WITH ORDINALITY AS given(unit, target, n)
  GROUP BY unit),
free AS (
  SELECT wanted.*, held.unit IS NULL AS is_new
  FROM wanted LEFT JOIN watcher.leases AS held USING (unit)
  WHERE (held.unit IS NULL OR held.owner IS NULL
      OR held.leased_until <= clock_timestamp())
    AND NOT EXISTS (SELECT FROM watcher.leases AS other
      WHERE other.unit <> wanted.unit AND other.owner IS NOT NULL
        AND other.leased_until > clock_timestamp()
        AND other.targets && wanted.targets)),
locked AS (
  SELECT unit FROM watcher.leases WHERE unit IN (SELECT unit FROM free)
  FOR UPDATE SKIP LOCKED)
INSERT INTO watcher.leases AS held (unit, owner, epoch, leased_until, targets)
SELECT unit, %(owner)s, 1, clock_timestamp() + make_interval(secs => %(ttl)s),
  coalesce(targets, '{}')
FROM free WHERE is_new OR unit IN (SELECT unit FROM locked)
ORDER BY n LIMIT %(most)s
ON CONFLICT (unit) DO UPDATE
SET owner = excluded.owner, epoch = held.epoch + 1,
  leased_until = excluded.leased_until, targets = excluded.targets
WHERE held.owner IS NULL OR held.leased_until <= clock_timestamp()
RETURNING unit, epoch
"""
_RELEASE: LiteralString = """
UPDATE watcher.leases SET owner = NULL
WHERE owner = %(owner)s AND unit = ANY(%(units)s::text[])
"""
_LEAVE: LiteralString = """
WITH gone AS (DELETE FROM watcher.replicas WHERE owner = %(owner)s)
UPDATE watcher.leases SET owner = NULL WHERE owner = %(owner)s
"""
_OWNERS: LiteralString = """
SELECT unit, CASE WHEN leased_until > clock_timestamp() THEN owner END
FROM watcher.leases
UNION ALL SELECT NULL, count(*)::text FROM watcher.replicas
WHERE alive_until > clock_timestamp()
"""


class PostgresLeases:
    """The `Leases` port, on a connection that nothing else waits for.

    Args:
        line: Where to ask.
        owner: Name of this replica, another one at each start.
        ttl: Seconds from a renewal to the end of a lease.
    """

    def __init__(self, line: Line, owner: str, ttl: float) -> None:
        self.owner = owner
        self._line = line
        self._whose = {"owner": owner, "ttl": ttl}

    async def renew(self) -> Mapping[str, int]:
        """Extend all that this replica holds, and be counted among those alive."""
        return dict(await self._line.ask(_RENEW, self._whose))

    async def take(
        self, units: Mapping[str, Collection[str]], most: int
    ) -> Mapping[str, int]:
        """Take up to `most` of these units that are free; waits for nobody."""
        apart = _apart(units)
        if not apart or most <= 0:
            return {}
        pairs = [(unit, target) for unit in apart for target in apart[unit] or [""]]
        values = {
            **self._whose,
            "units": [unit for unit, _ in pairs],
            "targets": [target for _, target in pairs],
            "most": most,
        }
        return dict((await self._line.ask_all([(_QUEUE, {}), (_TAKE, values)]))[-1])

    async def release(self, units: Collection[str]) -> None:
        """Let go of what is held of these, for anybody to take at once."""
        await self._line.ask(_RELEASE, {**self._whose, "units": list(units)})

    async def leave(self) -> None:
        """Let go of everything, and be counted no more."""
        await self._line.ask(_LEAVE, self._whose)

    async def owners(self) -> LeaseTable:
        """Return who holds what."""
        rows = await self._line.ask(_OWNERS, {})
        holders = {unit: owner for unit, owner in rows if unit is not None}
        (replicas,) = (int(count) for unit, count in rows if unit is None)
        return LeaseTable(holders, replicas)


def _apart(units: Mapping[str, Collection[str]]) -> dict[str, Collection[str]]:
    """Leave out what shares a target with one that is wished for before it."""
    apart: dict[str, Collection[str]] = {}
    seen: set[str] = set()
    for unit, targets in units.items():
        if seen.isdisjoint(targets):
            apart[unit] = targets
            seen.update(targets)
    return apart
