"""From answers to what is known: take in, commit, show.

What was not committed is not shown and not told. The committer is a task of its own, so
that a slow store holds back what is told and never what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import anyio
import anyio.lowlevel
import structlog

from watcher.core.errors import LeaseLost, StoreError
from watcher.core.model import (
    JobKey,
    JobRecord,
    Notice,
    PollFailed,
    Snapshot,
    Step,
    Tick,
)
from watcher.core.schedule import TICK
from watcher.core.tracker import advance, resumed
from watcher.polling.board import Board
from watcher.ports import ALWAYS_HELD, Fence, Observer, Records

MOST_PENDING = 10_000
"""Jobs with uncommitted transitions; above it nothing is asked until these are."""
SAVE_EVERY = 5.0
"""Seconds; a look that changed nothing is saved with the next commit or after this."""
SHOWN_AT_ONCE = 20
"""Committed jobs; between two lots others have their turn."""
RETRY_AFTER = 1.0
"""Seconds between two attempts while the store takes nothing."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request for one job ended.

    Attributes:
        sent_at: Monotonic time at which it was sent.
        came_at: Likewise, at which it ended.
        project_id: Of the door that was asked; None where it is not known.
        clock_skew: Seconds that this machine's clock is ahead of that door's.
    """

    key: JobKey
    outcome: Snapshot | PollFailed
    sent_at: float
    came_at: float
    project_id: str | None = None
    clock_skew: float = 0.0


class Committer:
    """Makes records of answers, commits them, and only then shows them on the board.

    One commit at a time; what comes meanwhile builds on what is being committed and goes
    with the next.
    """

    def __init__(
        self,
        board: Board,
        store: Records,
        observer: Observer,
        *,
        wall: Callable[[], float],
        fence: Callable[[], Fence] = lambda: ALWAYS_HELD,
        lost: Callable[[Collection[str]], None] = lambda _: None,
        fault_point: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Make a committer that knows nothing yet.

        Args:
            board: Where committed records are shown; nobody else writes there.
            store: Where records and transitions are committed.
            observer: Told of commits and of what they told.
            wall: Wall clock, Unix seconds.
            fence: Under which leases they are, asked at each commit.
            lost: Told of the units whose lease a commit found to be another's.
            fault_point: Called with the name of each step; for tests that end the
                process there.
        """
        self._board = board
        self._store = store
        self._observer = observer
        self._wall = wall
        self._fence = fence
        self._lost = lost
        self._fault_point = fault_point
        self._life = wall()
        self._pending: dict[JobKey, Step] = {}
        self._committing: dict[JobKey, Step] = {}
        self._unsaved: dict[JobKey, Step] = {}
        self._saving: dict[JobKey, Step] = {}
        self._unforgotten: set[JobKey] = set()
        self._news = anyio.Event()
        self._stop = anyio.Event()
        self._attempted = anyio.Event()
        self._began: float | None = None
        self._failures = 0

    @property
    def pending(self) -> int:
        """How many jobs have transitions that the store has not taken yet."""
        return len(self._pending) + len(self._committing)

    @property
    def has_room(self) -> bool:
        """Whether more answers can be taken in before some are committed."""
        return self.pending < MOST_PENDING

    def commit_age(self, now: float) -> float:
        """Return for how many seconds the present commit has lasted; 0.0 without one."""
        return 0.0 if self._began is None else now - self._began

    async def begin(self, projects: Mapping[JobKey, str | None]) -> None:
        """Show what the store knows of jobs that are watched from now on.

        Args:
            projects: The jobs, each with the project that its target asks.

        Raises:
            StoreError: It could not be asked; nothing is shown of them.
        """
        before = self._fence()
        known = await self._store.load(projects.keys())
        after = self._fence()
        self._unforgotten.difference_update(projects)
        self._board.show(
            resumed(known.get(key), key, project)
            for key, project in projects.items()
            # Of a lease that went meanwhile, and be it to come back, this is too old.
            if before.epoch_of(key.target) == after.epoch_of(key.target) is not None
        )

    async def forget(self, keys: Collection[JobKey]) -> None:
        """Drop all that is known of jobs that are no longer watched.

        Raises:
            StoreError: The store still knows them; the next call makes up for it.
        """
        for key in keys:
            for steps in self._known:
                steps.pop(key, None)
        self._board.drop(keys)
        self._unforgotten.update(keys)
        if self._unforgotten:
            await self._store.forget(frozenset(self._unforgotten))
            self._unforgotten.clear()

    def let_go(self, targets: Collection[str]) -> None:
        """Drop all that is known of these targets here; the store keeps what it has."""
        for steps in self._known:
            for key in [key for key in steps if key.target in targets]:
                del steps[key]
        self._unforgotten = {k for k in self._unforgotten if k.target not in targets}
        self._board.drop([k for k in self._board.watched if k.target in targets])

    async def write_out(self, targets: Collection[str]) -> None:
        """Wait until nothing of these targets is left to commit."""
        while any(key.target in targets for steps in self._known for key in steps):
            self._news.set()
            await self._attempted.wait()

    def retire(self, is_over: Callable[[JobRecord], bool]) -> None:
        """Show no more the finished jobs that were shown for long enough.

        What the store knows of them stays, so that no restart takes them for new.
        """
        self._board.retire(
            [
                key
                for key, record in self._board.records.items()
                if is_over(record) and self._uncommitted(key) is None
            ]
        )

    def take_in(self, answer: Answer) -> JobRecord:
        """Advance a job by an answer.

        Returns:
            What is now known of it, committed or not.

        Raises:
            KeyError: It is not watched.
        """
        key, now = answer.key, self._wall()
        earlier = self._uncommitted(key)
        record = earlier.record if earlier else self._board.records[key]
        step = advance(
            resumed(record, key, answer.project_id),
            answer.outcome,
            now,
            asked_at=now - (answer.came_at - answer.sent_at),
            skew=answer.clock_skew,
            tick=Tick(self._life, answer.came_at),
        )
        self._keep(key, step, waits=earlier is not None)
        self._fault_point("take_in.after")
        return step.record

    @property
    def _known(self) -> tuple[dict[JobKey, Step], ...]:
        """What is not written yet, of whatever kind."""
        return self._pending, self._committing, self._unsaved, self._saving

    def _uncommitted(self, key: JobKey) -> Step | None:
        return self._pending.get(key) or self._committing.get(key)

    def _keep(self, key: JobKey, step: Step, *, waits: bool) -> None:
        """Show a look that changed nothing at once, unless earlier news are to come."""
        if waits or step.transitions:
            pending = self._pending.get(key)
            self._pending[key] = pending.followed_by(step) if pending else step
            self._news.set()
        else:
            self._unsaved[key] = step
            self._show([step])

    def stop(self) -> None:
        """Let `run` return after one more commit."""
        self._stop.set()
        self._news.set()

    async def run(self) -> None:
        """Commit what comes until stopped, at most once a tick."""
        while not self._stop.is_set():
            with anyio.move_on_after(SAVE_EVERY):
                await self._news.wait()
            self._news = anyio.Event()
            await self._commit()
            with anyio.move_on_after(RETRY_AFTER if self._failures else TICK):
                await self._stop.wait()
        await self._commit()

    async def _commit(self) -> None:
        # Taken away first: what comes during the commit is the next one's.
        self._saving, self._unsaved = self._unsaved, {}
        self._committing, self._pending = self._pending, {}
        steps = [*{**self._saving, **self._committing}.values()]
        if not steps:
            return
        self._began = anyio.current_time()
        fence = self._fence()
        try:
            await self._store.commit(steps, fence)
        except LeaseLost as exc:
            self._take_back()
            self._drop_units(exc.units, fence)
        except StoreError as exc:
            self._take_back()
            self._note_failure(exc, len(steps))
        else:
            self._note_success()
            await self._publish()
        finally:
            self._began, self._saving = None, {}
            self._attempted.set()
            self._attempted = anyio.Event()

    def _drop_units(self, units: Collection[str], fence: Fence) -> None:
        """Tell nothing of what is another's; the rest goes with the next commit."""
        waiting = {key.target for steps in self._known for key in steps}
        self.let_go({name for name in waiting if fence.units.get(name, name) in units})
        self._lost(units)

    def _take_back(self) -> None:
        """Keep for the next commit what this one could not write, in its order."""
        self._unsaved = {**self._saving, **self._unsaved}
        later, self._pending = self._pending, self._committing
        self._committing = {}
        for key, step in later.items():
            earlier = self._pending.get(key)
            self._pending[key] = earlier.followed_by(step) if earlier else step
        if self._pending:
            self._news.set()

    async def _publish(self) -> None:
        """Show what was committed, with pauses: of a burst it is much."""
        while self._committing:
            some = [*islice(self._committing, SHOWN_AT_ONCE)]
            news = [self._committing.pop(key) for key in some]
            self._show(news)
            self._observer.told([each for step in news for each in step.transitions])
            await anyio.lowlevel.checkpoint()

    def _show(self, steps: Sequence[Step]) -> None:
        self._board.show(step.record for step in steps)
        for step in steps:
            log_notices(step.notices)

    def _note_failure(self, error: StoreError, steps: int) -> None:
        self._failures += 1
        if self._failures == 1:
            log.error("store.failing", error=str(error), pending=steps)

    def _note_success(self) -> None:
        if self._began is not None:
            self._observer.committed(anyio.current_time() - self._began)
            self._began = None
        if self._failures:
            log.info("store.recovered", failures=self._failures)
        self._failures = 0


def log_notices(notices: Iterable[Notice]) -> None:
    """Say what a change of state gives rise to."""
    for notice in notices:
        getattr(log, notice.level)(notice.event, **notice.fields)
