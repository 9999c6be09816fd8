"""An answer as a value, and the errors of gateway and service in their own words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]

JSON = "application/json"
HTML = "text/html"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back, without the headers that every answer has."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request as it came over the wire.

    Attributes:
        target: Path and query, still encoded.
        headers: By lower-case name.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path, still encoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """The query, still encoded."""
        return self.target.partition("?")[2]


def encode(document: object) -> bytes:
    """Return JSON; a lone surrogate becomes the invalid byte that it stands for."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")


def good(document: object, status: int = 200, **headers: str) -> Answer:
    """Return a JSON answer; `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, encode(document), headers=named)


def error(status: int, code: str, message: str) -> Answer:
    """Return an error as gateway and service word it."""
    return good({"error_code": code, "error_msg": message}, status)


def unknown_api() -> Answer:
    """Return the gateway's answer to a path or method that it does not know."""
    return error(
        404,
        "APIGW.0101",
        "The API does not exist or has not been published in the environment",
    )


def no_such_job(job_id: str) -> Answer:
    """Return the service's answer to an unknown job: 400, not 404."""
    return error(400, "ModelArts.6404", f"LiteServer job '{job_id}' not found.")


def bad_parameter(message: str) -> Answer:
    """Return the service's answer to a request that it does not understand."""
    return error(400, "ModelArts.6400", message)


def throttled(limit: int, retry_after: str | None) -> Answer:
    """Return the gateway's answer to one request too many."""
    answer = error(
        429,
        "APIGW.0308",
        "The throttling threshold has been reached: "
        f"policy user over ratelimit,limit:{limit},time:1 second",
    )
    if retry_after is None:
        return answer
    return Answer(429, answer.body, headers={"Retry-After": retry_after})


def unauthorized(reason: str) -> Answer:
    """Return the gateway's refusal of a request's credentials."""
    return error(
        401, "APIGW.0301", f"Incorrect IAM authentication information: {reason}"
    )


def token_outdated() -> Answer:
    """Return the gateway's refusal of a token that was good once."""
    return error(401, "APIGW.0307", "The token must be updated.")
