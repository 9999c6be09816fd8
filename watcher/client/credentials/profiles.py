"""The key in the profile file that the official SDKs use."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from watcher.client.credentials.base import Proof, no_credentials
from watcher.client.signing import Key
from watcher.core.errors import Rejected
from watcher.files import file_state

_VARIABLE = "HUAWEICLOUD_SDK_CREDENTIALS_FILE"
_SECTIONS = ("basic", "basiccredentials", "global", "globalcredentials")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the file said, and the state of the file that said so."""

    version: Hashable
    key: Key


class ProfileCredentials:
    """`ak`, `sk` and perhaps `security_token` of section `[basic]` or `[global]`.

    The file is read again when it has changed; one that has become unreadable leaves
    the last key in force.

    Args:
        environment: Whose `HUAWEICLOUD_SDK_CREDENTIALS_FILE` names the file; else it is
            `~/.huaweicloud/credentials`.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        named = environment.get(_VARIABLE)
        home = environment.get("HOME") or "~"
        path = Path(named) if named else Path(home, ".huaweicloud", "credentials")
        self._path = path.expanduser()
        self._last: _Reading | None = None

    async def current(self) -> Key:
        """Return the key.

        Raises:
            Rejected: The file is missing, or holds no usable key.
        """
        try:
            self._last = self._latest()
        except Rejected:
            if self._last is None:
                raise
        return self._last.key

    async def renew(self, _refused: Proof, /) -> Key:
        """Return the key, which may have been changed since.

        Raises:
            Rejected: The file is missing, or holds no usable key.
        """
        return await self.current()

    def _latest(self) -> _Reading:
        version = file_state(self._path)
        if self._last is not None and self._last.version == version:
            return self._last
        return _Reading(version, self._read())

    def _read(self) -> Key:
        ini = ConfigParser(interpolation=None)
        try:
            ini.read_string(self._path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise self._nothing(exc.strerror or "unreadable") from exc
        except (IniError, UnicodeError):
            # Not as a cause: it would show the line, and so perhaps the key.
            raise self._nothing("not an INI file") from None
        name = next((name for name in _SECTIONS if ini.has_section(name)), None)
        if name is None:
            raise self._nothing("has no section [basic]")
        section = ini[name]
        access, secret, token = (
            section.get(option, "").strip() for option in ("ak", "sk", "security_token")
        )
        try:
            return Key(access, SecretStr(secret), SecretStr(token) if token else None)
        except ValueError as exc:
            raise self._nothing(f"[{name}]: {exc}") from exc

    def _nothing(self, why: str) -> Rejected:
        return no_credentials(f"profile {self._path}: {why}")
