"""A daemon that comes back to many stored jobs: when it serves, and what they take.

The cloud cannot be reached: nothing but what the store holds is seen.
"""

import asyncio
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import daemon, free_port, settings, wait_for
from benchmarks.row import Row
from benchmarks.scrape import record
from watcher.core.model import Step
from watcher.store.sqlite.store import SqliteStore

KIB = 2**10


def rows(hasty):
    jobs = 10_000 if hasty else 100_000
    with stored(1, 1) as one:
        _, _, idle = one
    with stored(jobs, 1) as many:
        wall, cpu, memory = many
    work = f"start with {jobs:,} stored jobs"
    note = f"{cpu:.1f} s of CPU until then"
    yield Row(work, 5.0, "s until it serves", wall, note=note)
    yield Row(
        f"memory of {jobs:,} one-task jobs, scraped with gzip",
        5.0,
        "KiB each",
        (memory - idle) / jobs / KIB,
    )
    with stored(jobs // 100, 100) as few:
        yield Row(
            f"memory of {jobs:,} tasks in {jobs // 100:,} jobs, scraped with gzip",
            0.8,
            "KiB each",
            (few[2] - idle) / jobs / KIB,
        )


@contextmanager
def stored(jobs, tasks):
    """Yield seconds until `/healthz`, CPU seconds until then, and bytes once scraped."""
    with TemporaryDirectory() as folder:
        store, ids = Path(folder) / "watcher.db", Path(folder) / "jobs.txt"
        asyncio.run(fill(store, jobs, tasks))
        ids.write_text("".join(f"job-{number}\n" for number in range(jobs)))
        poll = {"requests_per_second": 1}
        values = settings(f"http://127.0.0.1:{free_port()}", [], "10m", poll=poll)
        target = values["targets"]["prod"]
        del target["jobs"]
        target["job_files"] = [str(ids)]
        values["store"] = {"url": f"sqlite:///{store}"}
        with daemon(values) as watcher:
            wait_for(f"{watcher.url}/healthz")
            wall, cpu = time.monotonic() - watcher.began, watcher.used
            asked = urllib.request.Request(
                f"{watcher.url}/metrics", headers={"Accept-Encoding": "gzip"}
            )
            urllib.request.urlopen(asked, timeout=120).read()
            yield wall, cpu, watcher.resident


async def fill(path, jobs, tasks):
    store = SqliteStore(path, now=time.time)
    await store.open()
    for start in range(0, jobs, 1000):
        numbers = range(start, min(jobs, start + 1000))
        await store.commit([Step(record(number, tasks)) for number in numbers])
    await store.close()
