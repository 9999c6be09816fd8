"""Jobs as the API's JSON, in the edition of the API that is spoken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from watcher.simulator.answers import Document
from watcher.simulator.options import Dialect
from watcher.simulator.timeline import (
    DELETED,
    FAILED,
    PROCESSING,
    Change,
    JobScript,
    TaskScript,
    latest,
    visible,
)

ROW_LEAD = 12
"""Milliseconds that a job's update_at lies before the newest of its tasks'."""


@dataclass(frozen=True, slots=True)
class View:
    """A job's looks at one moment.

    Attributes:
        stamp: Turns scenario seconds into the server's Unix seconds.
        now: The moment, in scenario seconds.
    """

    dialect: Dialect
    stamp: Callable[[float], float]
    now: float

    def detail(self, job: JobScript, tasks: Sequence[TaskScript]) -> Document:
        """Return the answer of the detail call."""
        row = self.row(job, tasks)
        if self.dialect.job_words == "active":
            row["status"] = "ACTIVE"
        return {
            "create_at": row["create_at"],
            "update_at": row["update_at"],
            "id": job.id,
            "name": job.name,
            "description": job.description,
            "type": job.type,
            "status": row["status"],
            "items": [
                {"type": item.type} | ({"spec": dict(item.spec)} if item.spec else {})
                for item in job.items
            ],
            "tasks": [
                self._task(task, state) for task, state in visible(tasks, self.now)
            ],
            "template_id": job.template_id,
            "user_name": job.user_name,
            "abnormal_count": row["abnormal_count"],
        }

    def row(self, job: JobScript, tasks: Sequence[TaskScript]) -> Document:
        """Return a row of the list call, which has no tasks, items or template."""
        states = [state for _, state in visible(tasks, self.now)]
        return {
            "id": job.id,
            "name": job.name,
            "user_name": job.user_name,
            "description": job.description,
            "type": job.type,
            "status": self.status(job),
            "abnormal_count": self._abnormal(job, states),
            "create_at": self._time(self._milliseconds(job.created)),
            "update_at": self._time(self._updated(job, states)),
        }

    def status(self, job: JobScript) -> str:
        """Return the job's own word."""
        state = latest(job.changes, self.now)
        return state.status if state else ""

    def _abnormal(self, job: JobScript, states: Sequence[Change]) -> int:
        if self.dialect.rows == "ends" and self.status(job) == PROCESSING:
            return 0
        return sum(state.status == FAILED for state in states)

    def _updated(self, job: JobScript, states: Sequence[Change]) -> int:
        own = latest(job.changes, self.now)
        if own and (own.status == DELETED or self.dialect.rows == "ends"):
            return self._milliseconds(own.at)
        newest = max((state.at for state in states), default=job.created)
        created = self._milliseconds(job.created)
        return max(created, self._milliseconds(newest) - ROW_LEAD)

    def _task(self, task: TaskScript, state: Change) -> Document:
        return {
            "create_at": self._time(self._milliseconds(task.changes[0].at)),
            "update_at": self._time(self._milliseconds(state.at)),
            "id": task.id,
            "server_id": task.server.id,
            "server_name": task.server.name,
            "cloud_server": {
                "id": task.server.cloud_id,
                "type": task.server.cloud_type,
            },
            "status": state.status,
            "message": state.message,
        }

    def _milliseconds(self, scenario: float) -> int:
        return round(self.stamp(scenario) * 1000)

    def _time(self, milliseconds: int) -> int | str:
        match self.dialect.timestamps:
            case "int":
                return milliseconds
            case "string":
                return str(milliseconds)
            case "iso":
                moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
                return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"
