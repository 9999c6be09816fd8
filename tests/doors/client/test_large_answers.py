"""Answers that are large: beside the loop, one a target, so many over all targets."""

import json
import threading
from contextlib import asynccontextmanager

import anyio
import pytest
from aiohttp import web

from tests.doors.client.servers import JOB, NONE, api, cloud, ok, shared
from watcher.client import transport
from watcher.client.transport import LARGE, LargeAnswers
from watcher.core.errors import ApiError, Malformed, Unreachable
from watcher.core.wire import decode_job

LONGEST_HOLD = (
    0.25  # the machine may be shared; held while all is decoded: 0.6 and more
)
BIG = json.dumps({"id": JOB, "description": "x" * 2 * LARGE}).encode()


@pytest.mark.parametrize(("body", "beside"), [(BIG, True), (BIG[:99] + b'"}', False)])
async def test_what_is_large_is_decoded_beside_the_loop(body, beside, monkeypatch):
    threads = []

    def decode(*given):
        threads.append(threading.current_thread())
        return decode_job(*given)

    monkeypatch.setattr("watcher.client.api.decode_job", decode)
    async with shared() as on, cloud(lambda _r: web.Response(body=body)) as server:
        assert (await api(on, server).fetch(JOB)).job.id == JOB
    assert [thread is not threading.main_thread() for thread in threads] == [beside]


async def test_more_tasks_than_the_target_allows_are_refused():
    tasks = [{"id": str(number)} for number in range(11)]
    async with shared() as on, cloud(lambda _r: ok({"id": JOB, "tasks": tasks})) as s:
        with pytest.raises(Malformed, match="more tasks"):
            await api(on, s, max_tasks=10).fetch(JOB)
        assert len((await api(on, s, max_tasks=11).fetch(JOB)).tasks) == 11


def slowly(begun):
    """Answer with a large body that does not end."""

    async def answer(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(BIG[:-1])
        begun.release()
        await anyio.sleep(60)
        return response

    return answer


@asynccontextmanager
async def slow_targets(on, count):
    """Have so many targets each read a large answer that does not come to an end."""
    begun, ended = anyio.Semaphore(0), []

    async def one(server):
        try:
            await api(on, server, NONE, timeout=30).fetch(JOB)
        except ApiError as error:
            ended.append(error)

    async with cloud(slowly(begun)) as server, anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one, server)
        for _ in range(count):
            await begun.acquire()
        yield ended
        group.cancel_scope.cancel()


async def test_a_slow_answer_of_one_target_does_not_hold_up_another():
    def answer(_request):
        return web.Response(body=BIG)

    async with (
        shared() as on,
        slow_targets(on, 3) as ended,
        cloud(answer) as server,
    ):
        with anyio.fail_after(1):
            await api(on, server).fetch(JOB)
    assert not ended


async def test_where_all_places_are_taken_the_slowest_gives_way(monkeypatch):
    monkeypatch.setattr(transport, "large_answers", LargeAnswers(2, patience=0.1))
    async with shared() as on, slow_targets(on, 2) as ended:
        async with cloud(lambda _r: web.Response(body=BIG)) as server:
            with anyio.fail_after(2):
                for _ in range(3):
                    await api(on, server).fetch(JOB)
        await anyio.wait_all_tasks_blocked()
    (error,) = ended
    assert isinstance(error, Unreachable)
    assert "too slowly" in error.message


async def test_small_answers_need_no_place(monkeypatch):
    monkeypatch.setattr(transport, "large_answers", LargeAnswers(1, patience=60))
    async with shared() as on, slow_targets(on, 1), cloud() as server:
        with anyio.fail_after(1):
            await api(on, server).fetch(JOB)


async def test_one_target_reads_one_large_answer_at_a_time(monkeypatch):
    open_now = most = 0

    class Counted(LargeAnswers):
        @asynccontextmanager
        async def place(self):
            nonlocal open_now, most
            async with super().place():
                open_now += 1
                most = max(most, open_now)
                await anyio.sleep(0.02)
                yield
                open_now -= 1

    monkeypatch.setattr(transport, "large_answers", Counted(4, patience=60))
    async with shared() as on, cloud(lambda _r: web.Response(body=BIG)) as server:
        target, other = api(on, server, NONE), api(on, server, NONE)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                for each in (target, target, target, other):
                    group.start_soon(each.fetch, JOB)
    assert most == 2
