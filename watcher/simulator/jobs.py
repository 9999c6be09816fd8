"""The jobs as the service holds them: scenario, jobs asked for, changes by hand."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from watcher.simulator.clock import ScenarioClock
from watcher.simulator.scenario import Scenario
from watcher.simulator.timeline import (
    DELETED,
    PROCESSING,
    SUCCESS,
    Item,
    JobScript,
    JobTruth,
    TaskScript,
    follow_tasks,
    last_end,
    latest,
    rewrite_task,
    rewritten,
    tell,
)

KEPT = 20
"""Jobs that stay of each row of successors, that which runs included."""

FOLLOW_UP_EVERY = 0.1
"""Scenario seconds."""

LONGEST_CHAIN = 600.0
"""Scenario seconds for which successors are made up that nobody has asked for."""


class Jobs:
    """All jobs, by id. A job that is not yet created is not there."""

    def __init__(
        self, scenario: Scenario, clock: ScenarioClock, *, endless: bool = False
    ) -> None:
        """Compute the scenario's jobs; their tasks are computed when asked for.

        Args:
            scenario: What happens.
            clock: When it does.
            endless: Whether each job that ends is followed by a new one.
        """
        self._scenario = scenario
        self._clock = clock
        self._jobs = {job.id: job for job in map(scenario.job, range(scenario.jobs))}
        self._order = [(job.created, job.id) for job in self._jobs.values()]
        self._edited: dict[str, tuple[TaskScript, ...]] = {}
        self._asked_for = 0
        self._chains = [[job_id] for job_id in self._jobs] if endless else []
        self._generations = [0] * len(self._chains)
        self._followed_up = -math.inf
        self._computed = lru_cache(maxsize=2048)(
            lambda job_id: scenario.tasks_of(self._jobs[job_id], scenario.fleet())
        )

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all jobs, oldest first, those still to come included."""
        self._follow_up()
        return tuple(job_id for _, job_id in self._order)

    def find(self, job_id: str) -> JobScript | None:
        """Return a job that exists now."""
        self._follow_up()
        job = self._jobs.get(job_id)
        return job if job and job.created <= self._clock.now() else None

    def present(self) -> list[JobScript]:
        """Return the jobs that exist now, oldest first."""
        self._follow_up()
        end = bisect_right(self._order, self._clock.now(), key=_moment)
        return [self._jobs[job_id] for _, job_id in self._order[:end]]

    def tasks(self, job_id: str) -> tuple[TaskScript, ...]:
        """Return the tasks of a job.

        Raises:
            KeyError: There is no such job.
        """
        edited = self._edited.get(job_id)
        return self._computed(job_id) if edited is None else edited

    def truth(self, job_id: str) -> JobTruth:
        """Tell all that happens to a job.

        Raises:
            KeyError: There is no such job.
        """
        return tell(self._jobs[job_id], self.tasks(job_id), self._clock.stamp)

    def create(
        self,
        type_word: str,
        server_ids: Sequence[str],
        *,
        name: str = "",
        description: str = "",
        items: tuple[Item, ...] = (),
    ) -> JobScript:
        """Create a job now."""
        self._asked_for += 1
        draft = self._scenario.new_job(self._asked_for, type_word, self._clock.now())
        job = replace(
            draft,
            type=type_word,
            name=name or draft.name,
            description=description or draft.description,
            items=items or draft.items,
        )
        servers = self._scenario.servers(server_ids)
        self._jobs[job.id] = job
        self._edited[job.id] = self._scenario.tasks_of(job, servers)
        insort(self._order, (job.created, job.id), key=_moment)
        return job

    def delete(self, job_ids: Iterable[str]) -> None:
        """Mark jobs deleted, with those of their tasks that are still going on."""
        for job_id in job_ids:
            self.patch(job_id, "*", self._scenario.skipped, "Deleted.", only_open=True)
            self.say(job_id, DELETED)

    def finish(self, job_id: str) -> None:
        """End all tasks that are still going on, well."""
        self.patch(job_id, "*", SUCCESS, None, only_open=True)

    def patch(
        self,
        job_id: str,
        task_id: str,
        status: str,
        message: str | None = None,
        *,
        only_open: bool = False,
    ) -> None:
        """Give a task a status now; what was to happen to it does not.

        Args:
            job_id: The task's job.
            task_id: The task, or `*` for all of the job's.
            status: Any word; with PROCESSING it never ends by itself.
            message: None keeps the present one.
            only_open: Leave tasks alone that are not in PROCESSING.

        Raises:
            KeyError: There is no such job or task.
        """
        now = self._clock.now()
        job, tasks = self._jobs[job_id], self.tasks(job_id)
        chosen = {task.id for task in tasks if task_id in {"*", task.id}}
        if not chosen and task_id != "*":
            raise KeyError(task_id)
        if only_open:
            chosen -= {task.id for task in tasks if not _open(task, now)}
        self._edited[job_id] = tuple(
            rewrite_task(task, now, status, message) if task.id in chosen else task
            for task in tasks
        )
        if chosen:
            ended = last_end(job.created, self._edited[job_id])
            changes = follow_tasks(job.changes, now, ended)
            self._jobs[job_id] = replace(job, changes=changes)

    def say(self, job_id: str, status: str) -> None:
        """Give the job itself a status now, whatever its tasks do.

        Raises:
            KeyError: There is no such job.
        """
        job = self._jobs[job_id]
        changes = rewritten(job.changes, self._clock.now(), status, None)
        self._edited[job_id] = self.tasks(job_id)
        self._jobs[job_id] = replace(job, changes=changes)

    def _follow_up(self) -> None:
        now = self._clock.now()
        if now - self._followed_up < FOLLOW_UP_EVERY:
            return
        self._followed_up = now
        for slot, chain in enumerate(self._chains):
            while (ended := _end(self._jobs[chain[-1]])) <= now:
                self._generations[slot] += 1
                created = max(ended, now - LONGEST_CHAIN)
                job = self._scenario.next_job(slot, self._generations[slot], created)
                self._jobs[job.id] = job
                insort(self._order, (job.created, job.id), key=_moment)
                chain.append(job.id)
                for job_id in chain[:-KEPT]:
                    self._forget(job_id)
                del chain[:-KEPT]

    def _forget(self, job_id: str) -> None:
        self._order.remove((self._jobs.pop(job_id).created, job_id))
        self._edited.pop(job_id, None)


def _moment(entry: tuple[float, str]) -> float:
    return entry[0]


def _end(job: JobScript) -> float:
    last = job.changes[-1]
    return math.inf if last.status == PROCESSING else last.at


def _open(task: TaskScript, now: float) -> bool:
    state = latest(task.changes, now)
    return state is None or state.status == PROCESSING
