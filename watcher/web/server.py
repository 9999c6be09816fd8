"""Serves whatever pages it is given; knows paths, nothing about jobs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from watcher.ports import Action, Page, Request
from watcher.web.access import (
    LARGEST_BODY,
    Guard,
    authorize,
    check_query,
    read_body,
)
from watcher.web.door import Door, beside, listening
from watcher.web.http import problem, secure
from watcher.web.logins import Logins
from watcher.web.sending import Sender, Turnstile
from watcher.web.web_config import WebConfig

MOST_CONNECTIONS = 1000


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may come in, and how many.

    Attributes:
        token: Returns what actions ask for; None or empty refuses all of them.
        names: What it may be asked by, besides its addresses, in lower case.
        web_config: TLS and users.
        max_connections: At once; fewer where the system allows few open files.
        login_failed: Counts a wrong password.
    """

    token: Callable[[], str | None] = _nothing
    names: Collection[str] = ()
    web_config: WebConfig | None = None
    max_connections: int = MOST_CONNECTIONS
    login_failed: Callable[[], None] = _nothing


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
    rules: Rules = Rules(),
) -> AsyncIterator[tuple[str, int]]:
    """Serve pages as long as the context is open.

    Args:
        pages: Each at its path.
        host: Address to listen on; empty for all interfaces.
        port: 0 for any free one.
        actions: Each at its method and path.
        rules: Who may come in, and how many.

    Yields:
        The address that it listens on.

    Raises:
        OSError: The address cannot be had.
    """
    runner = web.AppRunner(
        _application(pages, actions, rules), logger=_LOGGER, shutdown_timeout=0.5
    )
    async with listening(host or None, port) as sockets:
        await runner.setup()
        assert runner.server is not None  # noqa: S101 - it is set up
        tls = rules.web_config.tls if rules.web_config else None
        door = Door(runner.server, _LOGGER, problem, rules.max_connections, tls)
        try:
            async with beside() as tasks:
                tasks.start_soon(door.sweep)
                tasks.start_soon(door.usher, tasks)
                for each in sockets:
                    tasks.start_soon(door.attend, each)
                bound = sockets[0].getsockname()
                yield bound[0], bound[1]
        finally:
            door.close()
            await runner.cleanup()


def _application(
    pages: Sequence[Page], actions: Sequence[Action], rules: Rules
) -> web.Application:
    turnstile = Turnstile()
    sender = Sender(rules.max_connections, turnstile)
    guard = Guard(
        rules.token,
        rules.names,
        rules.web_config,
        Logins(rules.login_failed),
        turnstile,
    )
    app = web.Application(
        middlewares=[guard.middleware()], client_max_size=LARGEST_BODY
    )
    app.on_response_prepare.append(secure)
    for page in pages:
        app.router.add_get(page.path, partial(_show, sender, page))
    for action in actions:
        carry_out = partial(_carry_out, sender, action, rules.token)
        app.router.add_route(action.method, action.path, carry_out)
    return app


async def _show(
    sender: Sender, page: Page, incoming: web.Request
) -> web.StreamResponse:
    check_query(incoming, page.parameters)
    return await sender.send(incoming, await page.respond(_request(incoming)))


async def _carry_out(
    sender: Sender,
    action: Action,
    token: Callable[[], str | None],
    incoming: web.Request,
) -> web.StreamResponse:
    authorize(incoming, token())
    check_query(incoming, ())
    request = _request(incoming, await read_body(incoming))
    return await sender.send(incoming, await action.respond(request))


def _request(incoming: web.Request, body: bytes = b"") -> Request:
    headers = {name.lower(): value for name, value in incoming.headers.items()}
    params = dict(incoming.match_info)
    return Request(incoming.path, headers, dict(incoming.query), params, body)
