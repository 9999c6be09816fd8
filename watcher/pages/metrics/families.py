"""The series of one job as exposition text: pure functions of its record.

Source: Prometheus, "Exposition formats"; OpenMetrics 1.0, which reads the same lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from watcher.core.insight import fold
from watcher.core.model import JobRecord, Phase, Task, TaskPhase
from watcher.core.tracker import listed
from watcher.core.transitions import JOB_WORDS, TASK_PHASES, task_phase

UNKNOWN = "UNKNOWN"
MOST_REASONS = 3
LONGEST_REASON = 160
NO_REASON = "no message was given"
_ALWAYS = ("PROCESSING", "SUCCESS", "FAILED")
_SPELLING = {"DELETED": "DELETE"}

Labels = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family: a name, its help, and the samples that a record gives."""

    name: str
    help: str
    samples: Callable[[JobRecord], Iterable[tuple[Labels, float]]]

    def header(self) -> bytes:
        """Return the lines that introduce the family."""
        return f"# HELP {self.name} {self.help}\n# TYPE {self.name} gauge\n".encode()

    def lines(self, record: JobRecord) -> Iterator[str]:
        """Yield the lines of one job."""
        key = record.key
        base = (
            f'{self.name}{{target="{escape(key.target)}",job_id="{escape(key.job_id)}"'
        )
        for labels, value in self.samples(record):
            more = "".join(f',{k}="{escape(v or "")}"' for k, v in labels.items())
            yield f"{base}{more}}} {number(value)}\n"


def escape(text: str) -> str:
    """Escape a label value."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def number(value: float) -> str:
    """Write a sample's value; whole numbers without a point."""
    return str(int(value)) if value == int(value) else repr(float(value))


def status_word(status: str) -> str:
    """Return a task's status as label; every unknown word as UNKNOWN."""
    return _SPELLING.get(status, status) if status in TASK_PHASES else UNKNOWN


def _phase(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    return (({"phase": phase}, float(phase is record.phase)) for phase in Phase)


def _status(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    word = record.job.status if record.job else None
    yield {"status": word if word in JOB_WORDS else UNKNOWN}, 1


def _abnormal_count(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    if record.job is not None and record.job.abnormal_count is not None:
        yield {}, record.job.abnormal_count


def _tasks(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    if record.job is not None:
        counts = Counter(dict.fromkeys(_ALWAYS, 0))
        counts.update(status_word(task.status) for task in listed(record))
        for word, count in counts.items():
            yield {"status": word}, count


def _info(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    if (job := record.job) is not None:
        labels: Labels = {
            "project_id": record.project_id,
            "name": job.name,
            "type": job.type,
            "template_id": job.template_id,
            "user_name": job.user_name,
        }
        yield labels, 1


def _created(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    if record.job is not None and record.job.created_at is not None:
        yield {}, record.job.created_at


def _finished(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    if record.finished_at is not None:
        yield {}, record.finished_at


def _last_success(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    if record.last_success_at is not None:
        yield {}, record.last_success_at


def _task_samples(tasks: Iterable[Task]) -> Iterable[tuple[Labels, float]]:
    for task in tasks:
        labels: Labels = {
            "task_id": task.id,
            "server_id": task.server_id,
            "server_name": task.server_name,
            "status": status_word(task.status),
        }
        yield labels, 1


def _all_tasks(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    return _task_samples(listed(record))


def _failed_tasks(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    tasks = listed(record)
    return _task_samples(t for t in tasks if task_phase(t.status) is TaskPhase.FAILED)


def _failures(record: JobRecord) -> Iterable[tuple[Labels, float]]:
    """Yield the commonest messages of the tasks that failed, each told once."""
    failed = (t for t in listed(record) if task_phase(t.status) is TaskPhase.FAILED)
    reasons: Counter[str] = Counter()
    for group in fold((None, task.message) for task in failed):
        reason = reason_word(group.message)
        if reason in reasons or len(reasons) < MOST_REASONS:
            reasons[reason] += group.count
    for reason, count in reasons.items():
        yield {"reason": reason, "count": str(count)}, count


def reason_word(message: str) -> str:
    """Return a message as label: one line of visible characters, at most 160."""
    line = "".join(c if c.isprintable() else " " for c in message[: 4 * LONGEST_REASON])
    line = " ".join(line.split())
    if len(line) > LONGEST_REASON:
        line = line[: LONGEST_REASON - 1].rstrip() + "…"
    return line or NO_REASON


JOB_FAMILIES = (
    Family("devserver_job_phase", "Conclusion about the job.", _phase),
    Family("devserver_job_status", "The API's present word for the job.", _status),
    Family(
        "devserver_job_abnormal_count",
        "Nodes on which the job failed, as the API counts them.",
        _abnormal_count,
    ),
    Family("devserver_job_tasks", "Tasks of the job by status.", _tasks),
    Family("devserver_job_info", "What does not change about the job.", _info),
    Family(
        "devserver_job_created_timestamp_seconds", "When the job was created.", _created
    ),
    Family(
        "devserver_job_finished_timestamp_seconds",
        "When the job was first seen finished.",
        _finished,
    ),
)
"""Made again when anything but the time of the last answer changed."""

LAST_SUCCESS = Family(
    "devserver_job_last_success_timestamp_seconds",
    "When the API last gave a good answer about the job.",
    _last_success,
)
TASK_STATUS = "devserver_task_status", "Present status of one task."
ALL_TASKS = Family(*TASK_STATUS, _all_tasks)
FAILED_TASKS = Family(*TASK_STATUS, _failed_tasks)
FAILURES = Family(
    "devserver_job_failure_info",
    "Tasks that failed with a message alike, for the three commonest of the job.",
    _failures,
)
