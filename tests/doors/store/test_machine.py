"""Any sequence of calls, clean ends and kills: the file tells what memory tells."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from tests.doors.store.conftest import Clock, step
from watcher.core.model import JobKey
from watcher.ports import Retention
from watcher.store import MemoryStore, SqliteStore

JOBS = st.sampled_from(["a", "b", "c"])
EVENT_IDS = st.lists(st.integers(0, 30).map(str), max_size=3)
SINKS = ("log", "hook")
KEPT = Retention(100.0, 5)
KEYS = [JobKey("prod", job) for job in ("a", "b", "c")]


def plain(events):
    """The events without the mark of repetition, which memory never needs."""
    return [(event.seq, event.transition) for event in events]


class Stores(RuleBasedStateMachine):
    """`MemoryStore` is the model; `SqliteStore` must agree with it across lives."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.lives = 0
        self.clock = Clock()
        self.handed_out: dict[str, int] = dict.fromkeys(SINKS, 0)
        self.before: dict[str, int] = dict(self.handed_out)

    @initialize()
    def start(self) -> None:
        self.memory = MemoryStore(now=self.clock, sinks=SINKS, retention=KEPT)
        self.open()

    def open(self) -> None:
        path = self.folder / str(self.lives) / "watcher.db"
        path.parent.mkdir(exist_ok=True)
        self.sqlite = SqliteStore(path, now=self.clock, sinks=SINKS, retention=KEPT)
        self.runner.run(self.sqlite.open())
        self.before = dict(self.handed_out)

    def both(self, call):
        return self.runner.run(call(self.memory)), self.runner.run(call(self.sqlite))

    @rule(polls=st.floats(0, 9), batch=st.lists(st.tuples(JOBS, EVENT_IDS), max_size=3))
    def commit(self, polls, batch):
        steps = [step(job, *events, polls=polls) for job, events in batch]
        memory, sqlite = self.both(lambda store: store.commit(steps))
        assert list(memory) == list(sqlite)

    @rule(
        sink=st.sampled_from(SINKS),
        limit=st.integers(1, 4),
        held=st.sets(st.sampled_from(KEYS)),
        take=st.integers(0, 4),
    )
    def deliver(self, sink, limit, held, take):
        memory, sqlite = self.both(lambda store: store.undelivered(sink, limit, held))
        assert plain(memory) == plain(sqlite)
        for event in sqlite:
            assert event.replayed == (event.seq <= self.before[sink])
            self.handed_out[sink] = max(self.handed_out[sink], event.seq)
        taken = [event.seq for event in memory][:take]
        self.both(lambda store: store.delivered(sink, taken))

    @rule(seconds=st.floats(0, 80))
    def prune(self, seconds):
        self.clock.at += seconds
        memory, sqlite = self.both(lambda store: store.prune(self.clock.at))
        assert memory == sqlite

    @rule(keys=st.sets(st.sampled_from(KEYS)))
    def release(self, keys):
        self.both(lambda store: store.forget(keys))

    @rule(keys=st.sets(st.sampled_from(KEYS)))
    def add(self, keys):
        self.both(lambda store: store.add(keys))

    @rule(keys=st.sets(st.sampled_from(KEYS)))
    def remove(self, keys):
        self.both(lambda store: store.remove(keys))

    @rule()
    def restart(self):
        self.runner.run(self.sqlite.close())
        self.open()

    @rule()
    def kill(self):
        """Go on with a copy of the files as they are on disk at this moment."""
        here = self.folder / str(self.lives)
        self.lives += 1
        shutil.copytree(here, self.folder / str(self.lives))
        self.runner.run(self.sqlite.close())
        self.open()

    @invariant()
    def agree(self):
        if not hasattr(self, "sqlite"):
            return
        memory, sqlite = self.both(lambda store: store.load(KEYS))
        assert memory == sqlite
        memory, sqlite = self.both(lambda store: store.read(0, 100))
        assert list(memory) == list(sqlite)
        memory, sqlite = self.both(lambda store: store.watched())
        assert memory == sqlite
        for sink in SINKS:
            memory, sqlite = self.both(lambda store, sink=sink: store.backlog(sink))
            assert memory == sqlite
        memory, sqlite = self.both(lambda store: store.grown(-1))
        assert memory == sqlite

    def teardown(self) -> None:
        if hasattr(self, "sqlite"):
            self.runner.run(self.sqlite.close())
        self.runner.close()
        shutil.rmtree(self.folder)


Stores.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None
)
TestStores = Stores.TestCase
