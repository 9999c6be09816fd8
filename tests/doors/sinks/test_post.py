"""One POST against real receivers that refuse in a 200, say too much, or never end."""

from __future__ import annotations

import anyio
import pytest
from aiohttp import web

from tests.doors.sinks.conftest import receiving, talking
from watcher.core.errors import SinkError
from watcher.ports import Undeliverable
from watcher.sinks.post import LARGEST_ANSWER, open_poster

PIECE = b"10000\r\n" + bytes(65536) + b"\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def poster(seconds=5.0):
    return open_poster(seconds, lambda: 0.0)


def refuse(body):
    raise Undeliverable(f"said {len(body)} bytes")


async def test_what_a_kind_says_of_the_body_counts():
    async with receiving() as receiver, poster() as one:

        async def answer(_):
            return web.json_response({"errcode": 1})

        receiver.answer = answer
        with pytest.raises(Undeliverable, match="said 14 bytes"):
            await one.post(receiver.url, b"{}", {}, refuse)
        seen = []
        await one.post(receiver.url, b"{}", {}, seen.append)
    assert seen == [b'{"errcode": 1}']


async def test_of_a_refusal_no_body_is_read():
    async with receiving() as receiver, poster() as one:

        async def answer(_):
            return web.Response(status=500, text="oh")

        receiver.answer = answer
        with pytest.raises(SinkError, match="answered 500"):
            await one.post(receiver.url, b"{}", {}, refuse)


async def test_of_an_answer_without_end_a_part_is_read():
    async def behave(stream):
        await stream.send(HEAD)
        while True:
            await stream.send(PIECE)

    async with talking(behave) as url, poster() as one:
        with anyio.fail_after(2), pytest.raises(Undeliverable, match="said 65536 "):
            await one.post(url, b"{}", {}, refuse)
    assert LARGEST_ANSWER == 65536


async def test_the_time_for_a_request_covers_its_answer():
    async def behave(stream):
        await stream.send(HEAD + b"1\r\n{\r\n")
        await anyio.sleep_forever()

    async with talking(behave) as url, poster(0.2) as one:
        with anyio.fail_after(2), pytest.raises(SinkError, match="in time"):
            await one.post(url, b"{}", {}, refuse)


async def test_an_answer_that_breaks_off_is_none():
    async def behave(stream):
        await stream.send(HEAD + b"5\r\n{")

    async with talking(behave) as url, poster() as one:
        with pytest.raises(SinkError, match="no answer"):
            await one.post(url, b"{}", {}, refuse)
