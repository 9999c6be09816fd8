"""The calls of the jobs API, from a request's parts to an answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from watcher.simulator.answers import (
    Answer,
    Document,
    bad_parameter,
    good,
    no_such_job,
)
from watcher.simulator.clock import ScenarioClock
from watcher.simulator.jobs import Jobs
from watcher.simulator.options import SimulatorOptions
from watcher.simulator.render import View
from watcher.simulator.timeline import DELETED, Item, JobScript

MAX_LIMIT = 1024
NAME = re.compile(r"[-_.a-zA-Z0-9]{1,64}")
SERVER_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Service:
    """The service behind the gateway."""

    def __init__(
        self, options: SimulatorOptions, jobs: Jobs, clock: ScenarioClock
    ) -> None:
        """Serve these jobs."""
        self._options = options
        self._jobs = jobs
        self._clock = clock

    def detail(self, job_id: str) -> Answer:
        """Answer the detail call."""
        job = self._jobs.find(job_id)
        if job is None:
            return no_such_job(job_id)
        return good(self._view().detail(job, self._jobs.tasks(job_id)))

    def page(self, query: str) -> Answer:
        """Answer the list call."""
        given = dict(parse_qsl(query, keep_blank_values=True))
        if self._options.paging == "refused" and given.keys() & {"limit", "offset"}:
            return bad_parameter("Unknown request parameter: limit or offset.")
        if self._options.paging == "honoured":
            limit = _whole(given.get("limit"), self._options.page_size)
            offset = _whole(given.get("offset"), 0)
        else:
            limit, offset = self._options.page_size, 0
        if limit is None or offset is None or not 1 <= limit <= MAX_LIMIT:
            return bad_parameter("Invalid parameter: limit or offset.")
        view = self._view()
        return good(self._rows(_chosen(self._jobs, view, given), limit, offset, view))

    def create(self, body: bytes) -> Answer:
        """Answer the create call."""
        asked = _read_object(body)
        server_ids = asked.get("server_ids")
        if not _all_match(SERVER_ID, server_ids):
            return bad_parameter("Invalid parameter: server_ids.")
        if not _all_match(NAME, [asked.get("type"), asked.get("name")]):
            return bad_parameter("Invalid parameter: type or name.")
        job = self._jobs.create(
            asked["type"],
            asked["server_ids"],
            name=asked["name"],
            description=str(asked.get("description") or ""),
            items=tuple(_items(asked.get("items"))),
        )
        return good(self._view().detail(job, self._jobs.tasks(job.id)))

    def delete(self, body: bytes) -> Answer:
        """Answer the delete call, with a list page."""
        job_ids = _read_object(body).get("job_ids")
        if not isinstance(job_ids, list) or not job_ids:
            return bad_parameter("Invalid parameter: job_ids.")
        for job_id in map(str, job_ids):
            if self._jobs.find(job_id) is None:
                return no_such_job(job_id)
        self._jobs.delete(job_ids)
        deleted = [job for job in self._jobs.present() if job.id in job_ids]
        return good(self._rows(deleted, MAX_LIMIT, 0, self._view()))

    def _view(self) -> View:
        return View(self._options.dialect, self._clock.stamp, self._clock.now())

    def _rows(
        self, jobs: Sequence[JobScript], limit: int, offset: int, view: View
    ) -> Document:
        """Return a list page; `current` counts pages from 1."""
        shown = jobs[offset : offset + limit]
        return {
            "current": offset // limit + 1,
            "pages": math.ceil(len(jobs) / limit),
            "size": limit,
            "total": len(jobs),
            "data": [view.row(job, self._jobs.tasks(job.id)) for job in shown],
        }


def _chosen(jobs: Jobs, view: View, given: dict[str, str]) -> list[JobScript]:
    rows = jobs.present()
    for name in ("id", "name", "type"):
        if name in given:
            rows = [job for job in rows if getattr(job, name) == given[name]]
    if "status" in given:
        rows = [job for job in rows if view.status(job) == given["status"]]
    if "visible" in given:
        shown = given["visible"].lower() == "true"
        rows = [job for job in rows if (view.status(job) != DELETED) == shown]
    return rows


def _whole(text: str | None, default: int) -> int | None:
    """Return a number from 0 up, or None where the text is none."""
    if text is None:
        return default
    return int(text) if re.fullmatch("[0-9]{1,10}", text) else None


def _read_object(body: bytes) -> Document:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _all_match(pattern: re.Pattern[str], texts: Any) -> bool:
    return (
        isinstance(texts, list)
        and bool(texts)
        and all(isinstance(text, str) and pattern.fullmatch(text) for text in texts)
    )


def _items(given: Any) -> list[Item]:
    entries = given if isinstance(given, list) else []
    return [
        Item(str(type_word), spec if isinstance(spec, dict) else {})
        for type_word, spec in (
            (entry.get("type"), entry.get("spec"))
            for entry in entries
            if isinstance(entry, dict)
        )
    ]
