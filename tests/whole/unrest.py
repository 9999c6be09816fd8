"""A cloud that does not rest: changes by hand, each made once the last one was told."""

import random
import time
from collections import defaultdict
from datetime import datetime

import anyio

from tests.whole.daemon import until
from watcher.simulator import SimulatorOptions

WORDS = ("PROCESSING", "SUCCESS", "FAILED", "SKIPPED")
OPTIONS = SimulatorOptions(jobs=12, tasks=3, speed=10.0, failing=0.5)
SPOILT = {"null_tasks": 4, "missing_tasks": 2, "wrong_id": 2}
SERVERS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(2)]


class Unrest:
    """Changes the jobs of a simulator, and knows what must have been told of it.

    The first task of each job goes on to the end, so that the job is never finished
    before. `changes` are all by hand: (job, task) to [(from, to, earliest, latest)].
    """

    def __init__(self, sim, story, late=None, seed=0):
        self.sim = sim
        self.story = story
        self.changes = defaultdict(list)
        self.vanished = defaultdict(int)
        self.late_ids = []
        self.over = self.told = False
        self._late = late
        self._draw = random.Random(seed)
        self._hidden = set()
        self.job_ids = sim.job_ids
        for job_id in sim.job_ids:
            sim.jobs.patch(job_id, "*", "PROCESSING")

    async def run(self):
        await until(lambda: all(map(self._seen, self.job_ids)))
        self._set_faults()
        async with anyio.create_task_group() as tasks:
            for job_id in self.job_ids:
                tasks.start_soon(self._trouble, job_id)
            if self._late:
                tasks.start_soon(self._bring_late_jobs)
        self.told = True

    async def settle(self):
        """End all jobs, in one stroke each."""
        self.sim.faults.clear()
        for job_id in self.job_ids:
            for task in self.sim.jobs.tasks(job_id):
                if self._status(job_id, task.id) == "PROCESSING":
                    self._change(job_id, task.id, "SUCCESS")
        self.sim.clock.set(speed=100)
        await until(lambda: self._ended() == {*self.job_ids, *self.late_ids})

    def _ended(self):
        return {line["job_id"] for line in self.story.told("job.finished")}

    async def _trouble(self, job_id):
        anchor, *others = [task.id for task in self.sim.jobs.tasks(job_id)]
        while not self.over:
            if self._draw.random() < 0.1:
                await self._vanish(job_id, anchor)
            for task_id in self._draw.sample(others, self._draw.randint(1, 2)):
                now = self._status(job_id, task_id)
                self._change(job_id, task_id, self._draw.choice(others_than(now)))
            await until(lambda: self._all_told(job_id))
            await anyio.sleep(self._draw.random() * 0.3)

    def _seen(self, job_id):
        return bool(self.story.told("job.first_seen", job_id))

    def _status(self, job_id, task_id):
        made = self.changes[job_id, task_id]
        return made[-1][1] if made else "PROCESSING"

    def _change(self, job_id, task_id, word):
        known, before = self._status(job_id, task_id), time.time()
        self.sim.jobs.patch(job_id, task_id, word, f"by hand: {word}")
        self.changes[job_id, task_id].append((known, word, before, time.time()))

    async def _vanish(self, job_id, task_id):
        self.vanished[job_id, task_id] += 1
        self._hidden.add(job_id)
        self._set_faults()
        wanted = self.vanished[job_id, task_id]
        await until(lambda: len(self._vanishings(job_id, task_id)) == wanted)
        self._hidden.discard(job_id)
        self._set_faults()

    def _vanishings(self, job_id, task_id):
        lines = self.story.told("task.vanished", job_id)
        return [line for line in lines if line["task_id"] == task_id]

    def _set_faults(self):
        rules = [f"vanish:job={job_id}" for job_id in sorted(self._hidden)]
        rules += [
            f"{kind}:job={job_id},percent={percent}"
            for job_id in self.job_ids
            for kind, percent in SPOILT.items()
        ]
        self.sim.faults.replace(";".join(rules))

    async def _bring_late_jobs(self):
        while not self.over:
            await anyio.sleep(2.0)
            kind = self._draw.choice(["LOG_COLLECT", "ASCEND_SOFTWARE_QUERY"])
            job = self.sim.jobs.create(kind, SERVERS)
            self.late_ids.append(job.id)
            self._late(self.late_ids)

    def _all_told(self, job_id):
        told = defaultdict(int)
        for line in self.story.told("task.transition", job_id):
            told[line["job_id"], line["task_id"]] += 1
        return all(
            told[key] == len(made)
            for key, made in self.changes.items()
            if key[0] == job_id
        )

    def check(self, told):
        """Each change was told once, in order, and dated right."""
        by_task, by_job = defaultdict(list), defaultdict(list)
        for line in told:
            by_job[line["job_id"]].append(line)
            if line["event"] == "task.transition":
                by_task[line["job_id"], line["task_id"]].append(line)
        for key, made in self.changes.items():
            lines = by_task.pop(key)
            assert [(x["from"], x["to"]) for x in lines] == [x[:2] for x in made]
            for line, (_, _, earliest, latest) in zip(lines, made, strict=True):
                assert seconds(line["not_before"]) <= latest + 0.002
                assert seconds(line["observed_at"]) >= earliest - 0.002
        for job_id in self.late_ids:
            for each in self.sim.jobs.truth(job_id).transitions:
                lines = by_task.pop((job_id, each.task_id))
                words = [(line["from"], line["to"]) for line in lines]
                assert words in _lateness(each.to_status)
        assert not by_task
        for task, count in self.vanished.items():
            assert len(self._vanishings(*task)) == count
        self._check_jobs(by_job)

    def _check_jobs(self, by_job):
        truth = self.sim.truth()
        assert by_job.keys() == {*self.job_ids, *self.late_ids}
        for job_id, lines in by_job.items():
            names = [line["event"] for line in lines]
            assert names.count("job.first_seen") == names.count("job.finished") == 1
            assert names[0] == "job.first_seen"
            assert names[-1] == "job.finished"
            assert lines[-1]["phase"] == truth[job_id].phase
            count = lines[0]["abnormal_count"]
            for line in lines:
                if line["event"] == "job.abnormal_count":
                    assert line["from"] == count
                    count = line["to"]
            assert count == truth[job_id].abnormal_count


def _lateness(word):
    """How a task may be told that ends with this word: by when it is first seen."""
    return (
        [("PROCESSING", word)],
        [(None, "PROCESSING"), ("PROCESSING", word)],
        [(None, word)],
    )


def others_than(word):
    return [each for each in WORDS if each != word]


def seconds(text):
    return datetime.fromisoformat(text).timestamp()
