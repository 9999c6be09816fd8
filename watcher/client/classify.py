"""Reads an error answer as one of the failures that the watcher names; pure.

HTTP status alone says little in this service, where a missing job is a 400 and an
unauthorised account a 500, so status, code and, for a refused key, text decide together.

Source: ModelArts API reference, "Error Codes"; API request signing guide, "Error Codes"
and "FAQs".
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from watcher.core.errors import (
    ApiError,
    JobNotFound,
    Malformed,
    Refusal,
    Rejected,
    ServerError,
    Throttled,
)
from watcher.core.retry_after import retry_after

LONGEST_MESSAGE = 256
LONGEST_CODE = 64
_LARGEST_ERROR_BODY = 65_536
_OBJECTS_TO_SEARCH = 64

_SHAPES = (
    ("error_code", ("error_msg",)),
    ("errorCode", ("errorMsg", "errorMessage")),
    ("code", ("message",)),
)
_GATEWAY = re.compile(r"APIGW?\.(\d+)")
_NO_JOB = frozenset(f"ModelArts.{n}" for n in ("6404", "0102", "6309", "7005"))
_NO_ACCOUNT = "ModelArts.0109"
_THROTTLES = frozenset(
    {
        "APIGW.0308",
        *(f"ModelArts.{n}" for n in ("2799", "4206", "4395", "6101", "72060075")),
    }
)
_TOKENS = frozenset(
    {"APIGW.0307", "ModelArts.6401", *(f"ModelArts.0{n}" for n in range(201, 213))}
)
_TEXTS = (
    ("reach the limit", Refusal.LOCKED),
    ("signature expired", Refusal.EXPIRED),
    ("ak not exist", Refusal.UNKNOWN_KEY),
    ("get secretkey failed", Refusal.UNKNOWN_KEY),
    ("aksk signature fail", Refusal.SIGNATURE),
    ("token", Refusal.TOKEN),
)


@dataclass(frozen=True, slots=True)
class _Problem:
    """What an error body says; the code in its `APIGW.` spelling."""

    code: str | None
    shown_code: str | None
    text: str


def classify(
    status: int, headers: Mapping[str, str], body: bytes, now: float
) -> ApiError:
    """Return the failure that an answer other than 200 stands for.

    Args:
        status: HTTP status.
        headers: By name, in any case.
        body: The whole body; credentials are masked already.
        now: Unix seconds, to read a Retry-After date where the answer has no Date.

    Returns:
        An error whose message is the API's own text, on one line of at most 256
        characters. `retry_after` is at most one hour, None where it makes no sense.
    """
    problem = _read(body)
    error = _name(status, problem)
    error.status_code = status
    error.error_code = problem.shown_code
    error.request_id = request_id_of(headers)
    error.retry_after = retry_after(headers, now)
    return error


def not_about_a_job(error: JobNotFound) -> Rejected:
    """Return what a "not found" means for a call that names no job."""
    return Rejected(error.message, **error.details)


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return what the cloud's support asks for, cut at 64 characters."""
    found = (v for name, v in headers.items() if name.lower() == "x-request-id")
    return one_line(next(found, ""), LONGEST_CODE) or None


def one_line(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """Cut a foreign text and replace what could forge a log line or steer a terminal."""
    shown = (
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}"
        for c in text.strip()[:longest]
    )
    return "".join(shown).strip()


def _name(status: int, problem: _Problem) -> ApiError:
    code, text = problem.code, problem.text
    said = one_line(text) or f"HTTP {status} without a word of explanation"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Rejected(said, refusal=_refusal(status, code, text))
    if status == HTTPStatus.TOO_MANY_REQUESTS or code in _THROTTLES:
        return Throttled(said)
    if (status, code) == (HTTPStatus.INTERNAL_SERVER_ERROR, _NO_ACCOUNT):
        return Rejected(said, refusal=Refusal.PERMISSION)
    if (
        status >= HTTPStatus.INTERNAL_SERVER_ERROR
        or status == HTTPStatus.REQUEST_TIMEOUT
    ):
        return ServerError(said)
    if status >= HTTPStatus.BAD_REQUEST:
        return _name_client_error(status, code, said)
    redirected = status >= HTTPStatus.MULTIPLE_CHOICES
    what = "redirect, which is not followed" if redirected else "status"
    return Malformed(f"unexpected HTTP {status} {what}")


def _name_client_error(status: int, code: str | None, said: str) -> ApiError:
    missing = status == HTTPStatus.NOT_FOUND
    if missing and code is None:
        return Malformed(one_line(f"HTTP 404, but no answer of the API: {said}"))
    # A gateway's own code says that host or path is wrong, never that a job is gone.
    if missing and code is not None and not code.startswith("APIGW."):
        return JobNotFound(said)
    if status == HTTPStatus.BAD_REQUEST and code in _NO_JOB:
        return JobNotFound(said)
    return Rejected(said, refusal=_refusal(status, code, ""))


def _refusal(status: int, code: str | None, text: str) -> Refusal:
    if code in _TOKENS:
        return Refusal.TOKEN
    if status == HTTPStatus.FORBIDDEN:
        return Refusal.PERMISSION
    if status != HTTPStatus.UNAUTHORIZED:
        return Refusal.REQUEST
    # The answer may echo our canonical request, whose header names hold such words
    # too, so the one that stands first decides.
    lower = text.lower()
    found = [(lower.index(part), kind) for part, kind in _TEXTS if part in lower]
    if found:
        return min(found, key=lambda hit: hit[0])[1]
    return Refusal.SIGNATURE if code == "APIGW.0301" else Refusal.PERMISSION


def _read(body: bytes) -> _Problem:
    text = body[:_LARGEST_ERROR_BODY].decode("utf-8", "replace").lstrip("\ufeff")
    try:
        found = _search(json.loads(text))
    except (ValueError, RecursionError):
        found = None
    if found is None:
        return _Problem(None, None, text)
    code, message = found
    gateway = _GATEWAY.fullmatch(code)
    return _Problem(
        code=f"APIGW.{gateway[1]}" if gateway else code,
        shown_code=one_line(code, LONGEST_CODE) or None,
        text=message,
    )


def _search(value: object) -> tuple[str, str] | None:
    """Find code and message, in the order of shapes, the outermost object first."""
    queue = deque([value])
    for _ in range(_OBJECTS_TO_SEARCH):
        if not queue:
            break
        value = queue.popleft()
        if not isinstance(value, dict):
            continue
        for code_name, text_names in _SHAPES:
            code = value.get(code_name)
            text = next((value[name] for name in text_names if name in value), None)
            # `code` alone is a word of many vocabularies; the other names are not.
            silent = text is None and code_name != "code"
            if (
                code
                and isinstance(code, str | int)
                and (silent or isinstance(text, str))
            ):
                return str(code), text or ""
        queue.extend(value.values())
    return None
