"""Reads keys and their times as the cloud's own services write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import SecretStr

from watcher.client.signing import Key

_ACCESS = ("access", "accessKeyId", "access_key_id")
_SECRET = ("secret", "secretAccessKey", "secret_access_key")
_TOKEN = ("securitytoken", "securityToken", "security_token")
_EXPIRES = ("expires_at", "expiration")


def parse_temporary_key(body: bytes) -> Key:
    """Read a temporary key in any of its spellings.

    Raises:
        ValueError: It is none; the message shows nothing of it.
    """
    try:
        answer = json.loads(body)
        given = answer.get("credential") or answer.get("credentials")
        access, secret, token, expires = (
            _first(given, names) for names in (_ACCESS, _SECRET, _TOKEN, _EXPIRES)
        )
    except (ValueError, RecursionError, AttributeError):
        raise ValueError("the answer holds no credential") from None
    return Key(
        access,
        SecretStr(secret),
        SecretStr(token) if token else None,
        parse_expiry(expires),
    )


def parse_expiry(text: str) -> float | None:
    """Read `2026-01-15T08:30:45.000000Z`, with or without a fraction, as Unix seconds.

    Returns:
        None where nothing is given.

    Raises:
        ValueError: It is no time.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise ValueError("the time of expiry cannot be read") from None


def _first(given: Mapping[str, object], names: tuple[str, ...]) -> str:
    value = next((given[name] for name in names if given.get(name)), "")
    if not isinstance(value, str):
        raise ValueError("not a text")  # noqa: TRY004 - a fault of the data
    return value.strip()
