"""How an answer leaves: at once and whole, or as a fault of the connection has it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import anyio
from aiohttp import web

from watcher.simulator.answers import Answer
from watcher.simulator.faults import Fault

CHUNK = 64 * 1024
BIG_BODY = 200_000_000
DEPTH = 100_000
DRIP_SECONDS = 0.5


class Delivery(NamedTuple):
    """An answer on its way to a client.

    Attributes:
        headers: All of them, except what tells the body's length.
    """

    request: web.BaseRequest
    answer: Answer
    headers: Mapping[str, str]
    fault: Fault


def plain(answer: Answer, headers: Mapping[str, str]) -> web.Response:
    """Return the answer as it should be."""
    return web.Response(status=answer.status, body=answer.body, headers=headers)


async def _hang(delivery: Delivery) -> web.StreamResponse:
    seconds = delivery.fault.seconds
    await (anyio.sleep_forever() if seconds is None else anyio.sleep(seconds))
    return plain(delivery.answer, delivery.headers)


async def _reset(delivery: Delivery) -> web.StreamResponse:
    transport = delivery.request.transport
    if transport is not None:
        # Closing a socket that lingers for no time sends RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()
    return plain(delivery.answer, delivery.headers)


async def _slow_drip(delivery: Delivery) -> web.StreamResponse:
    seconds = delivery.fault.seconds
    response = await _begin(delivery, len(delivery.answer.body))
    for byte in delivery.answer.body:
        await anyio.sleep(DRIP_SECONDS if seconds is None else seconds)
        await response.write(bytes([byte]))
    return response


async def _truncated(delivery: Delivery) -> web.StreamResponse:
    body = delivery.answer.body
    response = await _begin(delivery, len(body) + 1)
    await response.write(body[: len(body) // 2])
    if delivery.request.transport is not None:
        delivery.request.transport.close()
    return response


async def _big_body(delivery: Delivery) -> web.StreamResponse:
    size = BIG_BODY if delivery.fault.size is None else delivery.fault.size
    response = await _begin(delivery, None)
    await response.write(delivery.answer.body.removesuffix(b"}") + b', "padding": "')
    for start in range(0, size, CHUNK):
        await response.write(b"x" * min(CHUNK, size - start))
    await response.write(b'"}')
    return response


async def _deep_nesting(delivery: Delivery) -> web.StreamResponse:
    depth = DEPTH if delivery.fault.size is None else delivery.fault.size
    body = delivery.answer.body.removesuffix(b"}")
    nested = body + b', "nested": ' + b"[" * depth + b"]" * depth + b"}"
    return web.Response(
        status=delivery.answer.status, body=nested, headers=delivery.headers
    )


async def _begin(delivery: Delivery, length: int | None) -> web.StreamResponse:
    """Send the head of an answer; a length of None means chunked."""
    response = web.StreamResponse(
        status=delivery.answer.status, headers=delivery.headers
    )
    response.content_length = length
    await response.prepare(delivery.request)
    return response


DELIVERIES: Mapping[str, Callable[[Delivery], Awaitable[web.StreamResponse]]] = {
    "hang": _hang,
    "reset": _reset,
    "slow_drip": _slow_drip,
    "truncated": _truncated,
    "big_body": _big_body,
    "deep_nesting": _deep_nesting,
}
"""By kind of fault, what delivers the answer."""
