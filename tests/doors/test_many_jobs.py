"""A list of 100,000 jobs: what a page of it costs, in time and in memory."""

import gc
import time
import tracemalloc

import pytest

from tests.fakes import START
from watcher.core.model import Job, JobKey, JobRecord, Phase, Task
from watcher.pages.api import JobsPage, Rows
from watcher.polling.board import Board
from watcher.ports import Request

pytestmark = pytest.mark.alone

JOBS = 100_000
MOST_SECONDS = 0.1  # of CPU, so that whoever else works here does not count


def record(number):
    failed = number % 50 == 0
    tasks = tuple(
        Task(
            f"t{number}-{place}",
            "FAILED" if failed and place == 0 else "PROCESSING",
            server_name=f"liteserver-{(number * 4 + place) % 5000:04}",
            message="dcmi initialize failed" if failed and place == 0 else None,
        )
        for place in range(4)
    )
    job = Job(f"job-{number}", name=f"query-{number % 300}", created_at=START + number)
    phase = Phase.FAILED if failed else Phase.ACTIVE
    return JobRecord(JobKey("prod", f"job-{number}"), phase=phase, job=job, tasks=tasks)


@pytest.fixture(scope="module")
def multitude():
    gc.collect()
    gc.disable()  # what is measured is the list, and not the garbage of other tests
    board = Board()
    board.show(map(record, range(JOBS)))
    yield JobsPage(Rows(board, lambda _: 5.0, lambda: START))
    gc.enable()


async def page(jobs, **query):
    """Read a page whole; return its CPU seconds and its size."""
    before = time.process_time()
    response = await jobs.respond(Request("/api/v1/jobs", query=query))
    size = sum([len(chunk) async for chunk in response.body])
    return time.process_time() - before, size


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"limit": "200"},
        {"phase": "failed"},
        {"phase": "deleted"},
        {"sort": "name"},
        {"q": "liteserver-0017"},
        {"q": "DCMI", "limit": "200"},
        {"q": "no such thing"},
        {"q": "job-7777", "target": "prod", "phase": "active"},
    ],
    ids=str,
)
async def test_a_page_takes_a_tenth_of_a_second(multitude, query):
    await page(multitude, **query)  # the first one makes the order
    seconds = min([(await page(multitude, **query))[0] for _ in range(3)])
    assert seconds <= MOST_SECONDS


async def test_a_page_takes_the_memory_of_its_rows(multitude):
    await page(multitude, limit="1000")
    tracemalloc.start()
    _, size = await page(multitude, limit="1000")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 500_000
    assert most < 8e6  # most of it the places that are gone through
