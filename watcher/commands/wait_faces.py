"""What a wait shows: a live view on a terminal, lines of JSON on a pipe, a summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from watcher.commands.command import Exit
from watcher.commands.shown import (
    AWAITED,
    ShownJob,
    failed_lines,
    job_lines,
)
from watcher.commands.terminal import Line, Live, Span, columns_of
from watcher.commands.waiting import Progress
from watcher.core.insight import fold
from watcher.core.journal import line
from watcher.core.model import JobRecord, JournalEvent, Phase, Task, TaskPhase
from watcher.core.tracker import listed
from watcher.core.transitions import count_by_status, task_phase
from watcher.encoding import encode_json
from watcher.fields import lasted
from watcher.logs import LineWriter

_ENDS: Mapping[int, str] = {
    Exit.OK: "finished",
    Exit.FAILED: "finished",
    Exit.TIMED_OUT: "timed out",
    Exit.UNAVAILABLE: "timed out, and the API never gave an answer",
    Exit.REFUSED: "ended, as the credentials are refused",
}


class PipeFace:
    """Writes journal events as the log has them, one JSON object a line."""

    def __init__(self, writer: LineWriter) -> None:
        """Write with a writer, so that a reader that stalls holds nothing back."""
        self._writer = writer

    async def show(self, _: Progress, events: Sequence[JournalEvent]) -> None:
        """Write the events; see `Face`."""
        if events:
            lines = [encode_json(line(event)) + b"\n" for event in events]
            await self._writer.send(b"".join(lines))


class LiveFace:
    """Keeps a view fresh on a terminal."""

    def __init__(self, live: Live, out: TextIO, wall: Callable[[], float]) -> None:
        """Show nothing yet."""
        self._live = live
        self._out = out
        self._wall = wall

    async def show(self, progress: Progress, _: Sequence[JournalEvent]) -> None:
        """Show how it goes; see `Face`."""
        self._live.show(list(view(progress, columns_of(self._out), self._wall())))


def view(progress: Progress, columns: int | None, now: float) -> Iterator[Line]:
    """Yield the lines of a live view: how much is done, what is wrong, then the jobs."""
    jobs = [shown(record, now) for record in progress.records]
    failed = sum(job.failed for job in jobs)
    yield [
        Span(f"waiting for {_jobs(len(jobs))}", "bold"),
        Span(f", {sum(j.done for j in jobs)}/{sum(j.total for j in jobs)} tasks done"),
        Span(f", {failed} failed" if failed else "", "red"),
        Span(f", {lasted(progress.seconds)}", "dim"),
    ]
    if problem := _problem(progress.records):
        yield [Span(f"! {problem}", "yellow")]
    yield from job_lines(sorted(jobs, key=lambda job: job.rank), columns)


def shown(record: JobRecord, now: float) -> ShownJob:
    """Return what is shown of a record."""
    job = record.job
    since = job.created_at or record.first_seen_at if job else None
    return ShownJob(
        record.key.target,
        record.key.job_id,
        job.name if job else None,
        record.phase if job else AWAITED,
        count_by_status(listed(record)),
        fold((_server(task), task.message) for task in _failed(record)),
        None if since is None else now - since,
    )


def summary(progress: Progress, code: int, now: float) -> Iterator[Line]:
    """Yield how it ended, each job's end, and each failed server with its message."""
    records = progress.records
    over = sum(each.phase.finished and each.job is not None for each in records)
    ended = _ENDS.get(code, "interrupted")
    spent = (
        f"after {lasted(progress.seconds)}: {over} of {_jobs(len(records))} finished"
    )
    yield [Span(f"{ended} {spent}", "bold")]
    if problem := _problem(records):
        yield [Span(f"! {problem}", "yellow")]
    yield from ends(records, now)


def ends(records: Iterable[JobRecord], now: float) -> Iterator[Line]:
    """Yield how each job is, and each of its failed servers with its message."""
    ranked = [(shown(each, now), each) for each in records]
    for job, record in sorted(ranked, key=lambda pair: pair[0].rank):
        yield from job_lines([job.without_failures()], None)
        failed = list(_failed(record))
        yield from failed_lines((_server(task), task.message) for task in failed)
        count = record.job and record.job.abnormal_count
        if count and not failed and record.phase is Phase.FAILED:
            text = f"    abnormal_count is {count}, though no task is shown as failed"
            yield [Span(text)]


def _problem(records: Sequence[JobRecord]) -> str | None:
    """Say why the API gives no answer, where it does not."""
    failures = [each.failure for each in records if each.failure and each.failures]
    told = [each for each in failures if each.reason.concerns_target] or [
        each for each in failures if each.error_msg and each.reason.value != "not_found"
    ]
    if not told:
        return None
    first = told[0]
    marks = [first.status_code and f"HTTP {first.status_code}", first.error_code]
    said = ", ".join(str(mark) for mark in marks if mark)
    text = f"no answer for {_jobs(len(told))}: {first.reason}: {first.error_msg}"
    return f"{text} ({said})" if said else text


def _failed(record: JobRecord) -> Iterator[Task]:
    for task in listed(record):
        if task_phase(task.status) is TaskPhase.FAILED:
            yield task


def _server(task: Task) -> str:
    return task.server_name or task.server_id or task.id


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"
