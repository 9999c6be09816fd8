"""The state machine of one job: everything that changes a record is here.

Two rules hold: a record changes only by `advance`, and `advance` tells a change once.

    unknown ─► active ─► succeeded | failed | deleted
       └─────────┴─────► gone (named as missing by three answers over 30 seconds)

A finished job that answers differently (it was gone, or run again) goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from watcher.core.elapsed import lasting
from watcher.core.errors import Reason
from watcher.core.model import (
    LAGGING_LIMIT,
    EventName,
    Job,
    JobKey,
    JobRecord,
    Level,
    Notice,
    Phase,
    PollFailed,
    Snapshot,
    Step,
    Task,
    TaskPhase,
    Tick,
    Transition,
)
from watcher.core.tasks import has_vanished, merge_tasks
from watcher.core.transitions import (
    DELETED,
    FINISHED,
    JOB_WORDS,
    OPEN,
    PROCESSING,
    TELLING_WORDS,
    TaskChange,
    count_by_status,
    diff,
    rfc3339,
    settled_phase,
    task_phase,
    transition,
)

EARLIER = ""
"""Among the ordinals: how often any event was told while the job was watched before."""
GONE_ANSWERS = 3
GONE_SPREAD = 30.0
QUIET_ANSWERS = 2
MOST_FLAGGED = 32


def advance(
    record: JobRecord,
    event: Snapshot | PollFailed,
    now: float,
    *,
    asked_at: float | None = None,
    skew: float = 0.0,
    tick: Tick | None = None,
) -> Step:
    """Take in the outcome of one poll.

    Args:
        record: What was known before.
        event: What the poll gave.
        now: Wall-clock time of the observation, Unix seconds: what is shown. No
            conclusion rests on it.
        asked_at: When the request was sent, likewise: what the answer shows was true
            then at the earliest. None takes `now`.
        skew: Seconds that this machine's clock is ahead of the API's.
        tick: `now` on a clock that nobody sets; None if `now` itself is of such a one.

    Returns:
        The new record and what there is to tell; repeating an event tells nothing.
    """
    tick = tick or Tick(0.0, now)
    match event:
        case Snapshot() if is_repeated(record, event):
            return Step(_looked(record, now, now if asked_at is None else asked_at))
        case Snapshot():
            seen = _seen(record, event, now, now if asked_at is None else asked_at)
            return _told(record, _conclude(seen, event, now, tick), now, skew)
        case PollFailed(reason=Reason.NOT_FOUND):
            return _missing(record, _failed(record, event, now), now, tick)
        case _:
            return Step(_failed(record, event, now))


def is_repeated(record: JobRecord, snapshot: Snapshot) -> bool:
    """Whether an answer is the very one that was concluded from, and concludes no more.

    Where a conclusion rests on how often or how long something was seen, it may.
    """
    return (
        snapshot.tasks is record.tasks
        and snapshot.job is record.job
        and record.phase is Phase.ACTIVE
        and not (record.quiet_answers or record.lagging)
    )


def as_concluded(record: JobRecord, snapshot: Snapshot) -> Snapshot:
    """Return an answer in the parts of the record that it was just concluded in.

    So that `is_repeated` knows it, and that nothing is kept twice.
    """
    if snapshot.job == record.job and snapshot.tasks == record.tasks:
        return Snapshot(record.job, record.tasks, snapshot.digest)
    return snapshot


def most_told(record: JobRecord) -> int:
    """Return what outlives the watching of a job: how often an event was told at most.

    Without it a job that is watched again would use event ids again, and what has an id
    that was used counts as told.
    """
    return max(record.ordinals.values(), default=0)


def begin(key: JobKey, told: int) -> JobRecord:
    """Return the record of a job that was forgotten, given its `most_told`."""
    return JobRecord(key, ordinals={EARLIER: told} if told else {})


def resumed(known: JobRecord | None, key: JobKey, project_id: str | None) -> JobRecord:
    """Return the record with which the watching of a job begins.

    What was learnt in another project is of another job.

    Args:
        known: What the store has of this job, if anything.
        key: The job.
        project_id: Of the target that watches it; None while that is not known.
    """
    record = known or JobRecord(key)
    if project_id is None or record.project_id == project_id:
        return record
    if record.project_id is not None:
        record = begin(key, most_told(record))
    return replace(record, project_id=project_id)


def is_running_again(record: JobRecord, row: Job) -> bool:
    """Whether a list row says that a finished job runs, so that it is to be asked.

    A list may lag behind: a row that is no younger than the end that was seen proves
    nothing. Where a job is gone there is no end to compare with.
    """
    if not record.phase.finished or row.status != PROCESSING:
        return False
    if record.phase is Phase.GONE or record.job is None:
        return True
    ended, moved = record.job.updated_at, row.updated_at
    return ended is None or moved is None or moved > ended


def listed(record: JobRecord) -> Iterator[Task]:
    """Yield the known tasks that have not vanished."""
    absences = record.absences
    for task in record.tasks:
        if not has_vanished(absences.get(task.id)):
            yield task


@dataclass(slots=True)
class _Telling:
    """Collects transitions of one step and numbers them."""

    record: JobRecord
    now: float
    job: Job | None
    ordinals: dict[str, int]
    told: list[Transition]

    def tell(
        self,
        event: EventName,
        fields: Mapping[str, object],
        *,
        level: Level = Level.INFO,
        not_before: float | None = None,
    ) -> None:
        task_id = fields.get("task_id")
        subject = event if task_id is None else f"{event} {task_id}"
        earlier = max(self.ordinals.get(event, 0), self.ordinals.get(EARLIER, 0))
        ordinal = self.ordinals.get(subject, earlier)
        self.ordinals[subject] = ordinal + 1
        frame = {
            "project_id": self.record.project_id,
            "job_id": self.record.key.job_id,
            "job_name": self.job and self.job.name,
            "job_type": self.job and self.job.type,
            "observed_at": rfc3339(self.now),
            "not_before": rfc3339(not_before),
        }
        key = self.record.key
        self.told.append(
            transition(key, event.value, level, ordinal, {**frame, **fields})
        )


def _telling(before: JobRecord, after: JobRecord, now: float) -> _Telling:
    return _Telling(before, now, after.job, dict(after.ordinals), [])


def _looked(record: JobRecord, now: float, seen_at: float) -> JobRecord:
    return replace(
        record,
        last_poll_at=now,
        last_success_at=seen_at,
        tasks_seen_at=seen_at,
        missing_answers=0,
        missing=None,
        failures=0,
        failure=None,
    )


def _seen(
    record: JobRecord, snapshot: Snapshot, now: float, seen_at: float
) -> JobRecord:
    merged = merge_tasks(record, snapshot)
    return replace(
        merged,
        job=_merge_job(record.job, snapshot.job),
        first_seen_at=record.first_seen_at or now,
        last_poll_at=now,
        last_success_at=seen_at,
        tasks_seen_at=record.tasks_seen_at if snapshot.tasks is None else seen_at,
        missing_answers=0,
        missing=None,
        failures=0,
        failure=None,
    )


def _told(before: JobRecord, seen: JobRecord, now: float, skew: float) -> Step:
    telling = _telling(before, seen, now)
    if before.job is None:
        telling.tell(EventName.FIRST_SEEN, _summary(seen))
    elif before.phase is Phase.GONE:
        telling.tell(
            EventName.REAPPEARED, _summary(seen), not_before=before.last_success_at
        )
    _tell_tasks(telling, before, seen, skew)
    if before.job is not None and seen.job is not None:
        _tell_job(telling, before.job, seen.job)
    notices = tuple(_notices(before, seen))
    words = {str(n.fields["word"]) for n in notices if "word" in n.fields}
    if words:
        seen = replace(seen, flagged=before.flagged | words)
    return _finish(telling, before, seen, notices)


def _merge_job(known: Job | None, answer: Job) -> Job:
    if known is not None and answer.abnormal_count is None:
        answer = replace(answer, abnormal_count=known.abnormal_count)
    return known if known == answer else answer


def _conclude(
    record: JobRecord, snapshot: Snapshot, now: float, tick: Tick
) -> JobRecord:
    word = snapshot.job.status
    shown = listed(record) if record.absences else record.tasks
    phases = frozenset(task_phase(word) for word in {task.status for task in shown})
    is_open = not phases.isdisjoint(OPEN)

    quiet = record.quiet_answers
    if word in TELLING_WORDS or is_open or snapshot.tasks == ():
        quiet = 0
    elif snapshot.tasks is not None:
        quiet += 1

    lags = word == FINISHED and is_open
    lagging = lasting(record.lagging, now, tick) if lags else None
    overdue = lagging is not None and lagging.seconds >= LAGGING_LIMIT

    settled = (word == FINISHED and not is_open) or quiet >= QUIET_ANSWERS or overdue
    if word == DELETED:
        phase = Phase.DELETED
    elif settled:
        abnormal_count = record.job.abnormal_count if record.job else None
        phase = settled_phase(phases, abnormal_count or 0)
    else:
        phase = _open_phase(word, phases)
    return replace(record, phase=phase, quiet_answers=quiet, lagging=lagging)


def _open_phase(word: str | None, phases: frozenset[TaskPhase]) -> Phase:
    if TaskPhase.ACTIVE in phases or word == PROCESSING:
        return Phase.ACTIVE
    if TaskPhase.UNKNOWN in phases or (not phases and word not in JOB_WORDS):
        return Phase.UNKNOWN
    return Phase.ACTIVE


def _tell_tasks(
    telling: _Telling, before: JobRecord, after: JobRecord, skew: float
) -> None:
    first = before.job is None
    for change in diff(before.tasks, after.tasks):
        task = change.after
        if task is None or (first and task_phase(task.status) is TaskPhase.ACTIVE):
            continue
        failed = task_phase(task.status) is TaskPhase.FAILED
        absence = before.absences.get(task.id)
        telling.tell(
            EventName.TASK_TRANSITION,
            _task_fields(change, task, telling.now - skew),
            level=Level.WARNING if failed else Level.INFO,
            not_before=absence.last_seen if absence else before.tasks_seen_at,
        )
    for task in after.tasks if after.absences else ():
        absence = after.absences.get(task.id)
        if has_vanished(absence) and not has_vanished(before.absences.get(task.id)):
            telling.tell(
                EventName.TASK_VANISHED,
                _task_fields(TaskChange(task, None), task, telling.now - skew),
                level=Level.WARNING,
                not_before=absence.last_seen if absence else None,
            )


def _task_fields(
    change: TaskChange, task: Task, server_now: float
) -> dict[str, object]:
    latency = None if task.updated_at is None else max(0, server_now - task.updated_at)
    return {
        "task_id": task.id,
        "server_id": task.server_id,
        "server_name": task.server_name,
        "cloud_server_id": task.cloud_server_id,
        "cloud_server_type": task.cloud_server_type,
        "from": change.before and change.before.status,
        "to": change.after and change.after.status,
        "message": task.message,
        "updated_at": rfc3339(task.updated_at),
        "detection_latency_seconds": None if latency is None else round(latency, 6),
    }


def _tell_job(telling: _Telling, before: Job, after: Job) -> None:
    not_before = telling.record.last_success_at
    if (after.abnormal_count or 0) != (before.abnormal_count or 0):
        rises = (after.abnormal_count or 0) > (before.abnormal_count or 0)
        telling.tell(
            EventName.ABNORMAL_COUNT,
            {"from": before.abnormal_count, "to": after.abnormal_count},
            level=Level.WARNING if rises else Level.INFO,
            not_before=not_before,
        )
    if after.status != before.status:
        telling.tell(
            EventName.JOB_TRANSITION,
            {
                "from": before.status,
                "to": after.status,
                "abnormal_count": after.abnormal_count,
            },
            not_before=not_before,
        )


def _summary(record: JobRecord) -> dict[str, object]:
    return {
        "status": record.job and record.job.status,
        "phase": record.phase,
        "tasks": count_by_status(listed(record)),
        "abnormal_count": record.job and record.job.abnormal_count,
    }


def _notices(before: JobRecord, after: JobRecord) -> Iterator[Notice]:
    frame = {"target": after.key.target, "job_id": after.key.job_id}
    words = dict.fromkeys(task.status for task in after.tasks)
    unknown = [w for w in words if task_phase(w) is TaskPhase.UNKNOWN]
    if after.job and after.job.status and after.job.status not in JOB_WORDS:
        unknown.append(after.job.status)
    room = MOST_FLAGGED - len(before.flagged)
    for word in list(dict.fromkeys(unknown))[: max(0, room)]:
        if word not in before.flagged:
            yield Notice("job.unknown_status", Level.WARNING, {**frame, "word": word})
    lagging = after.lagging
    if after.phase.finished and lagging is not None and not before.phase.finished:
        open_tasks = sum(task_phase(t.status) in OPEN for t in listed(after))
        yield Notice(
            "job.finished_with_open_tasks",
            Level.WARNING,
            {**frame, "open_tasks": open_tasks, "waited_seconds": lagging.seconds},
        )


def _missing(before: JobRecord, failed: JobRecord, now: float, tick: Tick) -> Step:
    missing = lasting(before.missing, now, tick)
    answers = before.missing_answers + 1
    after = replace(failed, missing_answers=answers, missing=missing)
    if answers >= GONE_ANSWERS and missing.seconds >= GONE_SPREAD:
        after = replace(after, phase=Phase.GONE)
    return _finish(_telling(before, after, now), before, after, ())


def _failed(record: JobRecord, failure: PollFailed, now: float) -> JobRecord:
    failures = record.failures + 1
    return replace(record, last_poll_at=now, failures=failures, failure=failure)


def _finish(
    telling: _Telling,
    before: JobRecord,
    after: JobRecord,
    notices: tuple[Notice, ...],
) -> Step:
    if after.phase.finished and after.phase is not before.phase:
        after = replace(after, finished_at=telling.now)
        telling.tell(
            EventName.FINISHED,
            {
                "phase": after.phase,
                "abnormal_count": after.job and after.job.abnormal_count,
                "tasks": count_by_status(listed(after)),
                "duration_seconds": _duration(after),
            },
            level=Level.INFO if after.phase is Phase.SUCCEEDED else Level.WARNING,
            not_before=before.last_success_at,
        )
    elif not after.phase.finished:
        after = replace(after, finished_at=None)
    if telling.told:
        moves = sum(each.event == "task.transition" for each in telling.told)
        moves += before.moves
        after = replace(after, ordinals=telling.ordinals, moves=moves)
    return Step(after, tuple(telling.told), notices)


def _duration(record: JobRecord) -> float | None:
    job = record.job
    if job is None or job.created_at is None:
        return None
    ends = [job.updated_at, *(task.updated_at for task in record.tasks)]
    known = [end for end in ends if end is not None]
    return round(max(known) - job.created_at, 3) if known else None
