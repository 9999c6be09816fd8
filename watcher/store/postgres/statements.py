"""What is asked of the database: each a statement, and so a transaction, of its own."""

from __future__ import annotations

from typing import LiteralString

# Where the journal's own time has come to; see `store/aging.py`.
_NOW: LiteralString = """
time + least(greatest(
  coalesce(%(now)s, extract(epoch FROM clock_timestamp())) - wall, 0), 86400)
"""

# One statement, for two reasons: a replica that is stopped in the middle of it holds no
# lock, as the server has all of it or none; and a number becomes visible only after all
# lower ones, since the row of the counter is locked from its update to the commit.
COMMIT: LiteralString = (
    """
WITH held AS MATERIALIZED (
  SELECT unit FROM watcher.leases
  JOIN unnest(%(units)s::text[], %(epochs)s::bigint[]) AS mine(unit, epoch)
    USING (unit, epoch)
  WHERE owner = %(owner)s AND leased_until > clock_timestamp()
  FOR KEY SHARE OF leases),
fence AS MATERIALIZED (
  SELECT count(*) = cardinality(%(units)s::text[]) AS holds FROM held),
saved AS (
  INSERT INTO watcher.records (target, job_id, body)
  SELECT given.* FROM fence,
    unnest(%(targets)s::text[], %(job_ids)s::text[], %(bodies)s::text[])
      AS given(target, job_id, body)
  WHERE holds ORDER BY target, job_id
  ON CONFLICT (target, job_id) DO UPDATE SET body = excluded.body),
told AS MATERIALIZED (
  SELECT given.*, row_number() OVER (ORDER BY n) AS place FROM fence,
    unnest(%(event_ids)s::text[], %(event_targets)s::text[], %(event_jobs)s::text[],
      %(event_bodies)s::text[])
      WITH ORDINALITY AS given(event_id, target, job_id, body, n)
  WHERE holds AND NOT EXISTS (
    SELECT FROM watcher.journal WHERE journal.event_id = given.event_id)),
counted AS (
  UPDATE watcher.state SET seq = seq + (SELECT count(*) FROM told)
  WHERE EXISTS (SELECT FROM told)
  RETURNING seq - (SELECT count(*) FROM told) AS before, """
    + _NOW
    + """ AS at),
journaled AS (
  INSERT INTO watcher.journal (seq, event_id, committed_at, target, job_id, body)
  SELECT before + place, event_id, at, target, job_id, body FROM told, counted),
owed AS (
  INSERT INTO watcher.outbox (sink, seq, target)
  SELECT sink, before + place, target
  FROM told, counted, unnest(%(sinks)s::text[]) AS sink)
SELECT (SELECT holds FROM fence),
  ARRAY(SELECT unit FROM held),
  (SELECT before FROM counted),
  (SELECT array_agg(n ORDER BY n) FROM told
   HAVING count(*) < cardinality(%(event_ids)s::text[]))
"""
)

LOAD: LiteralString = """
SELECT target, job_id, records.body, greatest(forgotten.told, state.told)
FROM watcher.state, unnest(%(targets)s::text[], %(job_ids)s::text[])
  AS wanted(target, job_id)
LEFT JOIN watcher.records USING (target, job_id)
LEFT JOIN watcher.forgotten USING (target, job_id)
"""
KNOWN: LiteralString = "SELECT target, job_id FROM watcher.records"
FORGET: LiteralString = """
WITH given AS (
  SELECT * FROM unnest(%(targets)s::text[], %(job_ids)s::text[], %(told)s::bigint[])
    AS given(target, job_id, told)),
gone AS (
  DELETE FROM watcher.records USING given
  WHERE (records.target, records.job_id) = (given.target, given.job_id))
INSERT INTO watcher.forgotten (target, job_id, told)
SELECT * FROM given WHERE told IS NOT NULL ORDER BY target, job_id
ON CONFLICT (target, job_id) DO UPDATE SET told = excluded.told
"""

# Events handed out to a replica before are marked as repeated for the next one.
UNDELIVERED: LiteralString = """
WITH due AS MATERIALIZED (
  SELECT seq, target, body FROM watcher.outbox AS owed
  JOIN watcher.journal USING (seq, target)
  WHERE sink = %(sink)s
    AND (%(targets)s::text[] IS NULL OR target = ANY(%(targets)s::text[]))
    AND NOT EXISTS (
      SELECT FROM unnest(%(held_targets)s::text[], %(held_jobs)s::text[])
        AS held(target, job_id)
      WHERE held.target = owed.target AND held.job_id = journal.job_id)
  ORDER BY seq LIMIT %(limit)s),
noted AS (
  INSERT INTO watcher.offers AS known (sink, target, owner, offered, before)
  SELECT %(sink)s, target, %(owner)s, max(seq), 0 FROM due GROUP BY target
  ORDER BY target
  ON CONFLICT (sink, target) DO UPDATE
  SET owner = excluded.owner, offered = greatest(known.offered, excluded.offered),
    before = CASE WHEN known.owner = excluded.owner
      THEN known.before ELSE known.offered END
  WHERE known.owner <> excluded.owner OR known.offered < excluded.offered
  RETURNING target, before)
SELECT seq, due.body, seq <= coalesce(noted.before, known.before, 0)
FROM due LEFT JOIN noted USING (target)
LEFT JOIN watcher.offers AS known
  ON known.target = due.target AND known.sink = %(sink)s
ORDER BY seq
"""
DELIVERED: LiteralString = """
DELETE FROM watcher.outbox WHERE sink = %(sink)s AND seq = ANY(%(seqs)s::bigint[])
"""
BACKLOG: LiteralString = """
SELECT count(*) FROM watcher.outbox WHERE sink = %(sink)s
  AND (%(targets)s::text[] IS NULL OR target = ANY(%(targets)s::text[]))
"""
READ: LiteralString = """
SELECT seq, body FROM watcher.journal WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s
"""
READ_JOB: LiteralString = """
SELECT seq, body FROM watcher.journal
WHERE job_id = %(job_id)s AND seq > %(after)s ORDER BY seq LIMIT %(limit)s
"""
HIGHEST: LiteralString = "SELECT seq FROM watcher.state"

START_TIME: LiteralString = """
UPDATE watcher.state SET time = given.now, wall = given.now FROM (
  SELECT coalesce(%(now)s, extract(epoch FROM clock_timestamp())) AS now) AS given
WHERE time IS NULL
"""
ADVANCE_TIME: LiteralString = (
    "UPDATE watcher.state SET time = "
    + _NOW
    + ", wall = coalesce(%(now)s, extract(epoch FROM clock_timestamp())) RETURNING time"
)
PRUNE_OLD: LiteralString = """
WITH old AS (
  SELECT seq FROM watcher.journal WHERE committed_at < %(oldest)s
  ORDER BY committed_at LIMIT %(most)s FOR UPDATE SKIP LOCKED),
dead AS (
  DELETE FROM watcher.outbox USING old WHERE outbox.seq = old.seq RETURNING sink),
gone AS (
  DELETE FROM watcher.journal USING old WHERE journal.seq = old.seq RETURNING 1)
SELECT NULL, count(*) FROM gone UNION ALL SELECT sink, count(*) FROM dead GROUP BY sink
"""
PRUNE_LONG: LiteralString = """
WITH surplus AS (
  SELECT seq FROM watcher.journal
  WHERE seq <= (SELECT seq FROM watcher.journal ORDER BY seq DESC
      LIMIT 1 OFFSET %(events)s)
    AND NOT EXISTS (SELECT FROM watcher.outbox WHERE outbox.seq = journal.seq)
  ORDER BY seq LIMIT %(most)s FOR UPDATE SKIP LOCKED),
gone AS (
  DELETE FROM watcher.journal USING surplus
  WHERE journal.seq = surplus.seq RETURNING 1)
SELECT NULL, count(*) FROM gone
"""
DROP_FORGOTTEN: LiteralString = """
WITH gone AS (
  DELETE FROM watcher.forgotten WHERE NOT EXISTS (
    SELECT FROM watcher.journal WHERE journal.job_id = forgotten.job_id
      AND journal.target = forgotten.target)
  RETURNING told)
UPDATE watcher.state SET told = greatest(told, (SELECT max(told) FROM gone))
WHERE EXISTS (SELECT FROM gone)
"""
DROP_REPLICAS: LiteralString = """
WITH replicas AS (
  DELETE FROM watcher.replicas
  WHERE alive_until < clock_timestamp() - interval '1 day')
DELETE FROM watcher.leases WHERE leased_until < clock_timestamp() - interval '1 day'
"""

WATCHED: LiteralString = "SELECT target, job_id FROM watcher.watched"
ADD: LiteralString = """
INSERT INTO watcher.watched (target, job_id)
SELECT * FROM unnest(%(targets)s::text[], %(job_ids)s::text[]) AS given(target, job_id)
ORDER BY target, job_id ON CONFLICT DO NOTHING
"""
REMOVE: LiteralString = """
DELETE FROM watcher.watched WHERE (target, job_id) IN (
  SELECT * FROM unnest(%(targets)s::text[], %(job_ids)s::text[]))
"""
NOTE: LiteralString = """
INSERT INTO watcher.notes (name, text) VALUES (%(name)s, %(text)s)
ON CONFLICT (name) DO UPDATE SET text = excluded.text
"""
NOTES: LiteralString = "SELECT name, text FROM watcher.notes"
