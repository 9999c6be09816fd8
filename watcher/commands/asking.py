"""What `watcher status` asks the daemon, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from watcher.commands.daemon_http import DaemonError, Message, ask, follow
from watcher.core.model import Phase
from watcher.settings.schema import Server

PAGE = 100
TASKS = 1000
JOBS = "/api/v1/jobs"
ABOUT_TO_FAIL = f"{Phase.FAILED},{Phase.ACTIVE}"
MOST_ALIKE = 10
FAILED = "FAILED"

Row = Mapping[str, Any]
"""A job as the API shows it; with `tasks` as a list where these are asked for."""


def has_failures(row: Row) -> bool:
    """Whether something failed on a server of a job."""
    failed = row["task_counts"].get(FAILED, 0) or row["abnormal_count"] or 0
    return row["phase"] == Phase.FAILED or failed > 0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        server: Where the daemon is served.
        job: The id of a job, or its beginning; None for all.
        target: Its target; None for all.
        of_server: A part of the names of servers; None for all.
        limit: How many are shown at most; None for all.
        failed: Whether only what failed is.
    """

    server: Server
    job: str | None = None
    target: str | None = None
    of_server: str | None = None
    limit: int | None = None
    failed: bool = False

    @property
    def _which(self) -> dict[str, object]:
        phase = ABOUT_TO_FAIL if self.failed and not self.job else None
        return {"target": self.target, "phase": phase, "q": self.job or self.of_server}

    def pages(self) -> Iterator[Row]:
        """Yield the pages of the list as they come; `jobs` are those that are meant."""
        cursor, asked = None, 0
        while True:
            room = PAGE if self.limit is None else min(PAGE, self.limit - asked)
            page = self._ask(JOBS, **self._which, limit=room, cursor=cursor)
            met = [self.meant(row) for row in page["jobs"]]
            found = [row for row in met if row is not None]
            asked += len(found)
            yield {**page, "jobs": found}
            cursor = page["next"]
            # Failed comes first: after a page without, there is none.
            over = self.failed and not any(map(has_failures, page["jobs"]))
            if cursor is None or over or asked == self.limit:
                return

    def leaves_out(self, page: Row, shown: int) -> bool:
        """Whether there is more than what was shown up to a page."""
        if self.failed and not self.of_server:
            return bool(page["counts"][Phase.FAILED] + page["failing"] > shown)
        return page["next"] is not None

    def meant(self, row: Row) -> Row | None:
        """Return a job of the list, with the tasks of a server where one is asked for.

        Returns:
            None where it is not meant, or has gone meanwhile.
        """
        if self.failed and not has_failures(row):
            return None
        if self.of_server is None:
            return row
        whole = self.whole(row["target"], row["job_id"])
        return whole if whole and whole["tasks"] else None

    def find(self) -> Row:
        """Return the one job that is meant, with its tasks, failed first.

        Raises:
            DaemonError: There is none, or there are several.
        """
        sought = str(self.job).rpartition("/")[2].casefold()
        alike: list[Row] = []
        for page in replace(self, job=sought, limit=None, failed=False).ids():
            alike += [r for r in page if r["job_id"].casefold().startswith(sought)]
            if len(alike) >= MOST_ALIKE:
                break
        exact = [row for row in alike if row["job_id"].casefold() == sought]
        found = exact or alike
        if not found:
            raise DaemonError(
                f"no job {self.job} is watched; what was told of it: "
                "watcher events --job JOB_ID"
            )
        if len(found) > 1:
            names = ", ".join(f"{row['target']}/{row['job_id']}" for row in found)
            raise DaemonError(
                f"several jobs are meant ({names}): give --target or more of the id"
            )
        whole = self.whole(found[0]["target"], found[0]["job_id"])
        if whole is None:
            raise DaemonError(f"job {self.job} is watched no more")
        return whole

    def ids(self) -> Iterator[list[Row]]:
        """Yield the rows in which the id is found, page by page."""
        for page in replace(self, of_server=None).pages():
            yield page["jobs"]

    def whole(self, target: str, job_id: str) -> Row | None:
        """Return a job with its tasks, those that are meant; None where it is gone."""
        path = f"{JOBS}/{quote(target, safe='')}/{quote(job_id, safe='')}"
        status = FAILED if self.failed else None
        tasks: list[Row] = []
        cursor = "0"
        while True:
            part = ask(
                self.server,
                path,
                status=status,
                q=self.of_server,
                limit=TASKS,
                cursor=cursor,
            )
            if part is None:
                return None
            tasks += [task for task in part["tasks"] if self._of_server(task)]
            cursor = part["next"]
            if cursor is None:
                return {**part, "tasks": tasks, "next": None}

    def _of_server(self, task: Row) -> bool:
        sought = (self.of_server or "").casefold()
        return any(
            sought in (task[name] or "").casefold()
            for name in ("server_name", "server_id")
        )

    def freshness(self) -> Row:
        """Return what the daemon says of itself."""
        return self._ask("/api/v1/watcher")

    def changes(self, place: str | None) -> Iterator[Message]:
        """Yield what changes, from a place on."""
        return follow(self.server, place, "/api/v1/stream", **self._which)

    def _ask(self, path: str, **query: object) -> Row:
        answer = ask(self.server, path, **query)
        if answer is None:
            raise DaemonError("who answers there is no watcher of this version")
        return answer
