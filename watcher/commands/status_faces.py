"""What `watcher status` shows: lines for people or of JSON, once or as it changes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from threading import Event
from typing import Any, TextIO

from watcher.commands.asking import Question, Row
from watcher.commands.command import Exit, complain
from watcher.commands.daemon_http import DaemonError
from watcher.commands.shown import ShownJob, job_lines
from watcher.commands.terminal import (
    Line,
    Live,
    Span,
    cells,
    columns_of,
    padded,
    rows_of,
    write_lines,
)
from watcher.core.insight import Folded
from watcher.core.model import Phase, TaskPhase
from watcher.encoding import encode_json
from watcher.fields import lasted

EVERY = 2.0
"""Seconds between two looks, where a view is kept fresh or the daemon is away."""
_COLOURS = {TaskPhase.FAILED: "red", TaskPhase.SUCCEEDED: "green"}
_STATUS = 10


def show(question: Question, out: TextIO, *, as_json: bool) -> str | None:
    """Show how it is now; return from where on it may be followed.

    Raises:
        DaemonError: The daemon does not answer.
        BrokenPipeError: The reader has left.
    """
    if question.job:
        job = question.find()
        write(question, [job], out, as_json=as_json)
        return str(job["version"])
    place, count, more = None, 0, False
    for page in question.pages():
        if place is None and not as_json:
            write_lines(out, head(question, page))
        place = place or str(page["version"])
        write(question, page["jobs"], out, as_json=as_json)
        count += len(page["jobs"])
        more = count == question.limit and question.leaves_out(page, count)
    if question.of_server and not (count or as_json):
        which = "that failed " if question.failed else ""
        text = f"no watched job has a server {which}like {question.of_server}"
        write_lines(out, [[Span(text, "dim")]])
    if more and not as_json:
        write_lines(out, [[Span("… and more: --limit 0 shows all", "dim")]])
    return place


def write(
    question: Question, rows: Iterable[Row], out: TextIO, *, as_json: bool
) -> None:
    """Write jobs as they are now, as lines of JSON or for people."""
    if as_json:
        out.write("".join(encode_json(row).decode() + "\n" for row in rows))
        out.flush()
    else:
        write_lines(out, laid_out(question, list(rows), columns_of(out)))


def head(question: Question, page: Row) -> Iterator[Line]:
    """Yield how many jobs there are in each phase, and what keeps answers from coming."""
    counts = {phase: count for phase, count in page["counts"].items() if count}
    first = {Phase.FAILED: "red", Phase.ACTIVE: "cyan", Phase.SUCCEEDED: "green"}
    spans: list[Span] = []
    for phase in sorted(
        counts, key=lambda p: list(first).index(p) if p in first else 9
    ):
        failing = f" ({page['failing']} with failures)" if page["failing"] else ""
        text = f"{counts[phase]} {phase}{failing if phase == Phase.ACTIVE else ''}"
        spans += [Span(", " if spans else ""), Span(text, first.get(phase, "yellow"))]
    yield spans or [Span("no job is watched", "dim")]
    for target in question.freshness()["targets"]:
        if target["key_locked"]:
            text = (
                "its key was refused too often: nothing is asked until it is replaced"
            )
            yield [Span(f"! {target['name']}: {text}", "yellow")]
        for failing in target["failing"]:
            jobs = "1 job" if failing["jobs"] == 1 else f"{failing['jobs']} jobs"
            text = f"no answer for {jobs}: {failing['reason']}: {failing['message']}"
            yield [Span(f"! {target['name']}: {text}", "yellow")]


def laid_out(
    question: Question, rows: Iterable[Row], columns: int | None
) -> Iterator[Line]:
    """Yield the lines of jobs; of those with their tasks, these below, failed first."""
    now = _wall()
    rows = list(rows)
    if not rows or not isinstance(rows[0]["tasks"], list):
        yield from job_lines([shown(row, now) for row in rows], columns)
        return
    for row in rows:
        job, tasks = shown(row, now), row["tasks"]
        most = len(tasks) if question.limit is None else question.limit
        whole = question.job and job.failed > most
        yield from job_lines([job if whole else job.without_failures()], columns)
        if question.job:
            yield from _facts(row, now)
        yield from task_lines(tasks[:most])
        if len(tasks) > most:
            text = f"    … {len(tasks) - most} more tasks: --limit 0 shows all"
            yield [Span(text, "dim")]


def _facts(row: Row, now: float) -> Iterator[Line]:
    looked = _seconds(row["last_success_at"])
    facts = [
        row["type"],
        f"by {row['user_name']}" if row["user_name"] else None,
        f"last answer {lasted(now - looked)} ago" if looked else "no answer yet",
    ]
    yield [Span(f"    {', '.join(fact for fact in facts if fact)}", "dim")]
    if row["failures"] and (error := row["last_error"]):
        text = f"no answer: {error['reason']}: {error['error_msg']}"
        yield [Span(f"    ! {text}", "yellow")]


def task_lines(tasks: Iterable[Row]) -> Iterator[Line]:
    """Yield a line for each task: its status, its server, what was said."""
    named = [
        (task, task["server_name"] or task["server_id"] or task["id"]) for task in tasks
    ]
    width = max((cells(name) for _, name in named), default=0)
    for task, name in named:
        colour = _COLOURS.get(task["phase"], "")
        yield [
            Span(f"    {padded(task['status'], _STATUS)} ", colour),
            Span(f"{padded(name, width)}  ", "bold"),
            Span(task["message"] or ""),
        ]


def shown(row: Row, now: float) -> ShownJob:
    """Return what is shown of a job."""
    since = _seconds(row["created_at"] or row["first_seen_at"])
    folded = row.get("folded_failures", row["failures"])
    return ShownJob(
        row["target"],
        row["job_id"],
        row["name"],
        row["phase"],
        row["task_counts"],
        [Folded(f["message"], f["count"], tuple(f["servers"])) for f in folded],
        None if since is None else now - since,
    )


def _seconds(moment: str | None) -> float | None:
    return datetime.fromisoformat(moment).timestamp() if moment else None


def _wall() -> float:
    return time.time()  # noqa: TID251 - the daemon's composition is not loaded for it


def watch(question: Question, out: TextIO, *, as_json: bool, live: bool) -> int:
    """Show how it is and what changes, until interrupted; return the exit code.

    Raises:
        DaemonError: The daemon does not answer when it begins.
        BrokenPipeError: The reader has left.
    """
    if live:
        return _Redrawn(question, out).run()
    return _follow(question, out, as_json=as_json)


class _Redrawn:
    """A view that is made anew every two seconds; only what changed is written."""

    def __init__(self, question: Question, out: TextIO) -> None:
        self._question = question
        self._out = out
        self._lines: list[Line] = []
        self._answered_at = 0.0
        self._why = ""

    def run(self) -> int:
        live, code = Live(self._out), Exit.OK
        self._lines = self._look()
        try:
            while True:
                live.show([*self._problem(code), *self._lines])
                Event().wait(EVERY)
                try:
                    self._lines, code = self._look(), Exit.OK
                except DaemonError as exc:
                    self._why, code = str(exc), Exit.FAILED
        except KeyboardInterrupt:
            self._out.write("\n")
            return code

    def _problem(self, code: int) -> list[Line]:
        if code == Exit.OK:
            return []
        since = lasted(_wall() - self._answered_at)
        return [[Span(f"! as it was {since} ago: {self._why}", "yellow")]]

    def _look(self) -> list[Line]:
        columns, room = columns_of(self._out), rows_of(self._out)
        limit = min(self._question.limit or room, room)
        question = replace(self._question, limit=limit)
        if question.job:
            lines = list(laid_out(question, [question.find()], columns))
        else:
            lines = []
            for page in question.pages():
                lines += [] if lines else head(question, page)
                lines += laid_out(question, page["jobs"], columns)
        self._answered_at = _wall()
        return lines


def _follow(question: Question, out: TextIO, *, as_json: bool) -> int:
    """Write how it is, then each job again that changes."""
    code, place = Exit.OK, show(question, out, as_json=as_json)
    every = replace(question, limit=None)
    try:
        while True:
            try:
                for told in every.changes(place):
                    code, place = Exit.OK, told.place or place
                    if told.event == "reset":
                        place = show(question, out, as_json=as_json)
                        break
                    if told.event == "job":
                        _write_changed(every, told.data, out, as_json=as_json)
            except DaemonError as exc:
                if code == Exit.OK:
                    complain(f"{exc}; trying again")
                code = Exit.FAILED
            Event().wait(EVERY)
    except KeyboardInterrupt:
        return code


def _write_changed(question: Question, row: Any, out: TextIO, *, as_json: bool) -> None:
    if question.job:
        sought = question.job.rpartition("/")[2].casefold()
        if not row["job_id"].casefold().startswith(sought):
            return
        whole = question.whole(row["target"], row["job_id"])
        found = whole if as_json else row
    else:
        found = question.meant(row)
    if found is not None:
        write(question, [found], out, as_json=as_json)
