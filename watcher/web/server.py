"""Serves whatever pages it is given; knows paths and encodings, nothing about jobs."""

from __future__ import annotations

import logging
import zlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager, suppress

import anyio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from watcher.ports import Action, Page, Request, Response
from watcher.web.access import (
    LARGEST_BODY,
    SECURITY,
    Handler,
    Token,
    authorize,
    guard,
    read_body,
)
from watcher.web.web_config import WebConfig

STALLED_AFTER = 60.0
"""Seconds after which a reader that takes nothing is given up."""

_GZIP = 16 + zlib.MAX_WBITS
_NO_CONTENT = 204


def _no_token() -> None:
    return None


def _is_our_fault(record: logging.LogRecord) -> bool:
    """Whether aiohttp speaks of anything but a request that is none."""
    error = record.exc_info and record.exc_info[1]
    return not isinstance(error, HttpProcessingError)


_LOGGER = logging.getLogger("watcher.web.server")
_LOGGER.addFilter(_is_our_fault)


@asynccontextmanager
async def serve(
    pages: Sequence[Page],
    host: str,
    port: int,
    *,
    actions: Sequence[Action] = (),
    token: Token = _no_token,
    web_config: WebConfig | None = None,
) -> AsyncIterator[tuple[str, int]]:
    """Serve pages as long as the context is open.

    Args:
        pages: Each at its path.
        host: Address to listen on; empty for all interfaces.
        port: 0 for any free one.
        actions: Each at its method and path.
        token: Returns what actions ask for; None or empty refuses all of them.
        web_config: TLS and users.

    Yields:
        The address that it listens on.

    Raises:
        OSError: The address cannot be had.
    """
    app = web.Application(
        middlewares=[guard(token, web_config)], client_max_size=LARGEST_BODY
    )
    for page in pages:
        app.router.add_get(page.path, _show(page))
    for action in actions:
        app.router.add_route(action.method, action.path, _carry_out(action, token))
    runner = web.AppRunner(app, access_log=None, logger=_LOGGER, shutdown_timeout=0.5)
    await runner.setup()
    try:
        tls = web_config.tls if web_config else None
        site = web.TCPSite(
            runner, host or None, port, reuse_address=True, ssl_context=tls
        )
        await site.start()
        bound = runner.addresses[0]
        yield bound[0], bound[1]
    finally:
        await runner.cleanup()


def _show(page: Page) -> Handler:
    async def handle(incoming: web.Request) -> web.StreamResponse:
        return await _send(incoming, await page.respond(_request(incoming)))

    return handle


def _carry_out(action: Action, token: Token) -> Handler:
    async def handle(incoming: web.Request) -> web.StreamResponse:
        authorize(incoming, token())
        request = _request(incoming, await read_body(incoming))
        return await _send(incoming, await action.respond(request))

    return handle


def _request(incoming: web.Request, body: bytes = b"") -> Request:
    headers = {name.lower(): value for name, value in incoming.headers.items()}
    params = dict(incoming.match_info)
    return Request(incoming.path, headers, dict(incoming.query), params, body)


async def _send(incoming: web.Request, answer: Response) -> web.StreamResponse:
    outgoing = web.StreamResponse(
        status=answer.status, headers={**SECURITY, **answer.headers}
    )
    outgoing.headers["Vary"] = "Accept, Accept-Encoding"
    if answer.status != _NO_CONTENT:
        outgoing.headers["Content-Type"] = answer.content_type
    packer = _packer(incoming, answer)
    if packer:
        outgoing.headers["Content-Encoding"] = "gzip"
    await outgoing.prepare(incoming)
    if incoming.method == "HEAD" or answer.status == _NO_CONTENT:
        return outgoing
    with suppress(ConnectionError):  # the reader left
        async with _opened(answer.body) as chunks:
            async for chunk in chunks:
                await _write(incoming, outgoing, packer, chunk)
        if packer:
            await outgoing.write(packer.flush())
        await outgoing.write_eof()
    return outgoing


def _packer(incoming: web.Request, answer: Response) -> zlib._Compress | None:
    accepted = "gzip" in incoming.headers.get("Accept-Encoding", "")
    if not accepted or answer.status == _NO_CONTENT:
        return None
    if answer.content_type == "text/event-stream":
        return None  # what is packed waits for more
    return zlib.compressobj(1, wbits=_GZIP)


async def _write(
    incoming: web.Request,
    outgoing: web.StreamResponse,
    packer: zlib._Compress | None,
    chunk: bytes,
) -> None:
    transport = incoming.transport
    if transport is None:  # the connection is lost
        raise ConnectionResetError
    packed = packer.compress(chunk) if packer else chunk
    if not packed:
        return
    with anyio.move_on_after(STALLED_AFTER) as patience:
        await outgoing.write(packed)
    if patience.cancelled_caught:
        transport.abort()
        raise ConnectionResetError


@asynccontextmanager
async def _opened(
    body: Iterable[bytes] | AsyncIterator[bytes],
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Walk a body in either form, and let it end whatever happens."""
    chunks = body if isinstance(body, AsyncIterator) else _each(body)
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def _each(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
