"""Serves whatever pages it is given; knows paths and encodings, nothing about jobs."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from watcher.ports import Page, Request, Response

_SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "devserver-watcher",
}
_GZIP = 16 + zlib.MAX_WBITS


@asynccontextmanager
async def serve(
    pages: Sequence[Page], host: str, port: int
) -> AsyncIterator[tuple[str, int]]:
    """Serve pages as long as the context is open.

    Args:
        pages: Each at its path.
        host: Address to listen on; empty for all interfaces.
        port: 0 for any free one.

    Yields:
        The address that it listens on.

    Raises:
        OSError: The address cannot be had.
    """
    app = web.Application()
    for page in pages:
        app.router.add_get(page.path, _handler(page))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host or None, port, reuse_address=True)
        await site.start()
        bound = runner.addresses[0]
        yield bound[0], bound[1]
    finally:
        await runner.cleanup()


def _handler(page: Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(incoming: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in incoming.headers.items()}
        answer = await page.respond(
            Request(incoming.path, headers, dict(incoming.query))
        )
        return await _send(incoming, answer)

    return handle


async def _send(incoming: web.Request, answer: Response) -> web.StreamResponse:
    outgoing = web.StreamResponse(
        status=answer.status, headers={**_SECURITY, **answer.headers}
    )
    outgoing.headers["Content-Type"] = answer.content_type
    outgoing.headers["Vary"] = "Accept, Accept-Encoding"
    gzip = "gzip" in incoming.headers.get("Accept-Encoding", "")
    if gzip:
        outgoing.headers["Content-Encoding"] = "gzip"
    await outgoing.prepare(incoming)
    if incoming.method == "HEAD":
        return outgoing
    packer = zlib.compressobj(1, wbits=_GZIP) if gzip else None
    async for chunk in _chunks(answer):
        packed = packer.compress(chunk) if packer else chunk
        if packed:
            await outgoing.write(packed)
    if packer:
        await outgoing.write(packer.flush())
    await outgoing.write_eof()
    return outgoing


async def _chunks(answer: Response) -> AsyncIterator[bytes]:
    if isinstance(answer.body, AsyncIterator):
        async for chunk in answer.body:
            yield chunk
    else:
        for chunk in answer.body:
            yield chunk
