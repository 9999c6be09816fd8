"""Takes away one guard after the other, and says after how many worlds that is found.

`python -m tests.world.guards [WORDS] [--worlds N]` works on a copy of the program. A row
is a guard of `docs/guards.md`, its file, what stands there and what stands there without.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Guard(NamedTuple):
    what: str
    file: str
    old: str
    new: str


COMMITTER, TARGET = "polling/committer.py", "polling/target.py"
TRACKER, LEDGER = "core/tracker.py", "store/sqlite/ledger.py"
COURIER, BREAKER = "sinks/courier.py", "client/breaker.py"

GUARDS = (
    Guard(
        "commit, then show, then tell",
        COMMITTER,
        "            await self._store.commit(steps",
        "            self._show(steps)\n            await self._store.commit(steps",
    ),
    Guard(
        "what comes during a commit builds on it",
        COMMITTER,
        "return self._pending.get(key) or self._committing.get(key)",
        "return self._pending.get(key)",
    ),
    Guard(
        "a failed commit goes before what came later",
        COMMITTER,
        "            self._pending[key] = earlier.followed_by(step) if earlier else step\n"
        "        if self._pending:",
        "            self._pending[key] = step.followed_by(earlier) if earlier else step\n"
        "        if self._pending:",
    ),
    Guard(
        "a failed commit drops nothing",
        COMMITTER,
        "        except StoreError as exc:\n            self._take_back()\n",
        "        except StoreError as exc:\n            self._committing = {}\n",
    ),
    Guard(
        "a job dropped during its commit is not shown again",
        COMMITTER,
        "            for steps in self._known:\n                steps.pop",
        "            for steps in (self._pending, self._unsaved):\n                steps.pop",
    ),
    Guard(
        "the last look is saved at the end",
        COMMITTER,
        "                await self._stop.wait()\n        await self._commit()\n",
        "                await self._stop.wait()\n",
    ),
    Guard(
        "what could not be forgotten is forgotten later",
        COMMITTER,
        "await self._store.forget(frozenset(self._unforgotten))",
        "await self._store.forget(frozenset(keys))",
    ),
    Guard(
        "one request of a job at a time",
        TARGET,
        "if due is None or due[0] in self._asked:",
        "if due is None:",
    ),
    Guard(
        "an answer of an earlier watch does not count",
        TARGET,
        "if void or watched.number != look.watch:",
        "if void:",
    ),
    Guard(
        "an answer through a target that left does not count",
        "polling/poller.py",
        "return self._targets.get(target.name) is target",
        "return True",
    ),
    Guard(
        "the number of a repetition is in the event id",
        "core/transitions.py",
        "for part in (*parts, ordinal))",
        "for part in (*parts, 0))",
    ),
    Guard(
        "event ids do not repeat over a forgotten job",
        TRACKER,
        "ordinals={EARLIER: told} if told else {}",
        "ordinals={}",
    ),
    Guard(
        "what keeps ids apart outlives the watching",
        LEDGER,
        "told = [(*key, most_told(it)) for key, it in self._saved(keys).items()]",
        "told = [(*key, 0) for key in keys]",
    ),
    Guard(
        "time that passed, not what the clock shows",
        "core/elapsed.py",
        "gap = tick.seconds - before.tick.seconds",
        "gap = now - before.wall",
    ),
    Guard(
        "between two lives a gap counts for what was seen",
        "core/elapsed.py",
        "gap = min(now - before.wall, before.seconds)",
        "gap = now - before.wall",
    ),
    Guard(
        "gone takes thirty seconds",
        TRACKER,
        "answers >= GONE_ANSWERS and missing.seconds >= GONE_SPREAD",
        "answers >= GONE_ANSWERS",
    ),
    Guard(
        "a row no younger than the end proves nothing",
        TRACKER,
        "return ended is None or moved is None or moved > ended",
        "return True",
    ),
    Guard(
        "records and journal in one transaction",
        LEDGER,
        "            self._write_records(records.values())\n",
        "            self._write_records(records.values())\n"
        '            self._db.execute("COMMIT")\n'
        '            self._db.execute("BEGIN IMMEDIATE")\n',
    ),
    Guard(
        "events and what is owed in one transaction",
        LEDGER,
        "            self._db.executemany(\n"
        '                "INSERT INTO outbox (sink, seq) VALUES (?, ?)",',
        '            self._db.execute("COMMIT")\n'
        '            self._db.execute("BEGIN IMMEDIATE")\n'
        '            self._fault_point("commit.after_write")\n'
        "            self._db.executemany(\n"
        '                "INSERT INTO outbox (sink, seq) VALUES (?, ?)",',
    ),
    Guard(
        "a commit is durable",
        LEDGER,
        "{'FULL' if durable else 'NORMAL'}",
        "NORMAL",
    ),
    Guard(
        "the journal takes an id once",
        LEDGER,
        " WHERE NOT EXISTS (SELECT 1 FROM journal WHERE event_id = ?)",
        " WHERE ? IS NOT NULL",
    ),
    Guard(
        "the hand-out is noted before it happens",
        LEDGER,
        "if highest > self._offered.get(sink, 0):",
        "if False:",
    ),
    Guard(
        "`replayed` on nothing else",
        LEDGER,
        "replayed=seq <= offered_before",
        "replayed=True",
    ),
    Guard(
        "an event is owed until the sink took it",
        COURIER,
        '        self._fault_point("deliver.before")\n',
        '        self._fault_point("deliver.before")\n'
        "        self._settle(events)\n        await self._mark()\n",
    ),
    Guard(
        "an event is owed no longer",
        COURIER,
        "        self._unmarked.update(event.seq for event in events)\n",
        "",
    ),
    Guard(
        "a refused event holds back its job",
        COURIER,
        "if self._paused or not await self._offer([event]):",
        "if await self._offer([event]) is None:",
    ),
    Guard(
        "an added job is kept before it is watched",
        "daemon/watch_list.py",
        "            await self._kept.add(new)\n",
        "",
    ),
    Guard(
        "what was added earlier is read before anything is added",
        "daemon/rooms.py",
        "        await self.watch_list.load()\n",
        "",
    ),
    Guard(
        "a refusal takes a key back to one at a time",
        BREAKER,
        "                self._accepted = False\n",
        "",
    ),
    Guard(
        "three refused, then nothing goes",
        BREAKER,
        "full = not self._accepted and len(self._refused) == MOST_REFUSED",
        "full = False",
    ),
    Guard(
        "what left before a refusal proves nothing",
        BREAKER,
        "case Outcome.ACCEPTED if ticket == self._refusals:",
        "case Outcome.ACCEPTED:",
    ),
    Guard(
        "an unproven key goes one request at a time",
        BREAKER,
        "return most if self._accepted else 1",
        "return most",
    ),
    Guard(
        "one breaker a key, over all targets",
        BREAKER,
        "        return self._breakers[account]",
        "        return Breaker(account, self._on_change)",
    ),
    Guard(
        "what the key does not let go waits with its target",
        "polling/release.py",
        "        and not key_is_full(target, sharing)\n",
        "",
    ),
    Guard(
        "the rate has a ceiling",
        "core/schedule.py",
        "return self._expected_at - TICK",
        "return 0.0",
    ),
    Guard(
        "so many in flight and no more",
        TARGET,
        "return self.in_flight < limit",
        "return True",
    ),
)


def without(guard, folder):
    """Make a copy of the program that lacks a guard."""
    for name in ("watcher", "tests"):
        ignore = shutil.ignore_patterns("__pycache__", "whole", "real", "corpus")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    file = folder / "watcher" / guard.file
    text = file.read_text()
    if text.count(guard.old) != 1:
        raise ValueError(f"{guard.file} has not once: {guard.old}")
    file.write_text(text.replace(guard.old, guard.new))


def worlds_until_found(guard, worlds):
    """Return how many worlds it took, or None, and what was found first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        without(guard, folder)
        command = [
            sys.executable,
            "-m",
            "tests.world",
            "--stop",
            "--worlds",
            str(worlds),
        ]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False
        )
    lines = done.stdout.splitlines()
    found = [line for line in lines if line.startswith("make world SEED=")]
    count = re.match(r"(\d+) worlds", lines[-1]) if lines else None
    if not count:
        raise RuntimeError(done.stderr[-2000:])
    if not found:
        return None, f"not in {count[1]} worlds"
    return int(count[1]), found[0].partition(": ")[2][:90]


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.world.guards")
    parser.add_argument("words", nargs="?", default="", help="only those that say so")
    parser.add_argument("--worlds", type=int, default=2000)
    args = parser.parse_args()
    missed = 0
    for guard in GUARDS:
        if args.words in guard.what:
            count, found = worlds_until_found(guard, args.worlds)
            missed += count is None
            print(f"| {guard.what} | {count or '-'} | {found} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
