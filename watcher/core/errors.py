"""Every failure the watcher names, as one tree.

WatcherError
├── SettingsError      stop at start, exit 78, no traceback
├── HostError          a passing state of this machine: stop at start, exit 75
├── SourceError        keep the last job set, say so on the edge
├── ApiError           becomes a `PollFailed`
│   ├── Unreachable    DNS, connect, TLS, reset, truncated, time-out
│   ├── Throttled      429 or a throttle code
│   ├── ServerError    5xx
│   ├── Rejected       the request itself was refused: key, permission, host, path
│   ├── JobNotFound    an answer that names the job as missing
│   └── Malformed      not JSON, wrong shape, too large, another job's id
├── StoreError         keep what is pending, retry, announce nothing uncommitted
│   └── LeaseLost      another replica may hold it: stop asking, commit nothing of it
└── SinkError          that sink's own task retries, or gives up what can never be taken
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import ClassVar, TypedDict, Unpack


class Reason(StrEnum):
    """Why a poll failed; the `reason` label and log field."""

    UNREACHABLE = "unreachable"
    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    REJECTED = "rejected"
    NOT_FOUND = "not_found"
    MALFORMED = "malformed"

    @property
    def concerns_target(self) -> bool:
        """Whether the whole target is affected and not one job alone."""
        return self not in {Reason.NOT_FOUND, Reason.MALFORMED}


class Refusal(StrEnum):
    """What exactly was refused, where `Reason.REJECTED` is too coarse to act on."""

    SIGNATURE = "signature"  # wrong secret key, or a proxy changed the request
    UNKNOWN_KEY = "unknown_key"  # the access key does not exist
    LOCKED = "locked"  # too many refusals running; the key is locked for 5 minutes
    EXPIRED = "expired"  # clock skew, or temporary keys past their end
    TOKEN = "token"  # the IAM token is missing, expired or of another project  # noqa: S105
    PERMISSION = "permission"  # known, but not allowed
    REQUEST = "request"  # wrong host, path or form: a configuration fault
    CREDENTIALS = "credentials"  # none could be had, so nothing was sent

    @property
    def concerns_key(self) -> bool:
        """Whether the gateway counts it towards locking the access key."""
        return self in {
            Refusal.SIGNATURE,
            Refusal.UNKNOWN_KEY,
            Refusal.LOCKED,
            Refusal.EXPIRED,
        }


class WatcherError(Exception):
    """The root of the tree."""


class SettingsError(WatcherError):
    """The configuration cannot be used.

    Attributes:
        findings: One line each, `path.of.setting: what is wrong`; never a secret.
    """

    def __init__(self, findings: list[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = findings


class HostError(WatcherError):
    """This machine does not give now what it may give later, such as a port in use."""


class SourceError(WatcherError):
    """A source of job ids could not be read; the last good set stays in force."""


class StoreError(WatcherError):
    """The store could not be opened, read or written."""


class LeaseLost(StoreError):  # noqa: N818
    """Something was to be committed under a lease that is not held any more.

    Nothing of the commit was written.

    Attributes:
        units: Whose lease it was; a target that no lease names stands for itself.
    """

    def __init__(self, units: Collection[str]) -> None:
        super().__init__(
            f"the lease of {', '.join(sorted(units))} is not held any more"
        )
        self.units = frozenset(units)


class SinkError(WatcherError):
    """A sink did not take an event; it is offered again."""


class Details(TypedDict, total=False):
    """What is known of an answer that was no good.

    Attributes:
        status_code: HTTP status, or None when no answer came.
        error_code: The API's own code, such as `APIGW.0301`, where it gave one.
        request_id: The API's X-Request-Id, where it gave one.
        retry_after: Seconds that the server asked us to wait, or None.
    """

    status_code: int | None
    error_code: str | None
    request_id: str | None
    retry_after: float | None


class ApiError(WatcherError):
    """A request to the cloud API that gave no usable answer; has all of `Details`."""

    reason: ClassVar[Reason]

    def __init__(self, message: str, **details: Unpack[Details]) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = details.get("status_code")
        self.error_code = details.get("error_code")
        self.request_id = details.get("request_id")
        self.retry_after = details.get("retry_after")

    @property
    def details(self) -> Details:
        """All but the message, to make another failure of the same answer."""
        return Details(
            status_code=self.status_code,
            error_code=self.error_code,
            request_id=self.request_id,
            retry_after=self.retry_after,
        )


class Unreachable(ApiError):  # noqa: N818
    """No complete answer: DNS, connect, TLS, reset, truncated or too late."""

    reason = Reason.UNREACHABLE


class Throttled(ApiError):  # noqa: N818
    """The target asked us to slow down."""

    reason = Reason.THROTTLED


class ServerError(ApiError):
    """The service failed on its side."""

    reason = Reason.SERVER_ERROR


class Rejected(ApiError):  # noqa: N818
    """The request was refused and will be until an operator acts.

    Attributes:
        refusal: What was refused.
    """

    reason = Reason.REJECTED

    def __init__(
        self,
        message: str,
        *,
        refusal: Refusal = Refusal.REQUEST,
        **details: Unpack[Details],
    ) -> None:
        super().__init__(message, **details)
        self.refusal = refusal


class JobNotFound(ApiError):  # noqa: N818
    """An answer that names the job as missing."""

    reason = Reason.NOT_FOUND


class Malformed(ApiError):  # noqa: N818
    """An answer that cannot be a job: not JSON, wrong shape, too large, a redirect."""

    reason = Reason.MALFORMED
