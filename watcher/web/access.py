"""Who gets to see a page or to change something, and what is sent where not.

Pages are shown to everybody, unless the web configuration names users. Actions need the
API token in the Authorization header, which no other site can make a browser send; it
also stands for a user, since a request has one such header only.

Source: RFC 6750 (bearer tokens), RFC 7617 (basic authentication).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import anyio
from aiohttp import web
from aiohttp.typedefs import Middleware

from watcher.encoding import encode_json
from watcher.web.web_config import WebConfig

LARGEST_BODY = 64 * 1024
BODY_TIMEOUT = 10.0

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; "
        "require-trusted-types-for 'script'; trusted-types 'none'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "devserver-watcher",
}
"""Headers of every answer."""

Token = Callable[[], str | None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):  # noqa: N818
    """A request that goes no further; answered with one line of JSON.

    Attributes:
        status: HTTP status.
        challenge: Scheme of the Authorization header that is asked for, or None.
    """

    def __init__(self, status: int, text: str, challenge: str | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.challenge = challenge


def guard(token: Token, web_config: WebConfig | None) -> Middleware:
    """Make what every request goes through.

    Args:
        token: Returns the API token, or None.
        web_config: Says which users are let in; None lets everybody in.
    """

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if web_config is not None and not _bears(request, token()):
                await _admit(request, web_config)
            return await handler(request)
        except Refused as exc:
            asked = f'{exc.challenge} realm="devserver-watcher"'
            headers = {"WWW-Authenticate": asked} if exc.challenge else {}
            return _problem(exc.status, str(exc), headers)
        except web.HTTPException as exc:  # no such path or method, or too large
            kept = {name: exc.headers[name] for name in exc.headers if name == "Allow"}
            return _problem(exc.status, HTTPStatus(exc.status).phrase, kept)

    return guarded


async def _admit(incoming: web.Request, web_config: WebConfig) -> None:
    if not await web_config.admits(incoming.headers.get("Authorization")):
        raise Refused(401, "needs a user and a password", "Basic")


def authorize(incoming: web.Request, token: str | None) -> None:
    """Let a request pass that shows the API token.

    Raises:
        Refused: It shows none or another, or there is none that it could show.
    """
    if not token:
        raise Refused(403, "server.api_token is not set: nothing can be changed here")
    if not _bears(incoming, token):
        raise Refused(401, "needs Authorization: Bearer and the API token", "Bearer")


def _bears(incoming: web.Request, token: str | None) -> bool:
    scheme, _, given = incoming.headers.get("Authorization", "").partition(" ")
    if not token or scheme.lower() != "bearer":
        return False
    shown = given.strip().encode("utf-8", "surrogateescape")
    return hmac.compare_digest(shown, token.encode())


def _problem(status: int, text: str, headers: dict[str, str]) -> web.Response:
    body = encode_json({"error": text}) + b"\n"
    headers = {**SECURITY, "Content-Type": "application/json", **headers}
    return web.Response(status=status, body=body, headers=headers)


async def read_body(incoming: web.Request) -> bytes:
    """Read the JSON that a request carries, or nothing.

    Only a request that browsers send to another site after asking it first may carry
    JSON, so that a form on a foreign page gets no further.

    Raises:
        Refused: It is not JSON, or does not come in time.
        HTTPException: It is too large.
    """
    if not incoming.can_read_body:
        return b""
    if incoming.content_type != "application/json":
        raise Refused(415, "needs Content-Type: application/json")
    with anyio.move_on_after(BODY_TIMEOUT):
        return await incoming.read()
    raise Refused(408, "the body did not come in time")
