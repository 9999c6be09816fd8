"""What a scrape costs: made once a change, packed once, never long without a pause."""

import asyncio
import gzip
import random
from contextlib import contextmanager
from dataclasses import replace

import anyio
import pytest

from tests.fakes import START
from watcher.core.model import Job, JobKey, JobRecord, Phase, Task
from watcher.pages.metrics import MetricsPage, blocks
from watcher.polling.board import Board
from watcher.ports import Request

GZIP = {"accept-encoding": "gzip"}
JOBS = 200


def record(number, tasks=1, phase=Phase.ACTIVE):
    """A job of so many tasks that was looked at once."""
    return JobRecord(
        JobKey("prod", f"job-{number}"),
        phase=phase,
        job=Job(f"job-{number}", "PROCESSING"),
        tasks=tuple(Task(f"t{each}", "PROCESSING") for each in range(tasks)),
        last_success_at=START,
    )


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def page(board):
    page = MetricsPage(board)
    page.configure("all", 10**6)
    return page


async def scrape(page, headers=GZIP):
    """Return the bytes that the page answers."""
    response = await page.respond(Request("/metrics", headers))
    return b"".join([chunk async for chunk in response.body])


def of_jobs(text):
    """The lines about jobs, in order of their names."""
    return sorted(line for line in text.splitlines() if line.startswith(b"devserver_"))


@contextmanager
def counting(monkeypatch):
    """Count the bytes that are packed of jobs."""
    packed = []

    def member(data):
        packed.append(len(data))
        return gzip.compress(data)

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "gzip_member", member)
        yield packed


async def test_packed_and_plain_are_the_same_over_a_life(board, page):
    chance = random.Random(1)
    alive = {}
    for _ in range(25):
        for _ in range(20):
            number = chance.randrange(JOBS)
            match chance.randrange(4):
                case 0 if number in alive:
                    board.drop([alive.pop(number).key])
                case 1 if number in alive:
                    alive[number] = replace(
                        alive[number], last_success_at=START + chance.random()
                    )
                    board.show([alive[number]])
                case _:
                    tasks = chance.choice([0, 1, 5, 100, 700])
                    alive[number] = record(number, tasks, chance.choice(list(Phase)))
                    board.show([alive[number]])
        packed = of_jobs(gzip.decompress(await scrape(page)))
        afresh = MetricsPage(board)
        afresh.configure("all", 10**6)
        assert (
            packed
            == of_jobs(await scrape(page, {}))
            == of_jobs(await scrape(afresh, {}))
        )
        for block in page._blocks._blocks:
            assert block.records
            assert block.samples <= blocks.FULL or len(block.records) == 1
            assert block.samples == sum(map(blocks._samples, block.records.values()))


async def test_jobs_that_go_leave_room_for_those_that_come(board, page):
    board.show(record(number) for number in range(JOBS))
    await scrape(page)
    before = len(page._blocks._blocks)
    chance, alive = random.Random(1), list(range(JOBS))
    for number in range(JOBS, 10 * JOBS):
        gone = chance.randrange(JOBS)
        board.drop([JobKey("prod", f"job-{alive[gone]}")])
        board.show([record(number)])
        alive[gone] = number
        if number % 10 == 0:
            await scrape(page, {})
    assert len(page._blocks._blocks) <= 2 * before


async def test_a_change_is_packed_once_for_all_scrapers(board, page, monkeypatch):
    board.show(record(number, 20) for number in range(JOBS))
    with counting(monkeypatch) as packed:
        await asyncio.gather(*(scrape(page) for _ in range(3)))
        whole = sum(packed)
        assert whole < 1.1 * len(await scrape(page, {}))
        packed.clear()
        await scrape(page)
        assert not packed
        board.show([record(7, 20, Phase.FAILED)])
        await asyncio.gather(*(scrape(page) for _ in range(3)))
        assert 0 < sum(packed) < whole / 5
        packed.clear()
        board.show([replace(record(8, 20), last_success_at=START + 1)])
        await scrape(page)
        assert 0 < sum(packed) < whole / 20


async def test_only_what_is_asked_for_is_kept(board, page):
    board.show(record(number, 20) for number in range(JOBS))
    await scrape(page)
    kept = page._blocks._blocks
    assert sum(len(part) for block in kept for part in block.packed.values())
    assert {family.name for block in kept for family in block.plain} == {
        "devserver_job_last_success_timestamp_seconds"
    }


async def test_a_large_job_is_made_with_pauses(board, page, monkeypatch):
    monkeypatch.setattr(blocks, "WITHOUT_PAUSE", 0.0)
    board.show([record(0, 5000)])
    turns, done = 0, False

    async def turn():
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(turn)
        await scrape(page)
        done = True
    assert turns > 5000 / 200


async def test_a_large_text_is_packed_with_pauses(board, page, monkeypatch):
    board.show([record(0, 5000)])
    with counting(monkeypatch) as packed:
        await scrape(page)
    assert max(packed) <= blocks.PIECE
    assert len(packed) > 5
