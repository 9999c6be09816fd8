"""The scenario: which jobs there are and what becomes of them, all from one seed.

Everything is computed when it is asked for and the same each time it is, so a scenario
of ten thousand jobs costs nothing to hold.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from watcher.simulator.timeline import (
    FAILED,
    FINISH_LAG,
    PROCESSING,
    SUCCESS,
    Change,
    JobScript,
    Server,
    TaskScript,
    job_changes,
)
from watcher.simulator.works import ROTATION, Work, work_of

TASK_LAG = 0.031
"""Scenario seconds from a job's creation to the appearance of its tasks."""

HEAD_START = 10.0
"""The jobs that exist at the start were created over so many seconds before it."""

FAILED_SHARE, SKIPPED_SHARE = 0.12, 0.03
"""Shares of the tasks of a failing job, of which one fails for certain."""

SOFTWARE = (
    ("Driver: 24.1.0.3 | Firmware: 7.5.0.5.220", 0.7),
    ("Driver: 24.1.rc3 | Firmware: 7.5.0.1.129", 0.85),
    ("Driver: 23.0.7 | Firmware: 7.1.0.11.220", 0.95),
    ("Driver: 24.1.0.1 | Firmware: 7.5.0.3.220", 1.0),
)
"""Installed versions with their cumulative share of the servers."""

USERS = ("modelarts_user", "ops_oncall", "train_scheduler")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fleet of servers and the jobs that run on it.

    Attributes:
        jobs: How many jobs there are.
        tasks: Servers of the fleet; every job runs on all of them.
        failing: Share of jobs on which tasks fail.
        arrive_over: Scenario seconds over which the jobs are created; 0 creates all of
            them before the start.
        skipped: The word for a task that was not carried out.
    """

    seed: int
    jobs: int
    tasks: int
    failing: float = 0.25
    arrive_over: float = 0.0
    skipped: str = "SKIPPED"

    def fleet(self) -> tuple[Server, ...]:
        """Return the servers."""
        return _fleet(self.seed, self.tasks)

    def job(self, index: int) -> JobScript:
        """Return one of the scenario's jobs, oldest first."""
        if self.arrive_over:
            created = self.arrive_over * index / self.jobs
        else:
            created = HEAD_START * ((index + 1) / self.jobs - 1)
        draw = _draw(self.seed, "job", index)
        return _script(draw, ROTATION[index % len(ROTATION)], created)

    def next_job(self, slot: int, generation: int, created: float) -> JobScript:
        """Return the job that follows one of the scenario's, `generation` later."""
        work = ROTATION[(slot + generation) % len(ROTATION)]
        draw = _draw(self.seed, "next", slot, generation)
        return _script(draw, work, created)

    def new_job(self, serial: int, type_word: str, created: float) -> JobScript:
        """Return a job that somebody asks for; `serial` tells such jobs apart."""
        return _script(_draw(self.seed, "new", serial), work_of(type_word), created)

    def servers(self, ids: Sequence[str]) -> tuple[Server, ...]:
        """Return servers by id: those of the fleet, and strangers made up to match."""
        known = {server.id: server for server in self.fleet()}
        return tuple(known.get(id_) or _stranger(id_) for id_ in ids)

    def tasks_of(
        self, job: JobScript, servers: Sequence[Server]
    ) -> tuple[TaskScript, ...]:
        """Return the tasks of a job, one of which takes as long as the job does."""
        draw = _draw(self.seed, "tasks", job.id)
        troubled = draw.random() < self.failing
        victim, slowest = (int(draw.random() * len(servers)) for _ in range(2))
        begins = max(job.created, 0.0)
        duration = job.changes[-1].at - FINISH_LAG - begins
        tasks = []
        for place, server in enumerate(servers):
            share = 1.0 if place == slowest else _between(draw, 0.25, 1.0)
            luck = draw.random()
            status = self._outcome(0.0 if place == victim else luck, troubled=troubled)
            end = Change(begins + duration * share, status)
            tasks.append(_task(draw, job, server, end))
        return tuple(tasks)

    def _outcome(self, luck: float, *, troubled: bool) -> str:
        if troubled and luck < FAILED_SHARE:
            return FAILED
        if troubled and luck < FAILED_SHARE + SKIPPED_SHARE:
            return self.skipped
        return SUCCESS


def _script(draw: random.Random, work: Work, created: float) -> JobScript:
    duration = _between(draw, work.shortest, work.longest)
    return JobScript(
        id=_new_id(draw),
        name=work.name,
        type=work.type,
        description=work.description,
        items=work.items,
        template_id=_template_id(work.type),
        user_name=USERS[int(draw.random() * len(USERS))],
        changes=job_changes(created, max(created, 0.0) + duration),
    )


def _task(
    draw: random.Random, job: JobScript, server: Server, end: Change
) -> TaskScript:
    work = work_of(job.type)
    appears = job.created + TASK_LAG
    begins = max(appears, 0.0)
    pace = (end.at - begins) / (len(work.progress) + 1)
    progress = (
        Change(begins + pace * step, PROCESSING, text)
        for step, text in enumerate(work.progress, start=1)
    )
    return TaskScript(
        id=job.id[:8] + _new_id(draw)[8:24] + server.id[-12:],
        server=server,
        changes=(
            Change(appears, PROCESSING),
            *progress,
            end._replace(message=_last_words(draw, work, server, end.status)),
        ),
    )


def _last_words(draw: random.Random, work: Work, server: Server, status: str) -> str:
    texts = {
        SUCCESS: work.result,
        FAILED: work.failures[int(draw.random() * len(work.failures))],
    }
    text = texts.get(status, "The server is not running.")
    return text.format(software=server.software, server=server.name)


def _draw(*parts: object) -> random.Random:
    return random.Random("/".join(map(str, parts)))  # noqa: S311


def _between(draw: random.Random, low: float, high: float) -> float:
    return low + (high - low) * draw.random()


def _new_id(draw: random.Random) -> str:
    return str(uuid.UUID(int=draw.getrandbits(128), version=4))


@lru_cache
def _template_id(type_word: str) -> str:
    return _new_id(_draw("template", type_word))


@lru_cache(maxsize=16)
def _fleet(seed: int, size: int) -> tuple[Server, ...]:
    return tuple(_fleet_server(seed, place) for place in range(size))


def _fleet_server(seed: int, place: int) -> Server:
    draw = _draw(seed, "server", place)
    luck = draw.random()
    return Server(
        id=_new_id(draw),
        name=f"liteserver-a2-aiserver-{place + 1:03d}",
        cloud_id=_new_id(draw),
        cloud_type="BMS",
        software=next(text for text, share in SOFTWARE if luck < share),
    )


def _stranger(server_id: str) -> Server:
    return Server(
        id=server_id,
        name=f"liteserver-a2-{server_id[-12:]}",
        cloud_id=_new_id(_draw("cloud", server_id)),
        cloud_type="BMS",
        software=SOFTWARE[0][0],
    )
