"""`/api/v1/jobs`: the watched jobs, and one of them with its tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from watcher.core.model import JobKey
from watcher.pages.api.answers import long_answer, problem
from watcher.pages.api.views import detail, summary, task
from watcher.ports import Board, Request, Response

NextDue = Callable[[JobKey], float | None]
Clock = Callable[[], float]


class JobsPage:
    """Every watched job in short, in the order in which they were added."""

    path = "/api/v1/jobs"
    parameters: Collection[str] = ()

    def __init__(self, board: Board, next_due: NextDue, now: Clock) -> None:
        """Make the page.

        Args:
            board: What is known of the jobs.
            next_due: Seconds until a job is asked next; None where no time is set.
            now: Wall clock, Unix seconds.
        """
        self._board = board
        self._next_due = next_due
        self._now = now

    async def respond(self, _: Request) -> Response:
        """List the jobs; each as it was when the request came."""
        records = list(
            self._board.records.values()
        )  # the board changes while this is sent
        rows = (
            summary(record, _moment(self._now(), self._next_due(record.key)))
            for record in records
        )
        return long_answer({}, "jobs", rows)


class JobPage:
    """All that is known of one job."""

    path = "/api/v1/jobs/{target}/{job_id}"
    parameters: Collection[str] = ()

    def __init__(self, board: Board, next_due: NextDue, now: Clock) -> None:
        """Make the page; see `JobsPage`."""
        self._board = board
        self._next_due = next_due
        self._now = now

    async def respond(self, request: Request) -> Response:
        """Show the job; 404 where it is not watched."""
        key = JobKey(request.params["target"], request.params["job_id"])
        record = self._board.records.get(key)
        if record is None:
            return problem(404, "this job is not watched")
        head = detail(record, _moment(self._now(), self._next_due(key)))
        return long_answer(head, "tasks", (task(record, one) for one in record.tasks))


def _moment(now: float, delay: float | None) -> float | None:
    return None if delay is None or not math.isfinite(delay) else now + max(0.0, delay)
