"""Credentials that are simply given: in the settings, in the environment, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import SecretStr

from watcher.client.credentials.base import Proof, no_credentials
from watcher.client.signing import Key

_ENVIRONMENT = "HUAWEICLOUD_SDK_"


class NoCredentials:
    """Requests carry no proof: for a proxy that signs, or an open test server."""

    async def current(self) -> None:
        """Return None."""

    async def renew(self, _refused: Proof, /) -> None:
        """Return None."""


class StaticCredentials:
    """One key, until it is replaced."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def replace(self, key: Key) -> None:
        """Use another key from the next request on."""
        if key != self._key:
            self._key = key

    async def current(self) -> Key:
        """Return the key."""
        return self._key

    async def renew(self, _refused: Proof, /) -> Key:
        """Return the key, which may have been replaced since."""
        return self._key


class EnvironmentCredentials:
    """The key in `HUAWEICLOUD_SDK_AK`, `_SK` and, if temporary, `_SECURITY_TOKEN`."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._key: Key | None = None

    async def current(self) -> Key:
        """Return the key.

        Raises:
            Rejected: A variable is missing or unusable.
        """
        key = self._read()
        if key != self._key or self._key is None:
            self._key = key
        return self._key

    async def renew(self, _refused: Proof, /) -> Key:
        """Return the key.

        Raises:
            Rejected: A variable is missing or unusable.
        """
        return await self.current()

    def _read(self) -> Key:
        access, secret, token = (
            self._environment.get(f"{_ENVIRONMENT}{name}", "").strip()
            for name in ("AK", "SK", "SECURITY_TOKEN")
        )
        for name, value in (("AK", access), ("SK", secret)):
            if not value:
                raise no_credentials(f"environment: {_ENVIRONMENT}{name} is not set")
        try:
            return Key(access, SecretStr(secret), SecretStr(token) if token else None)
        except ValueError as exc:
            raise no_credentials(f"environment: {exc}") from exc
