"""From the settings of a target to a door that can be asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import aiohttp
import structlog

from watcher.client.api import ApiTarget, DevServerApi
from watcher.client.breaker import MOST_IN_FLIGHT, Breakers
from watcher.client.clock import ServerClock
from watcher.client.credentials.base import Credentials
from watcher.client.credentials.chain import default_chain
from watcher.client.credentials.iam import Login, TokenCredentials
from watcher.client.credentials.metadata import (
    ADDRESS,
    VARIABLE,
    MetadataCredentials,
)
from watcher.client.credentials.profiles import ProfileCredentials
from watcher.client.credentials.static import NoCredentials, StaticCredentials
from watcher.client.endpoint import iam_endpoint_of
from watcher.client.shared import OnRequest, SharedClient
from watcher.client.signing import Key
from watcher.client.transport import trust_in
from watcher.core.errors import Rejected, SettingsError
from watcher.settings import schema as given

log = structlog.get_logger()


class Targets:
    """Opens the API of each target over one set of connections and breakers."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        now: Callable[[], float],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Share a session.

        Args:
            session: Connections of the whole process.
            now: Wall clock, Unix seconds.
            environ: Where keys of the kind `chain` are looked for.
        """
        self._shared = SharedClient(session, ServerClock(now), Breakers(_tell_breaker))
        self._environ = environ

    def open(
        self,
        name: str,
        target: given.Target,
        timeout: float,
        on_request: OnRequest | None = None,
    ) -> DevServerApi:
        """Return the API of a target.

        Args:
            name: The target's, for what is found wrong with it.
            target: Its settings.
            timeout: Seconds for one request.
            on_request: Told of each request as it is sent.

        Raises:
            SettingsError: It cannot be asked, such as for an unreadable `ca_file`.
        """
        try:
            api_target = ApiTarget(
                name=name,
                endpoint=target.url,
                project_id=target.project_id,
                region=target.region,
                iam_endpoint=target.iam_url,
                timeout=timeout,
                ca_file=target.ca_file,
                max_tasks=target.max_tasks,
                max_in_flight=getattr(
                    target.credentials, "max_in_flight", MOST_IN_FLIGHT
                ),
            )
            credentials = self._credentials(target, timeout, on_request)
            return DevServerApi(self._shared, api_target, credentials, on_request)
        except OSError as exc:
            finding = exc.strerror or "not a PEM file"
            raise SettingsError([f"targets.{name}.ca_file: {finding}"]) from None
        except ValueError as exc:
            raise SettingsError([f"targets.{name}: {exc}"]) from None

    def _credentials(
        self, target: given.Target, timeout: float, on_request: OnRequest | None
    ) -> Credentials:
        metadata = self._environ.get(VARIABLE) or ADDRESS
        shared = self._shared
        match target.credentials:
            case given.NoCredentials():
                return NoCredentials()
            case given.StaticCredentials() as key:
                return StaticCredentials(
                    Key(key.access_key, key.secret_key, key.security_token)
                )
            case given.ProfileCredentials():
                return ProfileCredentials(self._environ)
            case given.MetadataCredentials():
                return MetadataCredentials(
                    shared.session, shared.clock.server_time, metadata
                )
            case given.TokenCredentials() as user:
                login = Login(
                    user.user,
                    user.password,
                    user.domain,
                    target.project_id,
                    target.region,
                )
                address = target.iam_url or iam_endpoint_of(target.region or "")
                return TokenCredentials(
                    shared,
                    login,
                    address,
                    timeout=timeout,
                    tls=trust_in(target.ca_file) if target.ca_file else None,
                    on_request=on_request,
                )
            case given.ChainCredentials():
                return default_chain(shared, self._environ, metadata)


def _tell_breaker(account: str, refusal: Rejected | None) -> None:
    if refusal is None:
        log.info("credentials.accepted", access_key=account)
    else:
        log.error(
            "credentials.locked",
            access_key=account,
            refusal=refusal.refusal,
            error_msg=refusal.message,
        )
