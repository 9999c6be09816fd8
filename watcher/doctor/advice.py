"""What to do about a request that failed; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from watcher.core.errors import (
    ApiError,
    Malformed,
    Refusal,
    Rejected,
    ServerError,
    Throttled,
    Unreachable,
)
from watcher.doctor.findings import Fault

_NO_SUCH_API = re.compile(r"APIGW?\.010[13]")


@dataclass(frozen=True, slots=True)
class Given:
    """What a hint may refer to.

    Attributes:
        where: Path of the target's settings, such as `targets.prod`.
        key_place: Where the credentials came from, in words for "correct it in …".
        kind: The kind of credentials.
        temporary: Whether they end by themselves.
    """

    where: str
    key_place: str
    kind: str
    temporary: bool = False


def fault_of(error: ApiError) -> Fault:
    """Return what kind of failure an error is."""
    if isinstance(error, Unreachable):
        return Fault.UNREACHABLE
    lacking = isinstance(error, Rejected) and error.refusal is Refusal.CREDENTIALS
    return Fault.REFUSED if lacking or is_about_proof(error) else Fault.OTHER


def is_about_proof(error: ApiError) -> bool:
    """Tell whether the API did not take who asks for who they say they are."""
    return isinstance(error, Rejected) and (
        error.status_code == HTTPStatus.UNAUTHORIZED or error.refusal is Refusal.TOKEN
    )


def is_about_permission(error: ApiError | None) -> bool:
    """Tell whether the API knows who asks, and says no."""
    return (
        isinstance(error, Rejected)
        and error.refusal is Refusal.PERMISSION
        and error.error_code is not None
        and error.status_code != HTTPStatus.UNAUTHORIZED
    )


def said(error: ApiError) -> str:
    """Return what the API said, with what its support asks for."""
    marks = [
        error.status_code and f"HTTP {error.status_code}",
        error.error_code,
        error.request_id and f"request id {error.request_id}",
    ]
    shown = ", ".join(mark for mark in marks if mark)
    return f"{error.message} ({shown})" if shown else error.message


def advise(error: ApiError, given: Given) -> str:
    """Return a hint for a failure, in one or two clauses."""
    match error:
        case Rejected():
            return _advise_refused(error, given)
        case Throttled():
            return (
                "wait and try again; lower poll.requests_per_second, and see what else "
                "asks with this account"
            )
        case ServerError():
            return (
                "the service failed on its side: try again later, and give the "
                "request id to its support"
            )
        case Malformed():
            return _advise_malformed(error, given)
        case _:
            return (
                "see whether a firewall or a proxy holds it back, and whether "
                "poll.timeout is long enough"
            )


def _advise_malformed(error: Malformed, given: Given) -> str:
    status = error.status_code or HTTPStatus.OK
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return (
            "redirects are not followed, as they would carry credentials elsewhere: "
            f"write the right address into {given.where}.endpoint, or log in to the "
            "captive portal of this network"
        )
    return (
        "another server answers in the API's place: a captive portal, a proxy's page, "
        f"or a wrong {given.where}.endpoint"
    )


def _advise_refused(error: Rejected, given: Given) -> str:
    if is_about_permission(error) or error.refusal is Refusal.PERMISSION:
        return _advise_permission(error)
    if error.refusal is Refusal.REQUEST:
        return _advise_request(error, given)
    if given.kind == "none":
        return f"the API asks for credentials: set {given.where}.credentials"
    if error.refusal is Refusal.EXPIRED and given.temporary:
        return f"the temporary keys have ended: put new ones into {given.key_place}"
    return _REFUSED[error.refusal].format(place=given.key_place)


_REFUSED: Mapping[Refusal, str] = {
    Refusal.SIGNATURE: (
        "the secret key does not belong to this access key: correct it in {place}; "
        "only if it is right, look for a proxy that changes requests"
    ),
    Refusal.UNKNOWN_KEY: (
        "the access key does not exist: it was deleted, mistyped, or is of another "
        "cloud; correct it in {place}"
    ),
    Refusal.LOCKED: (
        "too many refusals have locked the access key: stop what uses it with a wrong "
        "secret key, wait 5 minutes, and try again"
    ),
    Refusal.EXPIRED: (
        "set this machine's clock (see the step `clock`); if it is right, the keys "
        "were temporary and have ended: put new ones into {place}"
    ),
    Refusal.TOKEN: (
        "the token is of no use for this project: check the project's id and region, "
        "and the login in {place}"
    ),
    Refusal.CREDENTIALS: "correct the credentials in {place}",
}


def _advise_permission(error: Rejected) -> str:
    if error.error_code is None:
        return (
            "a proxy or firewall says so and not the API: let this machine pass there"
        )
    if error.status_code == HTTPStatus.UNAUTHORIZED:
        return "the API does not take this kind of credentials: see its error code"
    return (
        "let an administrator of the account grant this user the right to read "
        "ModelArts DevServer jobs in this project (IAM), or correct the project's id"
    )


def _advise_request(error: Rejected, given: Given) -> str:
    code = error.error_code or ""
    if _NO_SUCH_API.fullmatch(code):
        return (
            "the host is a gateway of the cloud, but of another service or region: "
            f"check {given.where}.region and {given.where}.endpoint"
        )
    if error.status_code is None:
        return f"set {given.where}.project_id"
    return (
        f"check {given.where}.region, {given.where}.endpoint and "
        f"{given.where}.project_id"
    )
