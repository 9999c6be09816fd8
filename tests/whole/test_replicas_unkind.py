"""Three replicas on one real PostgreSQL: killed, stopped, cut off, their database too."""

import os
import random
import signal
import time
from collections import Counter, defaultdict
from pathlib import Path

import anyio
import pytest

from tests.doors.store.postgres import made
from tests.real.components import require
from tests.whole.daemon import until
from tests.whole.replicas import KEYS, LEASE, Changes, freeze, thaw, world
from watcher.simulator import SimulatorOptions, simulate

ACTS = int(os.environ.get("WATCHER_ACTS", "40"))
SEED = int(os.environ.get("WATCHER_SEED", "1"))
OPTIONS = SimulatorOptions(jobs=240, tasks=2, speed=1.0, credentials=KEYS)
POLL = {
    "interval": "3s",
    "requests_per_second": 50,
    "timeout": "2s",
    "mode": "detail",
    "backoff_max": "5s",
}
PATIENCE = 120.0
NO_STORE = 78
SLACK = 0.5
"""Seconds by which what two replicas did may be seen in the wrong order here."""

pytestmark = pytest.mark.alone


@pytest.fixture
def database():
    server = made()  # fsync is on
    yield server
    server.stop()


class Unkind:
    """Does what happens to processes, networks and machines, drawn from a seed."""

    def __init__(self, world, draw):
        self.world = world
        self.done = Counter()
        self._draw = draw
        self._deck = []

    async def act(self, times):
        """Do so many things: to each replica one at a time, to the database beside."""
        self._left = times
        async with anyio.create_task_group() as lanes:
            for replica in self.world.replicas:
                lanes.start_soon(self._trouble, replica)
            lanes.start_soon(self._trouble_database)

    def _turn(self, name):
        if self._left <= 0:
            return False
        self._left -= 1
        self.done[name] += 1
        return True

    async def _trouble(self, replica):
        acts = {
            "kill -9": self._kill,
            "SIGTERM": self._terminate,
            "stop and go on": self._stop,
            "cut from the database": self._cut_database,
            "late to the database": self._delay_database,
            "cut from the cloud": self._cut_cloud,
            "clock +1 h": self._set_clock,
        }
        while self._left > 0:
            if not self._deck:
                self._deck = self._draw.sample(sorted(acts), len(acts))
            name = self._deck.pop()
            if self._turn(name):
                await acts[name](replica)
                await anyio.sleep(self._draw.uniform(0.5, 2))
                while (
                    not replica.alive
                ):  # it found no database; restarted by what runs it
                    assert replica.process.returncode == NO_STORE, replica.last_words()
                    self.done["started in vain"] += 1
                    await replica.live(self.world.tasks)
                    await anyio.sleep(1)

    async def _kill(self, replica):
        await replica.end(signal.SIGKILL)
        await anyio.sleep(self._draw.uniform(0, LEASE))
        await replica.live(self.world.tasks)

    async def _terminate(self, replica):
        at = await replica.end(signal.SIGTERM)
        assert replica.process.returncode in {0, NO_STORE}, replica.last_words()
        assert time.monotonic() - at < 7
        await replica.live(self.world.tasks)

    async def _stop(self, replica):
        freeze(replica.process)
        await anyio.sleep(self._draw.uniform(2, 3) * LEASE)
        thaw(replica.process)

    async def _cut_database(self, replica):
        replica.database.cut()
        await anyio.sleep(self._draw.uniform(0.2, 2) * LEASE)
        replica.database.mend()

    async def _delay_database(self, replica):
        replica.database.hold()
        await anyio.sleep(self._draw.uniform(1.5, 2.5) * LEASE)
        replica.database.mend()

    async def _cut_cloud(self, replica):
        replica.cloud.cut()
        await anyio.sleep(self._draw.uniform(0.2, 2) * LEASE)
        replica.cloud.mend()

    async def _set_clock(self, replica):
        await replica.end(signal.SIGKILL)
        await replica.live(self.world.tasks, **fast_clock())

    async def _trouble_database(self):
        server, turn = self.world.server, 0
        while self._left > 0:
            await anyio.sleep(self._draw.uniform(4, 10))
            turn += 1
            end = (server.stop, server.kill)[turn % 2]
            if self._turn(f"database: {end.__name__}"):
                await anyio.to_thread.run_sync(end)
                await anyio.to_thread.run_sync(server.start)


def fast_clock():
    """Return an environment whose wall clock alone is an hour ahead."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": "+1h",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def check_one_at_a_time(world):
    """Nobody asked for a job once it was seen that another had taken its target over."""
    taken = defaultdict(list)
    for at, who, _, line in world.story.lines:
        if line["event"] == "lease.taken":
            for name in line["targets"]:
                taken[name].append((at, who, line["epoch"]))
    wrong = []
    for at, who, job_id in world.story.requests:
        name = world.target_of[job_id]
        own = [n for when, one, n in taken[name] if one == who and when <= at + SLACK]
        others = [n for when, one, n in taken[name] if one != who and when < at - SLACK]
        if max(others, default=0) > max(own, default=0):
            wrong.append((at, who, name, own, others))
    assert wrong == [], wrong[:5]
    return len(world.story.requests)


def check_commits(world):
    """Each event was written by who held its target at that moment, by the database itself."""
    lives = defaultdict(set)
    for replica in world.replicas:
        for port, names in replica.database.lives.items():
            lives[port] |= names
    owners = defaultdict(set)
    for row in world.rows("SELECT DISTINCT port, owner FROM watcher.owners"):
        for life in lives[row["port"]]:
            owners[life].add(row["owner"])
    rows = world.rows("SELECT * FROM watcher.audit")
    for row in rows:
        writer = set().union(*(owners[life] for life in lives[row["port"]]))
        assert row["owner"] in writer, row
    return len(rows)


def check_truth(changes, events):
    """Each change stands in the journal once, in order, and nothing else does."""
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs))
    told = defaultdict(list)
    for event in events:
        if event["event"] == "task.transition":
            told[event["job_id"], event["task_id"]].append((event["from"], event["to"]))
    assert dict(told) == dict(changes.made)
    first = Counter(x["job_id"] for x in events if x["event"] == "job.first_seen")
    assert first == Counter(dict.fromkeys(changes.world.sim.job_ids, 1))


def check_told(lines, events, flag=None):
    """Every event was told, in the order of its job; what was told again says so."""
    seq = {event["event_id"]: event["seq"] for event in events}
    first, order, again = {}, defaultdict(list), 0
    for line in lines:
        known = first.setdefault(line["event_id"], line)
        if known is line:
            order[line["job_id"]].append(seq[line["event_id"]])
        else:
            again += 1
            assert flag is None or line[flag] is True, (known, line)
    assert first.keys() == seq.keys(), seq.keys() - first.keys()
    for job_id, numbers in order.items():
        assert numbers == sorted(numbers), job_id
    return again


async def test_nothing_is_lost_and_nobody_works_beside_another(
    tmp_path, database, capsys
):
    require("faketime")
    draw, began = random.Random(SEED), time.monotonic()
    async with (
        simulate(OPTIONS) as sim,
        world(tmp_path, sim, database, poll=POLL) as it,
    ):
        changes = Changes(it, draw)
        unkind = Unkind(it, draw)
        await until(lambda: len(it.story.events("watcher.started")) == 3, PATIENCE)
        await until(lambda: changes.all_seen, PATIENCE)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(changes.run)
            await unkind.act(ACTS)
            changes.over = True
        await until(lambda: changes.settled, PATIENCE)
        events = await it.journal()
        ids = {event["event_id"] for event in events}
        await until(lambda: ids <= {x["event_id"] for x in it.story.received}, PATIENCE)
        lines = [x for _, _, _, x in it.story.lines if "event_id" in x]
        check_truth(changes, events)
        requests = check_one_at_a_time(it)
        commits = check_commits(it)
        replays = check_told(lines, events, "replayed")
        repeats = check_told(it.story.received, events)
        losses = len(it.story.events("lease.lost"))
    with capsys.disabled():
        print(
            f"\n{sum(unkind.done.values())} acts {dict(unkind.done)}, {requests} requests, "
            f"{commits} events, {replays} told again, {repeats} posted again, "
            f"{losses} units lost, {time.monotonic() - began:.0f} s"
        )


async def test_who_is_gone_is_replaced_in_time(tmp_path, database, capsys):
    async with (
        simulate(OPTIONS) as sim,
        world(tmp_path, sim, database, poll=POLL) as it,
    ):
        await until(lambda: len(it.story.events("watcher.started")) == 3, PATIENCE)
        took = {}
        for number, bound in ((signal.SIGKILL, LEASE + 5), (signal.SIGTERM, 2.0)):
            replica = next(x for x in it.replicas if x.alive and held(it, x.name))
            units = held(it, replica.name)
            at = time.monotonic()
            replica.process.send_signal(number)
            await until(lambda at=at, units=units: units <= taken(it, at), PATIENCE)
            took[number.name] = max(
                when - at
                for when, line in it.story.events("lease.taken")
                if when > at and line["unit"] in units
            )
            assert took[number.name] <= bound, took
    with capsys.disabled():
        print(f"\ntaken over after {took}")


def held(it, name):
    """Return the units that a replica took last of all."""
    last = {}
    for _, who, _, line in it.story.lines:
        if line["event"] == "lease.taken":
            last[line["unit"]] = who
    return {unit for unit, who in last.items() if who == name}


def taken(it, since):
    return {x["unit"] for at, x in it.story.events("lease.taken") if at > since}
