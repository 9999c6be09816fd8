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
    search,
)
from watcher.pages.api.order import SORTS
from watcher.pages.api.rows import Clock, NextDue, Rows
from watcher.pages.api.views import Shown, detail, moment, task
from watcher.ports import Board, Request, Response

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

    def __init__(self, board: Board, next_due: NextDue, now: Clock) -> None:
        """Make the page; see `Rows`."""
        self._board = board
        self._next_due = next_due
        self._now = now

    async def respond(self, request: Request) -> Response:
        """Show the job; 404 where it is not watched, 400 for nonsense."""
        query = request.query
        try:
            limit = number("limit", query.get("limit"), MOST_ROWS, 1, MOST_ROWS)
            start = number("cursor", query.get("cursor") or None, 0, 0, 10**9)
            found = search(query.get("q", "").strip())
        except ValueError as exc:
            return problem(400, str(exc))
        key = JobKey(request.params["target"], request.params["job_id"])
        record = self._board.records.get(key)
        if record is None:
            return problem(404, "this job is not watched")
        head = detail(record, moment(self._now(), self._next_due(key)))
        if not query:
            return long_answer(head, "tasks", _laid_out(record, record.tasks))
        statuses = {word for word in query.get("status", "").split(",") if word}
        tasks = [
            one
            for one in sorted(record.tasks, key=_rank)
            if (not statuses or one.status in statuses)
            and any(map(found, (one.server_name, one.message, one.server_id, one.id)))
        ]
        end = start + limit
        head["total"] = len(tasks)
        head["next"] = str(end) if end < len(tasks) else None
        return long_answer(head, "tasks", _laid_out(record, tasks[start:end]))


def _rank(one: Task) -> int:
    phase = task_phase(one.status)
    return FIRST.index(phase) if phase in FIRST else len(FIRST)


def _laid_out(record: JobRecord, tasks: Sequence[Task]) -> Iterator[Shown]:
    return (task(record, one) for one in tasks)
