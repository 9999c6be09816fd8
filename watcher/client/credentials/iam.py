"""IAM tokens, had with a user's password.

Source: https://support.huaweicloud.com/intl/en-us/api-iam/iam_30_0001.html
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from http import HTTPStatus

from pydantic import SecretStr

from watcher.client.classify import classify, one_line
from watcher.client.credentials.base import Proof, Token
from watcher.client.credentials.parsing import parse_expiry
from watcher.client.credentials.renewal import Renewal
from watcher.client.shared import OnRequest, SharedClient
from watcher.client.signing import Call, is_visible
from watcher.client.transport import Answer, Trust, exchange, in_time, route_to
from watcher.core.errors import (
    ApiError,
    Details,
    JobNotFound,
    Malformed,
    Refusal,
    Rejected,
)

_PATH = "/v3/auth/tokens"
_LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Login:
    """An IAM user, and the project that its tokens are for.

    Attributes:
        domain: Name of the account that the user belongs to.
        project_id: None to name the project by `project_name`.
        project_name: Such as `cn-north-4`, a region's own project.
    """

    user: str
    password: SecretStr
    domain: str
    project_id: str | None = None
    project_name: str | None = None

    @property
    def account(self) -> str:
        """What refusals are counted against."""
        return f"{self.domain}/{self.user}"

    def request(self) -> bytes:
        """Return the body of the request for a token."""
        user = {
            "name": self.user,
            "password": self.password.get_secret_value(),
            "domain": {"name": self.domain},
        }
        project = (
            {"name": self.project_name}
            if self.project_id is None
            else {"id": self.project_id}
        )
        identity = {"methods": ["password"], "password": {"user": user}}
        scope = {"project": project}
        return json.dumps({"auth": {"identity": identity, "scope": scope}}).encode()


class TokenCredentials:
    """The token of a user, had again before it expires.

    Args:
        shared: What all targets share.
        login: Who asks.
        iam_endpoint: Address of IAM.
        timeout: Seconds for one request.
        tls: Trust of its own, or None for the process's.
        on_request: Told of each request.

    Raises:
        ValueError: A password may not be sent to this address.
    """

    def __init__(
        self,
        shared: SharedClient,
        login: Login,
        iam_endpoint: str,
        *,
        timeout: float = 10.0,
        tls: Trust | None = None,
        on_request: OnRequest | None = None,
    ) -> None:
        self._shared = shared
        self._route = route_to(iam_endpoint, timeout, _LARGEST, tls)
        self._on_request = on_request
        self._presented: Hashable = None
        self.replace(login)

    def replace(self, login: Login) -> None:
        """Use another login from the next request on."""
        self._login = login
        self._renewal = Renewal(self._obtain, self._shared.clock.server_time)

    async def current(self) -> Token:
        """Return a token that has not expired.

        Raises:
            Rejected: IAM refused the login.
            ApiError: IAM gave no usable answer.
        """
        return await self._renewal.current()

    async def renew(self, refused: Proof, /) -> Proof:
        """Return another token than the refused one, if there is one.

        Raises:
            ApiError: As for `current`.
        """
        if not isinstance(refused, Token):
            return await self.current()
        return await self._renewal.renew(refused)

    async def _obtain(self) -> Token:
        login = self._login
        changed = login.password != self._presented
        self._presented = login.password
        breaker = self._shared.breakers.of(login.account)
        async with breaker.attempt(login.password, changed=changed, most=1):
            return self._read(login, await self._send(login))

    async def _send(self, login: Login) -> Answer:
        clock, host = self._shared.clock, self._route.host
        call = Call(
            "POST",
            host,
            _PATH,
            query=[("nocatalog", "true")],
            headers={"Content-Type": "application/json"},
            body=login.request(),
        )
        if self._on_request is not None:
            self._on_request("token")
        sent = clock.machine_time()
        answer = await in_time(
            self._route, exchange(self._shared.session, self._route, call)
        )
        clock.note(host, answer.headers.get("Date", ""), sent, clock.machine_time())
        return answer

    def _read(self, login: Login, answer: Answer) -> Token:
        if answer.status != HTTPStatus.CREATED:
            raise self._failure(login, answer)
        try:
            value = answer.headers["X-Subject-Token"]
            if not is_visible(value):
                raise ValueError("not the value of a header")  # noqa: TRY301
            expires_at = json.loads(answer.body)["token"].get("expires_at") or ""
            return Token(
                value=SecretStr(value),
                account=login.account,
                fingerprint=login.password,
                expires_at=parse_expiry(expires_at),
            )
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            # Not as a cause: the answer is full of secrets.
            raise Malformed(
                "the answer of IAM holds no token", status_code=answer.status
            ) from None

    def _failure(self, login: Login, answer: Answer) -> ApiError:
        """Return what its status stands for; never a word of it, it may echo anything."""
        now = self._shared.clock.machine_time()
        error = classify(answer.status, answer.headers, answer.body, now)
        details = Details(status_code=answer.status, retry_after=error.retry_after)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            return Rejected(
                one_line(f"IAM refused user {login.user} of {login.domain}: HTTP 401"),
                refusal=Refusal.CREDENTIALS,
                **details,
            )
        said = f"IAM gave no token: HTTP {answer.status}"
        if isinstance(error, Rejected):
            return Rejected(said, refusal=error.refusal, **details)
        kind = Rejected if isinstance(error, JobNotFound) else type(error)
        return kind(said, **details)
