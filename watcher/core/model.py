"""The values that flow through the watcher: frozen and slotted.

All times are Unix seconds as `float`, on this machine's clock unless the name ends in
`_at` of an API value (`created_at`, `updated_at`), which are the API's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any, NamedTuple

from watcher.core.errors import ApiError, Reason

LAGGING_LIMIT = 300.0
"""Seconds that a job which says FINISHED is watched on while a task says otherwise."""


JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a job id looks like."""

NOT_JOB_IDS = frozenset({"templates", "services"})
"""What looks like one and is another path of the API."""


def is_job_id(value: str) -> bool:
    """Whether the API could have made this id, so that it can be asked for."""
    return JOB_ID.fullmatch(value) is not None and value not in NOT_JOB_IDS


def check_job_id(value: str) -> str:
    """Return a job id, or raise ValueError where the API could not have made it."""
    if not is_job_id(value):
        raise ValueError(f"'{value[:80]}' is not a job id ({JOB_ID.pattern})")
    return value


class JobKey(NamedTuple):
    """What identifies a watched job: the target's name and the API's job id."""

    target: str
    job_id: str


class Phase(StrEnum):
    """The watcher's conclusion about a job; the API's own word is its `status`."""

    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DELETED = "deleted"
    GONE = "gone"
    UNKNOWN = "unknown"

    @property
    def finished(self) -> bool:
        """Whether polling ends with it."""
        return self not in {Phase.ACTIVE, Phase.UNKNOWN}


class TaskPhase(StrEnum):
    """The watcher's conclusion about one task."""

    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DELETED = "deleted"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Item:
    """A kind of work that a job does on each of its servers."""

    type: str | None
    spec: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One server's share of a job, as the API last told it."""

    id: str
    status: str
    server_id: str | None = None
    server_name: str | None = None
    cloud_server_id: str | None = None
    cloud_server_type: str | None = None
    message: str | None = None
    created_at: float | None = None
    updated_at: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the API last told it, without its tasks.

    Attributes:
        status: The API's word, verbatim; None where it gave none.
        abnormal_count: Nodes on which the job failed; None where it said nothing.
    """

    id: str
    status: str | None = None
    abnormal_count: int | None = None
    name: str | None = None
    type: str | None = None
    description: str | None = None
    template_id: str | None = None
    user_name: str | None = None
    created_at: float | None = None
    updated_at: float | None = None
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One good answer of the detail call.

    Attributes:
        tasks: In the API's order, each id once; None where the answer had no list,
            which says nothing (an empty tuple says that there are none).
        digest: Length and hash of the answer it was read from; None: of no answer.
    """

    job: Job
    tasks: tuple[Task, ...] | None
    digest: tuple[int, int] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ListPage:
    """One good answer of the list call: jobs without their tasks.

    Attributes:
        total: Jobs that match over all pages; None where the answer did not say.
    """

    rows: tuple[Job, ...]
    total: int | None = None
    pages: int | None = None
    current: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class PollFailed:
    """One poll without a good answer, as a value.

    Attributes:
        retry_after: Seconds that the server asked us to wait, or None.
    """

    reason: Reason
    status_code: int | None = None
    error_code: str | None = None
    error_msg: str | None = None
    request_id: str | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, error: ApiError) -> PollFailed:
        """Turn a failure that was raised into the value."""
        return cls(reason=error.reason, error_msg=error.message, **error.details)


@dataclass(frozen=True, slots=True)
class Absence:
    """A known task that the newest task lists leave out.

    Attributes:
        answers: Task lists running without it.
        last_seen: Observation time of the last list that had it.
    """

    answers: int
    last_seen: float


class Tick(NamedTuple):
    """A moment on a clock that nobody sets.

    Attributes:
        life: Tells one life of the process from another, such as when it began.
        seconds: Monotonic; comparable within one life only.
    """

    life: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Lasted:
    """For how long something has been seen to last.

    Attributes:
        seconds: From the first look that showed it to the last.
        wall: Unix seconds of the last.
        tick: Likewise, on the clock that nobody sets.
    """

    seconds: float
    wall: float
    tick: Tick


@dataclass(frozen=True, slots=True)
class JobRecord:
    """All that is known of one watched job.

    Attributes:
        project_id: Of the target that watches it; None until it is known.
        tasks: Known tasks, vanished ones included, in the order first seen.
        absences: By task id, the known tasks that the newest list left out.
        last_success_at: When the last good answer was asked for.
        tasks_seen_at: Likewise of the last that had a task list.
        quiet_answers: Answers running whose task list showed nothing open, while the
            job's own word told neither way.
        lagging: Since the job was first seen FINISHED with a task still open.
        missing_answers: Answers running that named the job as missing.
        missing: Since the first of these.
        failures: Polls running without a good answer.
        failure: The last poll's failure; None after a good answer.
        moves: Transitions of tasks told so far.
        flagged: Status words that are unknown and were already reported.
        ordinals: Transitions told so far, by subject; makes event ids deterministic.
            A subject is an event, and a task's id with it where it tells of a task;
            of such an event alone it is the least number of a task not named.
    """

    key: JobKey
    project_id: str | None = None
    phase: Phase = Phase.UNKNOWN
    job: Job | None = None
    tasks: tuple[Task, ...] = ()
    absences: Mapping[str, Absence] = field(default_factory=dict)
    first_seen_at: float | None = None
    last_poll_at: float | None = None
    last_success_at: float | None = None
    tasks_seen_at: float | None = None
    finished_at: float | None = None
    quiet_answers: int = 0
    lagging: Lasted | None = None
    missing_answers: int = 0
    missing: Lasted | None = None
    failures: int = 0
    failure: PollFailed | None = None
    moves: int = 0
    flagged: frozenset[str] = frozenset()
    ordinals: Mapping[str, int] = field(default_factory=dict)


LOOK_FIELDS = frozenset(
    {
        "last_poll_at",
        "last_success_at",
        "tasks_seen_at",
        "quiet_answers",
        "lagging",
        "missing_answers",
        "missing",
        "failures",
        "failure",
    }
)
"""What a look changes in a record though the job stayed as it was."""

_shown = attrgetter(*(f.name for f in fields(JobRecord) if f.name not in LOOK_FIELDS))


def shows_the_same(one: JobRecord, other: JobRecord) -> bool:
    """Whether two records differ in nothing but their looks.

    A field is compared unless it is named in `LOOK_FIELDS`.
    """
    return one is other or bool(_shown(one) == _shown(other))


class Level(StrEnum):
    """Severity of a log line."""

    INFO = "info"
    WARNING = "warning"


class EventName(StrEnum):
    """What a transition may be called: the names of all journal events."""

    FIRST_SEEN = "job.first_seen"
    TASK_TRANSITION = "task.transition"
    TASK_VANISHED = "task.vanished"
    JOB_TRANSITION = "job.transition"
    ABNORMAL_COUNT = "job.abnormal_count"
    REAPPEARED = "job.reappeared"
    FINISHED = "job.finished"


@dataclass(frozen=True, slots=True)
class Transition:
    """A change worth telling, before it has a place in the journal.

    Attributes:
        event: Name of the event, such as `task.transition`.
        event_id: The same for the same change, whatever restarts lie between.
        fields: All further fields of the event, JSON-ready, in the order they are shown.
    """

    event: str
    event_id: str
    level: Level
    key: JobKey
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Notice:
    """An ordinary log line that a state change gives rise to; not in the journal."""

    event: str
    level: Level
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Step:
    """What one event made of one record."""

    record: JobRecord
    transitions: tuple[Transition, ...] = ()
    notices: tuple[Notice, ...] = ()

    def followed_by(self, later: Step) -> Step:
        """Join with the step that was made of this one's record."""
        return Step(
            later.record,
            self.transitions + later.transitions,
            self.notices + later.notices,
        )


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """A committed transition.

    Attributes:
        seq: Place in the journal; strictly rising within one store.
        replayed: Whether it is offered to a sink again after an unclean end.
    """

    seq: int
    transition: Transition
    replayed: bool = False
