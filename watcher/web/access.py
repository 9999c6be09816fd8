"""Who gets to see a page or to change something, and what is sent where not.

Pages are shown to everybody, unless the web configuration names users. Actions need the
API token in the Authorization header, which no other site can make a browser send; it
also stands for a user, since a request has one such header only. The probes say nothing
but whether this process is well, and ask nobody who it is.

Source: RFC 6750 (bearer tokens), RFC 7617 (basic authentication).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address

import anyio
from aiohttp import web
from aiohttp.typedefs import Middleware

from watcher.web.door import visitor_of
from watcher.web.http import Refused, problem
from watcher.web.logins import Logins
from watcher.web.sending import Turnstile
from watcher.web.web_config import WebConfig

LARGEST_BODY = 64 * 1024
BODY_TIMEOUT = 10.0
PROBES = frozenset({"/healthz", "/readyz"})

Token = Callable[[], str | None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Guard:
    """What every request goes through.

    Attributes:
        token: Returns the API token, or None.
        names: What this daemon may be asked by, besides its addresses.
        web_config: Says which users are let in; None lets everybody in.
    """

    token: Token
    names: Collection[str]
    web_config: WebConfig | None
    logins: Logins
    turnstile: Turnstile

    def middleware(self) -> Middleware:
        """Return it in the form that aiohttp wants."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            visitor = visitor_of(request)
            visitor.arrive(with_body=request.can_read_body)
            try:
                await self._admit(request)
                visitor.serve()
                return await handler(request)
            except Refused as exc:
                return problem(exc.status, str(exc), exc.headers)
            except web.HTTPException as exc:  # no such path or method, or too large
                kept = {name: exc.headers[name] for name in exc.headers.keys() & ALLOW}
                return problem(exc.status, HTTPStatus(exc.status).phrase, kept)
            finally:
                visitor.wait()

        return guarded

    async def _admit(self, incoming: web.Request) -> None:
        check_host(incoming, self.names)
        if incoming.path in PROBES:
            return
        if self.web_config and not bears(incoming, self.token()):
            await self._log_in(incoming, self.web_config)
        await self.turnstile.passing()
        if incoming.transport is None:
            raise Refused(408, "gone")

    async def _log_in(self, incoming: web.Request, web_config: WebConfig) -> None:
        compute = partial(
            self.logins.compute,
            visitor_of(incoming).peer,
            lambda: incoming.transport is not None,
        )
        given = incoming.headers.get("Authorization")
        if not await web_config.admits(given, compute):
            raise _unknown("needs a user and a password", "Basic")


ALLOW = {"Allow"}


def check_host(incoming: web.Request, names: Collection[str]) -> None:
    """Let a request pass that asks for this daemon by a name of its own.

    A foreign page can make its own name mean this machine, and then read what it shows;
    an address cannot be made to mean another.

    Raises:
        Refused: It asks for another name.
    """
    given = incoming.headers.get("Host")
    if given is None:  # HTTP/1.0: no browser
        return
    name = host_of(given)
    if name != "localhost" and name not in names and not _is_address(name):
        text = f"'{given[:80]}' is no name of this daemon: server.allowed_hosts"
        raise Refused(421, text)


def host_of(text: str) -> str:
    """Return the name in a Host header, without its port."""
    name, colon, port = text.strip().lower().rpartition(":")
    bare = name if colon and port.isdecimal() else text.strip().lower()
    return bare.removeprefix("[").removesuffix("]").removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def authorize(incoming: web.Request, token: str | None) -> None:
    """Let a request pass that shows the API token.

    Raises:
        Refused: It shows none or another, or there is none that it could show.
    """
    if not token:
        raise Refused(403, "server.api_token is not set: nothing can be changed here")
    if not bears(incoming, token):
        raise _unknown("needs Authorization: Bearer and the API token", "Bearer")


def _unknown(text: str, scheme: str) -> Refused:
    asked = f'{scheme} realm="devserver-watcher"'
    return Refused(401, text, {"WWW-Authenticate": asked})


def bears(incoming: web.Request, token: str | None) -> bool:
    """Whether a request shows the API token."""
    scheme, _, given = incoming.headers.get("Authorization", "").partition(" ")
    if not token or scheme.lower() != "bearer":
        return False
    shown = given.strip().encode("utf-8", "surrogateescape")
    return hmac.compare_digest(shown, token.encode())


def check_query(incoming: web.Request, allowed: Collection[str]) -> None:
    """Let a request pass that asks nothing that is not understood.

    Raises:
        Refused: It has a parameter that would change nothing.
    """
    for name in incoming.query:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            text = f"unknown parameter '{name[:80]}'; this path takes: {known}"
            raise Refused(400, text)


async def read_body(incoming: web.Request) -> bytes:
    """Read the JSON that a request carries, or nothing.

    Only a request that browsers send to another site after asking it first may carry
    JSON, so that a form on a foreign page gets no further.

    Raises:
        Refused: It is not JSON, or packed, or does not come in time.
        HTTPException: It is too large.
    """
    if not incoming.can_read_body:
        return b""
    if incoming.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused(415, "takes no Content-Encoding", {"Accept-Encoding": "identity"})
    if incoming.content_type != "application/json":
        raise Refused(415, "needs Content-Type: application/json")
    with anyio.move_on_after(BODY_TIMEOUT):
        return await incoming.read()
    raise Refused(408, "the body did not come in time")
