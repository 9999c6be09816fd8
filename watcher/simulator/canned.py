"""Faults that answer in the service's place, before anything is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from watcher.simulator.answers import (
    HTML,
    Answer,
    RawRequest,
    error,
    no_such_job,
    throttled,
    token_outdated,
    unauthorized,
    unknown_api,
)
from watcher.simulator.faults import Fault
from watcher.simulator.gateway import EXPIRED, LOCKED, unknown_key


class Incident(NamedTuple):
    """A request on which a fault happens.

    Attributes:
        access_key: The one that the request names.
        secret: The secret key that belongs to it, where it is known.
    """

    fault: Fault
    request: RawRequest
    job_id: str
    access_key: str
    secret: str | None


def _page(status: int, title: str) -> Answer:
    text = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{title}</h1></center>\r\n<hr><center>nginx</center>\r\n"
        "</body>\r\n</html>\r\n"
    )
    return Answer(status, text.encode(), HTML)


def _redirect(incident: Incident) -> Answer:
    page = _page(302, "302 Found")
    return Answer(302, page.body, HTML, {"Location": incident.fault.location})


def _missing(incident: Incident) -> Answer:
    return Answer(404, no_such_job(incident.job_id).body)


def _login_page(_: Incident) -> Answer:
    form = b'<html><body><form action="/login">Please log in.</form></body></html>'
    return Answer(200, form, HTML)


def _echo(incident: Incident) -> Answer:
    names = ("authorization", "x-security-token", "x-auth-token")
    headers = incident.request.headers
    quoted = [f"{name}: {headers[name]}" for name in names if name in headers]
    if incident.secret is not None:
        quoted.append(f"secretKey: {incident.secret}")
    return error(
        incident.fault.status,
        "APIGW.0301",
        "Incorrect IAM authentication information: verify aksk signature fail, "
        + "|".join(quoted),
    )


CANNED: Mapping[str, Callable[[Incident], Answer]] = {
    "429": lambda incident: throttled(5, incident.fault.retry_after),
    "500": lambda _: error(500, "ModelArts.0010", "Internal error."),
    "502_html": lambda _: _page(502, "502 Bad Gateway"),
    "503": lambda _: error(503, "APIGW.0613", "The IAM service is unavailable."),
    "504": lambda _: error(504, "APIGW.0201", "Backend timeout."),
    "403": lambda _: error(
        403, "APIGW.0302", "The IAM user is not authorized to access the API."
    ),
    "404_html": lambda _: _page(404, "404 Not Found"),
    "404_apigw": lambda _: unknown_api(),
    "404_json": _missing,
    "gone": lambda incident: no_such_job(incident.job_id),
    "302": _redirect,
    "bad_signature": lambda _: unauthorized("verify aksk signature fail"),
    "unknown_key": lambda incident: unauthorized(unknown_key(incident.access_key)),
    "expired": lambda _: unauthorized(EXPIRED),
    "locked": lambda _: unauthorized(LOCKED),
    "token_expired": lambda _: token_outdated(),
    "echo_secret": _echo,
    "not_json": lambda _: Answer(200, b"OK: see /status\n"),
    "html_200": _login_page,
    "empty_200": lambda _: Answer(200, b""),
}
"""By kind of fault, its answer."""
