"""Temporary keys of the agency that was given to this cloud server.

Source: https://support.huaweicloud.com/usermanual-bms/bms_01_0040.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
import anyio
from pydantic import SecretStr

from watcher.client.classify import one_line
from watcher.client.credentials.base import Proof, no_credentials
from watcher.client.credentials.parsing import parse_temporary_key
from watcher.client.credentials.renewal import Renewal
from watcher.client.endpoint import is_address
from watcher.client.signing import Call, Key, is_visible
from watcher.client.transport import Answer, Route, exchange, in_time
from watcher.core.errors import ApiError, Rejected

ADDRESS = "http://169.254.169.254"
VARIABLE = "HUAWEICLOUD_SDK_METADATA_ENDPOINT"
"""Environment variable that names another one."""
_TOKEN_PATH = "/meta-data/latest/api/token"  # noqa: S105
_KEY_PATH = "/openstack/latest/securitykey"
_TOKEN_LIFE = 21_600
_WITHOUT_TOKENS = 86_400.0
_NOT_OFFERED = frozenset({404, 405, 503})
_NO_AGENCY = b"Please configure Cloud Service Agency first"


@dataclass(frozen=True, slots=True)
class _Pass:
    """What opens the metadata service: a token, or None where it wants none."""

    token: SecretStr | None
    until: float


class MetadataCredentials:
    """The key that the metadata service hands out, renewed before it expires.

    Args:
        session: Connections.
        now: Unix seconds on the server's clock.
        address: Of the metadata service.
        timeout: Seconds for each request.

    Raises:
        ValueError: The address is none.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        now: Callable[[], float],
        address: str = ADDRESS,
        timeout: float = 3.0,
    ) -> None:
        self._session = session
        if not is_address(address):
            raise ValueError(f"{VARIABLE} must be an address such as {ADDRESS}")
        self._route = Route(address.rstrip("/"), timeout, body_limit=1024 * 1024)
        self._pass: _Pass | None = None
        self._renewal = Renewal(self._obtain, now)

    async def current(self) -> Key:
        """Return a key that has not expired.

        Raises:
            Rejected: There is no metadata service, or it has no key for this server.
        """
        return await self._renewal.current()

    async def renew(self, refused: Proof, /) -> Proof:
        """Return another key than the refused one, if there is one.

        Raises:
            Rejected: As for `current`.
        """
        return (
            await self._renewal.renew(refused) if isinstance(refused, Key) else refused
        )

    async def _obtain(self) -> Key:
        answer = await self._ask_for_key()
        if answer.status == HTTPStatus.UNAUTHORIZED and _NO_AGENCY not in answer.body:
            self._pass = None
            answer = await self._ask_for_key()
        if _NO_AGENCY in answer.body:
            raise _nothing("this server has no agency: configure one for it first")
        if answer.status != HTTPStatus.OK:
            raise _unexpected(answer)
        try:
            return parse_temporary_key(answer.body)
        except ValueError as exc:
            raise _nothing(str(exc)) from exc

    async def _ask_for_key(self) -> Answer:
        if self._pass is None or anyio.current_time() >= self._pass.until:
            self._pass = await self._ask_for_pass()
        token = self._pass.token
        shown = {} if token is None else {"X-Metadata-Token": token.get_secret_value()}
        return await self._send("GET", _KEY_PATH, shown)

    async def _ask_for_pass(self) -> _Pass:
        life = {"X-Metadata-Token-Ttl-Seconds": str(_TOKEN_LIFE)}
        answer = await self._send("PUT", _TOKEN_PATH, life)
        moment = anyio.current_time()
        if answer.status in _NOT_OFFERED:
            return _Pass(None, moment + _WITHOUT_TOKENS)
        token = answer.body.decode("ascii", "replace").strip()
        if answer.status != HTTPStatus.OK or not is_visible(token):
            raise _unexpected(answer)
        return _Pass(SecretStr(token), moment + _TOKEN_LIFE / 2)

    async def _send(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        call = Call(method, self._route.host, path, headers=headers)
        try:
            return await in_time(
                self._route, exchange(self._session, self._route, call)
            )
        except ApiError as error:
            raise _nothing(error.message) from error


def _unexpected(answer: Answer) -> Rejected:
    return _nothing(f"HTTP {answer.status}")  # its text may hold a key


def _nothing(why: str) -> Rejected:
    return no_credentials(one_line(f"metadata service: {why}"))
