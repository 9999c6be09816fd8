"""Status words to phases, and the difference between two task lists: tables and `diff`.

Source: task words of the detail page (DELETE) and of the newer SDK models (SKIPPED);
job words of the list page (PROCESSING, FINISHED, DELETED) and of the detail page
(ACTIVE, which is no end).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from watcher.core.model import JobKey, Level, Phase, Task, TaskPhase, Transition

TASK_PHASES: Mapping[str, TaskPhase] = {
    "PROCESSING": TaskPhase.ACTIVE,
    "SUCCESS": TaskPhase.SUCCEEDED,
    "FAILED": TaskPhase.FAILED,
    "DELETE": TaskPhase.DELETED,
    "DELETED": TaskPhase.DELETED,
    "SKIPPED": TaskPhase.SKIPPED,
}

PROCESSING, FINISHED, DELETED, ACTIVE = "PROCESSING", "FINISHED", "DELETED", "ACTIVE"
TELLING_WORDS = frozenset({PROCESSING, FINISHED, DELETED})
"""Job words that say whether the job runs; ACTIVE and a missing word do not."""
JOB_WORDS = TELLING_WORDS | {ACTIVE}

OPEN = frozenset({TaskPhase.ACTIVE, TaskPhase.UNKNOWN})


def task_phase(status: str) -> TaskPhase:
    """Conclude a task's phase from the API's word; UNKNOWN for any other word."""
    return TASK_PHASES.get(status, TaskPhase.UNKNOWN)


def settled_phase(phases: frozenset[TaskPhase], abnormal_count: int) -> Phase:
    """Conclude the phase of a settled job from its listed tasks' phases."""
    if phases == {TaskPhase.DELETED}:
        return Phase.DELETED
    if TaskPhase.FAILED in phases or abnormal_count > 0:
        return Phase.FAILED
    return Phase.SUCCEEDED


def count_by_status(tasks: Iterable[Task]) -> dict[str, int]:
    """Count tasks per status word, in the order the words first come."""
    return dict(Counter(task.status for task in tasks))


@dataclass(frozen=True, slots=True)
class TaskChange:
    """One task whose status differs between two lists.

    Attributes:
        before: None for a task that is new.
        after: None for a task that is no longer listed.
    """

    before: Task | None
    after: Task | None


def diff(before: Sequence[Task], after: Sequence[Task]) -> list[TaskChange]:
    """Compare two task lists by status; changes come in the order of `after`.

    Replaying the result over the statuses of `before` gives those of `after`.
    """
    known = {task.id: task for task in before}
    changes = []
    for task in after:
        earlier = known.pop(task.id, None)
        if earlier is None or earlier.status != task.status:
            changes.append(TaskChange(earlier, task))
    changes.extend(TaskChange(task, None) for task in known.values())
    return changes


def transition(
    key: JobKey, event: str, level: Level, ordinal: int, fields: Mapping[str, object]
) -> Transition:
    """Make a transition whose id depends on what changed and not on when it was seen.

    The id is made of the key, the event, the fields `task_id`, `from` and `to` where
    present, and `ordinal`: how many transitions of this event and task came before.
    """
    parts = (*key, event, fields.get("task_id"), fields.get("from"), fields.get("to"))
    text = "\0".join("" if part is None else str(part) for part in (*parts, ordinal))
    event_id = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return Transition(event, event_id, level, key, fields)


def rfc3339(moment: float | None) -> str | None:
    """Write Unix seconds as RFC 3339 in UTC with microseconds; None stays None."""
    if moment is None:
        return None
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")
