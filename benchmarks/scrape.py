"""What a scrape costs, against an exporter made of prometheus_client's own collectors.

    python -m benchmarks.scrape

1,000 jobs of 100 tasks, 114,000 samples. In one process and in turn, CPU of its thread:
the page that the daemon serves, and a collector that makes the same samples.
"""

import asyncio
import gzip
import statistics
import time
from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.row import HEADER, Row
from watcher.core.model import Job, JobKey, JobRecord, Phase, Task
from watcher.pages.metrics import MetricsPage
from watcher.polling.board import Board
from watcher.ports import Request

JOBS, TASKS = 1000, 100


def record(number, tasks=TASKS):
    job = f"job-{number}"
    return JobRecord(
        JobKey("prod", job),
        project_id="p",
        phase=Phase.ACTIVE,
        job=Job(job, "PROCESSING", 0, "query", "ASCEND_SOFTWARE_QUERY", created_at=1e9),
        tasks=tuple(
            Task(
                f"t{each}",
                "PROCESSING",
                f"s{each}",
                f"liteserver-a2-aiserver-{each:04}",
                f"c{each}",
                "BMS",
                "",
                1757558550.733,
                1757558564.47,
            )
            for each in range(tasks)
        ),
        last_success_at=1e9,
    )


class Collector:
    """The samples of a page, as prometheus_client makes them at each scrape."""

    def __init__(self, text):
        self.families = [
            (each.name, each.documentation, each.samples)
            for each in text_string_to_metric_families(text)
            if each.name.startswith("devserver_")
        ]

    def collect(self):
        for name, documentation, samples in self.families:
            labels = list(samples[0].labels) if samples else []
            family = GaugeMetricFamily(name, documentation, labels=labels)
            for sample in samples:
                family.add_metric(list(sample.labels.values()), sample.value)
            yield family


async def body(page, *, packed):
    headers = {"accept-encoding": "gzip"} if packed else {}
    answer = await page.respond(Request("/metrics", headers))
    return [chunk async for chunk in answer.body]


async def costs(times):
    """Return CPU seconds by name, and the longest that the loop was held."""
    board = Board()
    page = MetricsPage(board)
    page.configure("all", 10**9)
    records = [record(number) for number in range(JOBS)]
    board.show(records)
    held = await held_while(body(page, packed=True))
    registry = CollectorRegistry()
    text = b"".join(await body(page, packed=False)).decode()
    registry.register(Collector(text))
    spent = {name: [] for name in ("packed", "plain", "peer", "peer gzip")}
    for turn in range(times):
        for name in ("packed", "plain"):
            at = 1e9 + 2 * turn + (name == "plain")
            board.show(replace(each, last_success_at=at) for each in records)
            began = time.thread_time()
            await body(page, packed=name == "packed")
            spent[name].append(time.thread_time() - began)
        began = time.thread_time()
        plain = generate_latest(registry)
        spent["peer"].append(time.thread_time() - began)
        gzip.compress(plain)
        spent["peer gzip"].append(time.thread_time() - began)
    return {name: statistics.median(each) for name, each in spent.items()}, held


async def held_while(work):
    """Return the longest CPU time that the loop spent in one turn meanwhile."""
    longest, done = 0.0, False

    async def turn():
        nonlocal longest
        last = time.thread_time()
        while not done:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(turn())
        await asyncio.sleep(0)
        await work
        done = True
    return longest


def rows(hasty):
    spent, held = asyncio.run(costs(2 if hasty else 7))
    packed, plain = spent["packed"], spent["plain"]
    work = f"scrape of {JOBS * (TASKS + 14):,} samples"
    yield Row(
        f"{work}, gzip, steady",
        100.0,
        "times cheaper than prometheus_client + gzip",
        spent["peer gzip"] / packed,
        least=True,
        note=f"{1e3 * packed:.1f} ms against {1e3 * spent['peer gzip']:.0f}",
        tried="Jobs stand in blocks of some 512 samples; each part is a gzip member by isal "
        "that is kept until one of its jobs changes. Every job was looked at and had not "
        "changed since the scrape before; the HTTP server is not in it.",
    )
    yield Row(
        f"{work}, plain, steady",
        100.0,
        "times cheaper than prometheus_client",
        spent["peer"] / plain,
        least=True,
        note=f"{1e3 * plain:.1f} ms against {1e3 * spent['peer']:.0f}",
    )
    yield Row(
        f"{work}, gzip, the first", 5.0, "ms for which it holds the loop", 1e3 * held
    )


if __name__ == "__main__":
    print(HEADER)
    for row in rows(hasty=False):
        print(row.line())
