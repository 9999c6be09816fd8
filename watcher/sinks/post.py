"""One POST, bounded in time and size, and what its answer means for an event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp

from watcher.core.errors import SinkError
from watcher.core.retry_after import retry_after
from watcher.ports import Mendable, Postponed, Undeliverable

LARGEST_ANSWER = 65_536
MENDABLE = frozenset({401, 403, 404})
PASSING = frozenset({408, 425, 429})


def judge(status: int, headers: Mapping[str, str], now: float) -> None:
    """Say what an answer means; nothing for a 2xx.

    Raises:
        Undeliverable: It will never be taken.
        Mendable: Not before somebody mends what is sent, or where to.
        Postponed: Not before the time that the receiver gave.
        SinkError: Not now.
    """
    what = f"answered {status}"
    match status // 100:
        case 2:
            return
        case 4 if status in MENDABLE:
            raise Mendable(what)
        case 4 if status not in PASSING:
            raise Undeliverable(what, status_code=status)
    pause = retry_after(headers, now)
    raise SinkError(what) if pause is None else Postponed(what, retry_after=pause)


@asynccontextmanager
async def open_poster(
    seconds: float, now: Callable[[], float]
) -> AsyncIterator[Poster]:
    """Open connections for one sink.

    Args:
        seconds: Time for one request and its answer, from end to end.
        now: Wall clock, Unix seconds.
    """
    session = aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "devserver-watcher", "Accept-Encoding": "identity"},
        auto_decompress=False,
    )
    async with session:
        yield Poster(session, now)


class Poster:
    """Posts for one sink: follows no redirect, and no message of it holds the URL."""

    def __init__(
        self, session: aiohttp.ClientSession, now: Callable[[], float]
    ) -> None:
        self._session = session
        self._now = now

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        accept: Callable[[bytes], None] | None = None,
    ) -> None:
        """Post, and return once it is taken.

        Args:
            url: May hold a secret in its path or query.
            body: What is sent.
            headers: What is sent with it.
            accept: Called with the body of a 2xx answer, cut at 64 KiB, where the
                receiver refuses in it; raises what `judge` does. None: it is not read,
                since it says nothing and may not end.

        Raises:
            SinkError: Not taken; see `judge`.
        """
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                judge(response.status, response.headers, self._now())
                if accept is not None:
                    accept(await _read(response.content))
        except TimeoutError as error:
            raise SinkError("no answer in time") from error
        except aiohttp.ClientConnectorError as error:  # names the host, not the URL
            raise SinkError(str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise SinkError(f"no answer: {type(error).__name__}") from error


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_chunked(LARGEST_ANSWER):
        body += chunk
        if len(body) >= LARGEST_ANSWER:
            break
    return bytes(body[:LARGEST_ANSWER])
