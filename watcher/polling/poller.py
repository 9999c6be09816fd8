"""The loop: the only place that sleeps, reads a clock, draws jitter or holds the board.

One turn: release what is due, take in what was answered, commit, publish. What was
not committed is not published.
"""

from __future__ import annotations

import math
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup

from watcher.core.errors import ApiError, Reason, StoreError
from watcher.core.listing import Mode
from watcher.core.model import (
    JobKey,
    JobRecord,
    Notice,
    Phase,
    PollFailed,
    Snapshot,
    Step,
)
from watcher.core.schedule import next_delay, retry_after
from watcher.core.tracker import advance
from watcher.core.transitions import PROCESSING
from watcher.polling.target import Lane, in_turn, next_turn
from watcher.ports import ALWAYS_HELD, Fence, JobApi, Records, Telemetry

TICK = 0.1
"""Seconds; polls that fall due within one are released together."""
LONGEST_TURN = 1.0
"""Seconds; the loop turns at least this often, due or not."""
REAL_OUTAGE = 3
"""Failed pauses running, after whose end the jobs that failed are asked afresh."""
MOST_PENDING = 10_000
"""Jobs with uncommitted transitions; above it nothing is asked until these are."""
SAVE_EVERY = 5.0
"""Seconds; a look that changed nothing is saved with the next commit or after this."""

log = structlog.get_logger()

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _Outcome:
    lane: Lane
    api: JobApi
    key: JobKey
    event: Snapshot | PollFailed
    due: float
    sent_at: float
    answered_at: float

    @property
    def is_void(self) -> bool:
        """Whether it failed at a door through which nothing is asked any more."""
        return isinstance(self.event, PollFailed) and self.api is not self.lane.api


def _note_nothing(_: float) -> None:
    return None


class Poller:
    """Watches jobs until they finish.

    Attributes:
        turned_at: Monotonic time of the loop's last turn; liveness is its age.
    """

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        store: Records,
        telemetry: Telemetry,
        *,
        wall: Callable[[], float],
        chance: Callable[[], float],
        fence: Fence = ALWAYS_HELD,
        turned: Callable[[float], None] = _note_nothing,
    ) -> None:
        """Make a poller that watches nothing yet.

        Args:
            lanes: By target name.
            store: Where records and transitions are committed.
            telemetry: Told of polls and of published steps.
            wall: Wall clock, Unix seconds.
            chance: Draws a number in [0, 1).
            fence: Under what is committed.
            turned: Called with the monotonic time at each turn of the loop.
        """
        self._lanes = lanes
        self._store = store
        self._telemetry = telemetry
        self._wall = wall
        self._chance = chance
        self._fence = fence
        self._turned = turned
        self._records: dict[JobKey, JobRecord] = {}
        self._retired: dict[JobKey, Phase] = {}
        self._pending: dict[JobKey, Step] = {}
        self._unsaved: dict[JobKey, Step] = {}
        self._unreleased: set[JobKey] = set()
        self._outcomes: list[_Outcome] = []
        self._woken = anyio.Event()
        self._settled_at = self._saved_at = -math.inf
        self._store_failures = 0
        self.turned_at = 0.0

    @property
    def records(self) -> Mapping[JobKey, JobRecord]:
        """Every watched job, committed state only."""
        return MappingProxyType(self._records)

    @property
    def watched(self) -> frozenset[JobKey]:
        """Every job that `watch` was told of, those no longer shown included."""
        return frozenset([*self._retired, *self._records])

    @property
    def retired(self) -> frozenset[JobKey]:
        """Finished jobs that are shown no more."""
        return frozenset(self._retired)

    @property
    def pending(self) -> int:
        """How many jobs have transitions that the store has not taken yet."""
        return len(self._pending)

    @property
    def attempted(self) -> bool:
        """Whether every job was asked once or is held back by its target's state."""
        return all(
            not lane.unattempted or lane.gate.failures for lane in self._lanes.values()
        )

    @property
    def phases(self) -> Collection[Phase]:
        """The phases of all jobs, those no longer shown included."""
        shown = (record.phase for record in self._records.values())
        return [*self._retired.values(), *shown]

    async def watch(self, keys: Collection[JobKey]) -> None:
        """Begin to watch jobs, each first asked within one interval from now."""
        watched = self.watched
        known = await self._store.load([key for key in keys if key not in watched])
        # While that took its time, a reload may have removed a target.
        fresh = [k for k in keys if k not in watched and k.target in self._lanes]
        self._unreleased.difference_update(fresh)
        now = anyio.current_time()
        for place, key in enumerate(fresh):
            lane = self._lanes[key.target]
            record = known.get(key) or JobRecord(key)
            if record.project_id is None:
                record = replace(record, project_id=lane.api.project_id)
            self._records[key] = record
            if not record.phase.finished:
                lane.unattempted.add(key)
                lane.running.add(key)
                lane.queue.put(key, now + lane.cadence.interval * place / len(fresh))
        self._telemetry.published([Step(self._records[key]) for key in fresh])
        self._woken.set()

    async def unwatch(self, keys: Collection[JobKey]) -> None:
        """Stop watching jobs and forget what is known of them.

        Raises:
            StoreError: The store still knows them; the next call makes up for it.
        """
        for key in keys:
            if key.target in self._lanes:
                self._lanes[key.target].forget(key)
            self._records.pop(key, None)
            self._retired.pop(key, None)
            self._pending.pop(key, None)
            self._unsaved.pop(key, None)
        self._telemetry.forgotten(keys)
        self._unreleased.update(keys)
        if self._unreleased:
            await self._store.forget(frozenset(self._unreleased))
            self._unreleased.clear()

    def retire(self, before: float, served: Callable[[JobKey], bool]) -> None:
        """Show no more the jobs that finished long enough ago and were seen to.

        What the store knows of them stays, so that no restart takes them for new.

        Args:
            before: Unix seconds; jobs that finished later stay.
            served: Whether somebody was shown a job's final state.
        """
        done = [
            key
            for key, record in self._records.items()
            if record.finished_at is not None
            and record.finished_at <= before
            and key not in self._pending
            and served(key)
        ]
        for key in done:
            self._retired[key] = self._records.pop(key).phase
        self._telemetry.forgotten(done)

    async def run(
        self, *, until: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """Turn until cancelled, or until `until` returns; then commit what is known."""
        async with anyio.create_task_group() as tasks:
            if until is not None:
                tasks.start_soon(self._end_after, until, tasks.cancel_scope)
            while True:
                await self._turn(tasks)
        with anyio.CancelScope(shield=True):
            self._take_in_all()
            await self._save()

    @property
    def _tick(self) -> float:
        return LONGEST_TURN if self._store_failures else TICK

    @property
    def _has_room(self) -> bool:
        return len(self._pending) < MOST_PENDING

    async def _end_after(
        self, until: Callable[[], Awaitable[object]], scope: anyio.CancelScope
    ) -> None:
        await until()
        scope.cancel()

    async def _turn(self, tasks: TaskGroup) -> None:
        now = self.turned_at = anyio.current_time()
        self._turned(now)
        if self._has_room:
            for lane in in_turn(self._lanes.values(), now):
                if lane.release_page(now):
                    tasks.start_soon(self._list, lane)
                elif job := lane.release(now):
                    tasks.start_soon(self._poll, lane, *job)
        if now >= self._settled_at + self._tick:
            self._settled_at = now
            await self._settle()
        await self._wait()

    async def _wait(self) -> None:
        now = anyio.current_time()
        turn = self._settled_at + self._tick if self._outcomes else math.inf
        if self._has_room:
            turn = min(turn, next_turn(self._lanes.values(), now))
        with anyio.move_on_after(min(turn - now, LONGEST_TURN)):
            await self._woken.wait()
        self._woken = anyio.Event()

    async def _poll(self, lane: Lane, key: JobKey, due: float) -> None:
        sent_at, api = anyio.current_time(), lane.api
        event = await _asked(lane, api.fetch(key.job_id))
        now = anyio.current_time()
        outcome = _Outcome(lane, api, key, event, due, sent_at, now)
        if not outcome.is_void:
            self._work_gate(lane, event, sent_at)
        self._outcomes.append(outcome)
        self._woken.set()

    async def _list(self, lane: Lane) -> None:
        sent_at, api, listing = anyio.current_time(), lane.api, lane.listing
        limit, offset = listing.page
        page = await _asked(lane, api.list_jobs(listing.filters, limit, offset))
        lane.listing_in_flight = False
        self._woken.set()
        now, was_active = anyio.current_time(), listing.active
        if listing is not lane.listing or api is not lane.api:
            return
        if not isinstance(page, PollFailed):
            running = {
                key.job_id: self._records[key].job
                for key in lane.running
                if key in self._records  # the target may have been removed meanwhile
            }
            for job_id in listing.take(page, running, now):
                lane.queue.hasten(JobKey(lane.name, job_id), now)
            self._ask_reappeared(lane, now)
        elif page.reason in {Reason.THROTTLED, Reason.UNREACHABLE}:
            self._work_gate(lane, page, sent_at)
            listing.postponed(lane.gate.opens_at)
        else:
            listing.failed(f"{page.reason}: {page.error_msg}", now)
        if listing.active != was_active:
            self._change_mode(lane, now)

    def _ask_reappeared(self, lane: Lane, now: float) -> None:
        for job_id, row in lane.listing.found.items():
            record = self._records.get(key := JobKey(lane.name, job_id))
            if record and record.phase is Phase.GONE and row.status == PROCESSING:
                lane.running.add(key)
                lane.queue.put(key, now)

    def _change_mode(self, lane: Lane, now: float) -> None:
        mode = Mode.LIST if lane.listing.active else Mode.DETAIL
        log.info("poll.mode", target=lane.name, mode=mode, reason=lane.listing.reason)
        if not lane.listing.active:
            for key in lane.running:
                lane.queue.hasten(key, now + lane.cadence.interval * self._chance())

    async def _settle(self) -> None:
        self._take_in_all()
        if self._pending or self._settled_at >= self._saved_at + SAVE_EVERY:
            await self._save()

    def _take_in_all(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            is_open = self._lanes.get(outcome.lane.name) is outcome.lane
            if not is_open or outcome.key not in self._records:
                continue
            if outcome.is_void:
                outcome.lane.retry(outcome.key, self._settled_at)
            else:
                self._take_in(outcome)

    def _take_in(self, outcome: _Outcome) -> None:
        lane, key, event = outcome.lane, outcome.key, outcome.event
        lane.unattempted.discard(key)
        failure = event if isinstance(event, PollFailed) else None
        self._telemetry.polled(
            lane.name,
            seconds=outcome.answered_at - outcome.sent_at,
            lag=outcome.sent_at - outcome.due,
            failure=failure.reason if failure else None,
        )
        pending = self._pending.get(key)
        record = pending.record if pending else self._records[key]
        if record.project_id is None:
            record = replace(record, project_id=lane.api.project_id)
        now = self._wall()
        asked_at = now - (anyio.current_time() - outcome.sent_at)
        skew = lane.api.clock_skew
        step = advance(record, event, now, asked_at=asked_at, skew=skew)
        if pending:
            self._pending[key] = pending.followed_by(step)
        elif step.transitions:
            self._pending[key] = step
        else:
            self._unsaved[key] = step
            self._publish([step])
        if failure is None:
            _tell(lane.outages.succeeded(key))
        else:
            _tell(lane.outages.failed(key, failure, len(lane.queue) + 1))
        _tell(lane.compare_clocks())
        self._reschedule(outcome, step.record)

    def _reschedule(self, outcome: _Outcome, record: JobRecord) -> None:
        lane, key = outcome.lane, outcome.key
        delay = next_delay(record, lane.present_cadence, self._chance())
        if delay is None:
            lane.forget(key)
        else:
            lane.running.add(key)
            lane.queue.put(key, (outcome.sent_at + delay) // TICK * TICK)

    def _work_gate(
        self, lane: Lane, event: Snapshot | PollFailed, sent_at: float
    ) -> None:
        now, before = anyio.current_time(), lane.gate
        if isinstance(event, Snapshot) or not event.reason.concerns_target:
            lane.gate = before.succeeded(sent_at)
            if before.failures >= REAL_OUTAGE and not lane.gate.failures:
                self._ask_afresh(lane, now)
            return
        lane.gate = before.failed(
            sent_at, now, lane.cadence.ceiling, self._chance(), retry_after(event)
        )
        counted = lane.gate.failures > before.failures
        if counted and event.reason is Reason.THROTTLED:
            lane.pace.slow_down(now)

    def _ask_afresh(self, lane: Lane, now: float) -> None:
        for key in lane.outages.of_target():
            lane.queue.hasten(key, now + lane.cadence.interval * self._chance())

    async def _save(self) -> None:
        steps = list({**self._unsaved, **self._pending}.values())
        if not steps:
            return
        try:
            await self._store.commit(steps, self._fence)
        except StoreError as exc:
            self._store_failures += 1
            if self._store_failures == 1:
                log.error("store.failing", error=str(exc), pending=len(steps))
            return
        if self._store_failures:
            log.info("store.recovered", failures=self._store_failures)
        self._store_failures = 0
        self._saved_at = self._settled_at
        self._publish(list(self._pending.values()))
        self._pending.clear()
        self._unsaved.clear()

    def _publish(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._records[step.record.key] = step.record
            _tell(step.notices)
        self._telemetry.published(steps)


async def _asked(lane: Lane, answer: Awaitable[_Answer]) -> _Answer | PollFailed:
    try:
        return await answer
    except ApiError as exc:
        return PollFailed(
            reason=exc.reason,
            status_code=exc.status_code,
            error_code=exc.error_code,
            error_msg=exc.message,
            request_id=exc.request_id,
            retry_after=exc.retry_after,
        )
    finally:
        lane.in_flight -= 1


def _tell(notices: Iterable[Notice]) -> None:
    for notice in notices:
        getattr(log, notice.level)(notice.event, **notice.fields)
