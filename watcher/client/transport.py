"""One HTTP exchange: sends, waits no longer than told, reads no more than told.

Knows nothing of jobs or keys; turns every way in which a connection can fail into
`Unreachable`. No aiohttp exception leaves this module, not even as a cause: some hold
the headers of the request.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import anyio
import structlog
from yarl import URL

from watcher import __version__
from watcher.client.endpoint import check_endpoint
from watcher.client.signing import Call, canonical_query
from watcher.core.errors import Malformed, Unreachable
from watcher.files import file_state

log = structlog.get_logger()

_Result = TypeVar("_Result")

BODY_LIMIT = 32 * 1024 * 1024
LARGE = 512 * 1024
"""Bytes; what is larger is read one answer after the other, and beside the loop."""
_KEEPALIVE = 75.0
_LONGEST_HEADER = 65_536  # an IAM token may take several times aiohttp's 8 KiB

# The first that fits: each class stands before those that it is one of.
_SENTENCES: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "the name of {host} cannot be resolved"),
    (
        aiohttp.ClientConnectorCertificateError,
        "the TLS certificate of {host} is not trusted{why}",
    ),
    (
        aiohttp.ClientProxyConnectionError,
        "cannot connect to the proxy on the way to {host}{why}",
    ),
    (aiohttp.ClientHttpProxyError, "the proxy on the way to {host} refused to connect"),
    (aiohttp.ClientSSLError, "the TLS handshake with {host} failed{why}"),
    (aiohttp.ClientConnectorError, "cannot connect to {host}{why}"),
    (
        aiohttp.ServerDisconnectedError,
        "{host} closed the connection without an answer",
    ),
    (aiohttp.ClientPayloadError, "the answer of {host} broke off"),
    (aiohttp.ClientResponseError, "{host} does not answer in HTTP"),
    (OSError, "the connection to {host} broke{why}"),
)


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach a host.

    Attributes:
        origin: Scheme, host and port, such as `https://host:8443`.
        timeout: Seconds for one exchange, from connecting to the last byte.
        body_limit: Largest answer that is read, in bytes.
        tls: Trust of its own, or None for the process's.
        proxy: Address of the proxy on the way, or None.
        large: Its turn for an answer that is large: one at a time.
    """

    origin: str
    timeout: float
    body_limit: int = BODY_LIMIT
    tls: Trust | None = None
    proxy: str | None = field(default=None, repr=False)
    large: anyio.Lock = field(default_factory=anyio.Lock, repr=False, compare=False)

    @property
    def host(self) -> str:
        """Return the Host header: the name, with the port where the origin has one."""
        return _host_of(self.origin)


@lru_cache(maxsize=256)
def _host_of(origin: str) -> str:
    return urlsplit(origin).netloc.lower()


_url = lru_cache(maxsize=2048)(partial(URL, encoded=True))
"""Of a text that is encoded as it is to be sent; most are sent again and again."""


def route_to(
    address: str,
    timeout: float,
    body_limit: int = BODY_LIMIT,
    tls: Trust | None = None,
) -> Route:
    """Return the way to an address that credentials are sent to.

    It leads through the proxy that `HTTPS_PROXY` names, unless `NO_PROXY` excepts it.

    Raises:
        ValueError: Credentials may not be sent there, or the proxy is none for HTTP.
    """
    origin = check_endpoint(address)
    parts = urlsplit(origin)
    proxy = getproxies().get("https") if parts.scheme == "https" else None
    if proxy and proxy_bypass(parts.netloc):
        proxy = None
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if proxy and urlsplit(proxy).scheme not in {"http", "https"}:
        raise ValueError("the proxy in HTTPS_PROXY must begin with http:// or https://")
    return Route(origin, timeout, body_limit, tls, proxy or None)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, whatever its status.

    Attributes:
        headers: Names may be looked up in any case.
        place: What an answer that is large keeps taken until this is closed, which may
            raise `Unreachable`: others that waited were given it. None: it is not large.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    place: AsyncExitStack | None = field(default=None, repr=False)


def open_session() -> aiohttp.ClientSession:
    """Open the connections that all targets share; close it with `async with`.

    There are as many as requests on their way: each target has a limit of its own.
    """
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=_KEEPALIVE,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None),
        auto_decompress=False,
        max_field_size=_LONGEST_HEADER,
        headers={
            "User-Agent": f"devserver-watcher/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        },
    )


class Trust:
    """The authorities in one PEM file, as it is now.

    A file that cannot be used any more leaves the last ones in force, told once.

    Raises:
        OSError: It cannot be read, or holds no certificate.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._state = file_state(file)
        self._content = file.read_bytes()
        self._context = ssl.create_default_context(cafile=os.fspath(file))

    def context(self) -> ssl.SSLContext:
        """Return what to connect with; the same until the file says something else."""
        state = file_state(self._file)
        if state != self._state:
            self._state = state
            self._look_again()
        return self._context

    def _look_again(self) -> None:
        file = os.fspath(self._file)
        try:
            content = self._file.read_bytes()
            if content == self._content:
                return
            self._context = ssl.create_default_context(cafile=file)
        except OSError as exc:
            log.warning("config.ca_file_invalid", file=file, error=exc.strerror)
        else:
            self._content = content
            log.info("config.ca_file_reloaded", file=file)


trust_in = cache(Trust)
"""Of one file once, so that targets that name it share their connections."""


@cache
def system_trust() -> ssl.SSLContext:
    """Return the trust of the system, made once."""
    return ssl.create_default_context()


async def in_time(route: Route, asking: Awaitable[_Result]) -> _Result:
    """Return what is awaited, unless it takes longer than the route allows.

    Raises:
        Unreachable: It took longer, and was given up.
    """
    # Not the cheaper asyncio.timeout: it gives up a thread that decodes while it works,
    # and with it the count of those that do.
    with anyio.move_on_after(route.timeout):
        return await asking
    raise Unreachable(f"no answer from {route.host} within {route.timeout:g} s")


async def exchange(session: aiohttp.ClientSession, route: Route, call: Call) -> Answer:
    """Send one request and read its answer; no redirect is followed.

    It takes as long as it takes: wrap it, and what belongs to it, in `in_time`.

    Raises:
        Unreachable: No complete answer, or it took too long for others that wait.
        Malformed: The answer is larger than the route allows.
    """
    try:
        return await _exchange(session, route, call)
    except (aiohttp.ClientError, OSError, UnicodeError) as exc:
        failure = Unreachable(_explain(exc, call.host))
    raise failure


async def _exchange(session: aiohttp.ClientSession, route: Route, call: Call) -> Answer:
    query = canonical_query(call.query)
    url = _url(f"{route.origin}{call.path}{'?' if query else ''}{query}")
    async with session.request(
        call.method,
        url,
        headers=call.headers,
        data=call.body or None,
        allow_redirects=False,
        ssl=route.tls.context() if route.tls else True,
        proxy=route.proxy,
    ) as response:
        body = _Body(min(LARGE, route.body_limit))
        if await body.read(response):
            return Answer(response.status, response.headers, body.whole())
        async with AsyncExitStack() as place:
            await place.enter_async_context(route.large)
            await place.enter_async_context(large_answers.place())
            body.limit = route.body_limit
            if not await body.read(response):
                raise Malformed(
                    f"the answer is larger than {route.body_limit} bytes",
                    status_code=response.status,
                )
            whole, kept = body.whole(), place.pop_all()
        return Answer(response.status, response.headers, whole, kept)


class _Body:
    """What was read of an answer: at most `limit` bytes, and the chunk that is too much."""

    __slots__ = ("_chunks", "_size", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._chunks: list[bytes] = []
        self._size = 0

    async def read(self, response: aiohttp.ClientResponse) -> bool:
        """Go on reading; return whether all of it is there."""
        while self._size <= self.limit:
            chunk = await response.content.readany()
            if not chunk:
                return True
            self._size += len(chunk)
            self._chunks.append(chunk)
        return False

    def whole(self) -> bytes:
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class LargeAnswers:
    """Places for answers that are large, over all targets.

    Where all are taken, who waits for `patience` seconds gets the one that has been taken
    the longest: a server that sends slowly holds up nobody but itself.
    """

    def __init__(self, places: int, patience: float) -> None:
        self._free = anyio.Semaphore(places)
        self._patience = patience
        self._taken: list[anyio.CancelScope] = []

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Take a place.

        Raises:
            Unreachable: It was given to another.
        """
        await self._wait()
        with anyio.CancelScope() as scope:
            self._taken.append(scope)
            try:
                yield
            finally:
                if scope in self._taken:
                    self._taken.remove(scope)
                self._free.release()
        if scope.cancelled_caught:
            raise Unreachable("a large answer came too slowly, while others waited")

    async def _wait(self) -> None:
        while True:
            with anyio.move_on_after(self._patience):
                await self._free.acquire()
                return
            if self._taken:
                self._taken.pop(0).cancel()


large_answers = LargeAnswers(places=4, patience=2.0)
"""Of the whole process, as its memory is: four of `BODY_LIMIT` at once."""


def _explain(exc: BaseException, host: str) -> str:
    for kind, sentence in _SENTENCES:
        if isinstance(exc, kind):
            return sentence.format(host=host, why=_why(exc))
    return f"the request to {host} failed ({type(exc).__name__})"


def _why(exc: BaseException) -> str:
    cause = getattr(exc, "certificate_error", None) or getattr(exc, "os_error", exc)
    words = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    return f": {words}" if isinstance(words, str) else ""
