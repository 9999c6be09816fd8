"""What every answer bears, and how a request is refused."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from watcher.encoding import encode_json

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


class Refused(Exception):  # noqa: N818
    """A request that goes no further; answered with one line of JSON.

    Attributes:
        status: HTTP status.
        headers: What else the answer says.
    """

    def __init__(
        self, status: int, text: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}


def problem(
    status: int, text: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Make the answer to a request that is refused."""
    body = encode_json({"error": text}) + b"\n"
    headers = {**SECURITY, "Content-Type": "application/json", **(headers or {})}
    return web.Response(status=status, body=body, headers=headers)


async def secure(_: web.BaseRequest, answer: web.StreamResponse) -> None:
    """Put on every answer what each must bear, whoever made it."""
    answer.headers.update(SECURITY)
