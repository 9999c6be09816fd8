"""`/api/v1/jobs`: the watched jobs, and one of them with its tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from watcher.core.model import JobKey, JobRecord, Task, TaskPhase
from watcher.core.transitions import task_phase
from watcher.pages.api.answers import long_answer, problem
from watcher.pages.api.asking import (
    MOST_ROWS,
    Filter,
    cursor_of,
    number,
    one_of,
    place_of,
    searched,
)
from watcher.pages.api.order import SORTS
from watcher.pages.api.rows import Rows
from watcher.pages.api.views import Shown, detail, task
from watcher.ports import Request, Response

FIRST = (TaskPhase.FAILED, TaskPhase.UNKNOWN, TaskPhase.ACTIVE)
"""Tasks that come first, where they are filtered or paged."""


class JobsPage:
    """The watched jobs, a page at a time: filtered, in order, with counts of all."""

    path = "/api/v1/jobs"
    parameters: Collection[str] = ("target", "phase", "q", "sort", "limit", "cursor")

    def __init__(self, rows: Rows) -> None:
        """Make the page."""
        self._rows = rows

    async def respond(self, request: Request) -> Response:
        """List jobs; 400 where what is asked is nonsense."""
        query = request.query
        try:
            which = Filter.of(query)
            sort = one_of("sort", query.get("sort") or "attention", SORTS)
            limit = number("limit", query.get("limit"), 100, 1, MOST_ROWS)
            after = place_of(query.get("cursor"), sort)
        except ValueError as exc:
            return problem(400, str(exc))
        version = await self._rows.catch_up()
        picked = await self._rows.pick(which, sort, after, limit)
        head = {
            "counts": self._rows.counts(which.target),
            "failing": self._rows.failing(which.target),
            "total": picked.total,
            "next": cursor_of(picked.last) if picked.last else None,
            "version": self._rows.mark(version),
        }
        shown = (self._rows.show(key) for key in picked.keys)
        return long_answer(head, "jobs", (row for row in shown if row is not None))


class JobPage:
    """All that is known of one job; its tasks filtered and paged where that is asked."""

    path = "/api/v1/jobs/{target}/{job_id}"
    parameters: Collection[str] = ("status", "q", "limit", "cursor")

    def __init__(self, rows: Rows) -> None:
        """Make the page."""
        self._rows = rows

    async def respond(self, request: Request) -> Response:
        """Show the job; 404 where it is not watched, 400 for nonsense."""
        query = request.query
        try:
            limit = number("limit", query.get("limit"), MOST_ROWS, 1, MOST_ROWS)
            start = number("cursor", query.get("cursor") or None, 0, 0, 10**9)
            sought = searched(query.get("q", "").strip())
        except ValueError as exc:
            return problem(400, str(exc))
        key = JobKey(request.params["target"], request.params["job_id"])
        version = await self._rows.catch_up()
        known = self._rows.find(key)
        if known is None:
            return problem(404, "this job is not watched")
        record = known[0]
        head = {**detail(*known), "version": self._rows.mark(version)}
        if not query:
            return long_answer(head, "tasks", _laid_out(record, record.tasks))
        tasks = _chosen(record, query.get("status", ""), sought)
        end = start + limit
        head["total"] = len(tasks)
        head["next"] = str(end) if end < len(tasks) else None
        return long_answer(head, "tasks", _laid_out(record, tasks[start:end]))


def _chosen(record: JobRecord, statuses: str, sought: str) -> Sequence[Task]:
    """Return the tasks in one of these statuses in which a text is found."""
    words = {word for word in statuses.split(",") if word}
    return [
        one
        for one in sorted(record.tasks, key=_rank)
        if (not words or one.status in words) and (not sought or _is_in(one, sought))
    ]


def _is_in(one: Task, sought: str) -> bool:
    texts = (one.server_name, one.message, one.server_id, one.id)
    return any(text and sought in text.casefold() for text in texts)


def _rank(one: Task) -> int:
    phase = task_phase(one.status)
    return FIRST.index(phase) if phase in FIRST else len(FIRST)


def _laid_out(record: JobRecord, tasks: Sequence[Task]) -> Iterator[Shown]:
    return (task(record, one) for one in tasks)
