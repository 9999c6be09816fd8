"""One daemon after the other on the same store, each killed, and all that they said."""

import fcntl
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import anyio
import yaml

from tests.whole.daemon import surroundings, until
from tests.whole.faulty import HUNG
from watcher.store.sqlite.ledger import read_events
from watcher.store.sqlite.schema import connect

ROOT = Path(__file__).parents[2]
FAULTS = {
    "take_in.after": ("KILL", "take_in.after"),
    "commit.before": ("KILL", "commit.before"),
    "commit.after_write": ("KILL", "commit.after_write"),
    "commit.after_commit": ("KILL", "commit.after_commit"),
    "commit.hang": ("HANG", "commit.after_write"),
    "deliver.before": ("KILL", "deliver.before"),
    "deliver.after": ("KILL", "deliver.after"),
}
"""By name: what happens, and at which point of the daemon. One row is all a fault needs."""
ROUND = 2 * len(FAULTS)
"""Kills until each fault was tried once; every other one falls at any moment."""
SMALL_PIPE = 4096


@dataclass
class Life:
    """One process, from its start to its end."""

    number: int
    torn: bytes = b""
    errors: bytes = b""
    code: int | None = None
    deaf: bool = False
    began: float = field(default_factory=time.time)


@dataclass
class Story:
    """What all lives said: `lines` are (number of the life, line)."""

    lines: list[tuple[int, dict]] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    _first: dict[str, dict] = field(default_factory=dict)
    _by_job: dict[str, list[dict]] = field(default_factory=lambda: defaultdict(list))

    def hear(self, life, line):
        self.lines.append((life, line))
        if "event_id" in line and line["event_id"] not in self._first:
            self._first[line["event_id"]] = line
            self._by_job[line["job_id"]].append(line)

    def told(self, name=None, job_id=None):
        """Journal events as they were first told, in that order."""
        lines = self._first.values() if job_id is None else self._by_job[job_id]
        return [line for line in list(lines) if name in {None, line["event"]}]

    def repeated(self):
        """Pairs of lines with one id: the first, and each later one."""
        first, pairs = {}, []
        for number, line in self.lines:
            if "event_id" in line:
                known = first.setdefault(line["event_id"], (number, line))
                if known[1] is not line:
                    pairs.append((known, (number, line)))
        return pairs

    def events(self, name):
        return [line for _, line in list(self.lines) if line["event"] == name]


class Nursery:
    """Starts lives; one at a time.

    Each writes to a small pipe that is read in fits and starts, and some lives after a
    while not at all, so that a kill may fall into the middle of a line.
    """

    def __init__(self, door, story, config, draw):
        self.story = story
        self._door = door
        self._config = config
        self._draw = draw

    @asynccontextmanager
    async def life(self, *, deaf=False, **environ):
        life = Life(len(self.story.lives), deaf=deaf)
        self.story.lives.append(life)
        out, err = os.pipe(), os.pipe()
        fcntl.fcntl(out[1], fcntl.F_SETPIPE_SZ, SMALL_PIPE)
        order = {"config": str(self._config), "environ": environ}
        socket.send_fds(self._door, [json.dumps(order).encode()], [out[1], err[1]])
        os.close(out[1])
        os.close(err[1])
        readers = [
            threading.Thread(target=self._read_lines, args=(life, out[0])),
            threading.Thread(target=self._read_errors, args=(life, err[0])),
        ]
        for reader in readers:
            reader.start()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._await_end, life)
                try:
                    yield life
                finally:
                    if life.code is None:
                        self.signal("SIGKILL")
        finally:
            for reader in readers:
                await anyio.to_thread.run_sync(reader.join, 10)

    def signal(self, name):
        self._door.send(name.encode())

    async def _await_end(self, life):
        with anyio.CancelScope(shield=True):  # it ends when the process does
            life.code = int(await anyio.to_thread.run_sync(self._door.recv, 64))

    def _read_lines(self, life, descriptor):
        rest = b""
        deaf_after = self._draw.random() * 0.5 if life.deaf else math.inf
        began = time.monotonic()
        with open(descriptor, "rb", buffering=0) as pipe:
            while chunk := pipe.read(65536):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    self.story.hear(life.number, json.loads(line))
                if self._draw.random() < 0.05:
                    time.sleep(self._draw.random() * 0.1)
                while life.code is None and time.monotonic() > began + deaf_after:
                    time.sleep(0.02)
        life.torn = rest

    def _read_errors(self, life, descriptor):
        with open(descriptor, "rb") as pipe:
            for line in pipe:
                life.errors += line


def unmeasured(environ):
    """Leave coverage out: who ends by SIGKILL never writes it."""
    return {k: v for k, v in environ.items() if not k.startswith("COVERAGE_")}


@asynccontextmanager
async def nursery(folder, values, *, seed=0):
    """Open the place where lives begin, all with one configuration and one folder."""
    config = folder / "watcher.yaml"
    config.write_text(yaml.safe_dump({"server": {"listen": "127.0.0.1:0"}, **values}))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        ours,
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.whole.faulty",
                "nursery",
                str(theirs.fileno()),
            ],
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            env=unmeasured(surroundings(STATE_DIRECTORY=str(folder))),
        ) as process,
    ):
        theirs.close()
        try:
            yield Nursery(ours, Story(), config, random.Random(seed))
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            try:
                process.wait(20)
            finally:
                process.kill()


def journal(folder):
    """Everything in the journal of a store."""
    with closing(connect(folder / "watcher.db", read_only=True)) as db:
        return read_events(db, 0, 10**9, None)


def check_story(story, events):
    """Hold what was said against the journal; return how often something was repeated.

    Announced is exactly what is in the journal, in its order; whatever is told again
    says so, and says the same.
    """
    by_id = {event.transition.event_id: event.seq for event in events}
    assert len(by_id) == len(events)
    told = story.told()
    assert {line["event_id"]: line["seq"] for line in told} == by_id
    seqs = [line["seq"] for line in told]
    assert seqs == sorted(set(seqs))
    for (first_life, first), (life, line) in story.repeated():
        assert life > first_life, "no life tells anything twice"
        assert line["replayed"] is True
        assert _bare(line) == _bare(first)
    for number, line in story.lines:
        if line.get("replayed"):
            observed_at = datetime.fromisoformat(line["observed_at"]).timestamp()
            assert observed_at < story.lives[number].began, "of an earlier life"
    return len(story.repeated())


def _bare(line):
    return {k: v for k, v in line.items() if k not in {"timestamp", "replayed"}}


def summary(story, replays):
    """One line of figures for who reads the test's output."""
    codes = Counter(life.code for life in story.lives)
    torn = sum(bool(life.torn) for life in story.lives)
    kinds = Counter(line["event"] for line in story.told())
    return (
        f"{len(story.lives)} lives {dict(codes)}, {len(story.told())} events "
        f"{dict(kinds)}, {replays} told again, {torn} torn lines"
    )


async def kill_often(lives, kills, draw):
    """Let one life after the other end by SIGKILL; count by where it fell."""
    fell = Counter()
    for number in range(kills):
        place, by_chance = divmod(number % ROUND, 2)
        fault = None if by_chance else list(FAULTS)[place]
        fell[await kill(lives, fault, draw, deaf=number % ROUND == 1)] += 1
    return fell


async def kill(lives, fault, draw, *, deaf=False):
    """Live until a fault falls, or until some moment; return which of both it was."""
    what, point = FAULTS.get(fault, ("KILL", ""))
    environ = {what: f"{point}:{draw.randint(1, 8)}"}
    async with lives.life(deaf=deaf, **environ) as life:
        patience = 4.0 if fault else 0.2 + draw.random() * 1.3
        with anyio.move_on_after(patience):
            await until(lambda: life.code is not None or life.errors)
        if life.errors == HUNG:
            await anyio.sleep(draw.random())
        fallen = life.code is not None or life.errors == HUNG
    assert life.code == -signal.SIGKILL, life.errors
    assert life.errors == (HUNG if what == "HANG" and fallen else b"")
    return fault if fallen else "any moment"


async def end_well(lives, unrest=None, also=lambda: True):
    """Live once more, without a fault, until all is told, and end by SIGTERM."""
    async with lives.life() as life:
        if unrest:
            unrest.over = True
            await until(lambda: unrest.told)
            await unrest.settle()
        await anyio.sleep(0.5)
        await until(also)
        lives.signal("SIGTERM")
        await until(lambda: life.code is not None)
    assert (life.code, life.torn, life.errors) == (0, b"", b"")
    return [line for number, line in lives.story.lines if number == life.number]
