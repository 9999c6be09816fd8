"""Signs requests with SDK-HMAC-SHA256: pure, so that published vectors can prove it.

Source: https://support.huaweicloud.com/intl/en-us/devg-apisign/api-sign-algorithm-002.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, unquote

from pydantic import SecretStr

ALGORITHM = "SDK-HMAC-SHA256"
_SIGNED_BODIES = ("application/json", "application/bson")
_UNSIGNED = "UNSIGNED-PAYLOAD"
_NO_BODY = hashlib.sha256(b"").hexdigest()
_VISIBLE = frozenset(map(chr, range(0x21, 0x7F)))

Query = Sequence[tuple[str, str | int]]
"""Names and values of a query, in any order; a name may occur again."""


@dataclass(frozen=True, slots=True)
class Key:
    """An access key pair, permanent or temporary.

    Attributes:
        security_token: Given with temporary keys only.
        expires_at: Unix seconds on the server's clock; None for a permanent key.

    Raises:
        ValueError: A part is empty, or could not stand in a header.
    """

    access_key: str
    secret_key: SecretStr
    security_token: SecretStr | None = None
    expires_at: float | None = None

    def __post_init__(self) -> None:
        """Refuse what would break the request later, without showing it."""
        token = self.security_token
        parts = {
            "access key": self.access_key,
            "secret key": self.secret_key.get_secret_value(),
            "security token": "-" if token is None else token.get_secret_value(),
        }
        for name, value in parts.items():
            if not is_visible(value):
                msg = f"the {name} is empty or holds spaces or unprintable characters"
                raise ValueError(msg)

    @property
    def account(self) -> str:
        """What the gateway counts refusals against."""
        return self.access_key

    @property
    def fingerprint(self) -> Hashable:
        """Equal for equal credentials only; never shows them."""
        return self

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """What must never be shown."""
        token = self.security_token
        return (self.secret_key,) if token is None else (self.secret_key, token)


def is_visible(value: str) -> bool:
    """Tell whether a text can stand in a header as it is."""
    return bool(value) and _VISIBLE.issuperset(value)


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request, in the parts that a signature covers.

    Attributes:
        host: With the port, where it is not the scheme's own.
        path: Percent-encoded or not; the signature decodes it first.
        headers: Those to sign; a name with an underscore is left unsigned.
    """

    method: str
    host: str
    path: str
    query: Query = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


def sign(key: Key, call: Call, moment: float) -> dict[str, str]:
    """Return the headers to add to a request so that the gateway accepts it.

    Args:
        key: Who signs.
        call: What is sent; exactly `call.headers` and those added here are signed.
        moment: Unix seconds; the gateway refuses more than 15 minutes of difference.
    """
    date = _sdk_date(int(moment))
    added = {"X-Sdk-Date": date}
    if key.security_token is not None:
        added["X-Security-Token"] = key.security_token.get_secret_value()
    payload = _payload(call)
    if payload == _UNSIGNED:
        added["X-Sdk-Content-Sha256"] = _UNSIGNED
    request, names = _canonical(call, {**call.headers, **added}, payload)
    text = f"{ALGORITHM}\n{date}\n{hashlib.sha256(request).hexdigest()}"
    secret = key.secret_key.get_secret_value().encode()
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    added["Authorization"] = (
        f"{ALGORITHM} Access={key.access_key}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return added


def canonical_query(query: Query) -> str:
    """Return a query sorted and encoded as it is signed, and must be sent."""
    if not query:
        return ""
    pairs = sorted((_encode(name), _encode(_word(value))) for name, value in query)
    return "&".join(f"{name}={value}" for name, value in pairs)


def _canonical(
    call: Call, headers: Mapping[str, str], payload: str
) -> tuple[bytes, str]:
    every = {"Host": call.host, **headers}
    order, names = _order(tuple(every))
    lines = [
        call.method,
        _canonical_path(call.path),
        canonical_query(call.query),
        *[f"{lower}:{every[name].strip()}" for lower, name in order],
        "",
        names,
        payload,
    ]
    return "\n".join(lines).encode(), names


@lru_cache(maxsize=64)
def _order(names: tuple[str, ...]) -> tuple[Sequence[tuple[str, str]], str]:
    """Return which headers are signed, in their order, and that order as text."""
    signed = {name.lower(): name for name in names if "_" not in name}
    return sorted(signed.items()), ";".join(sorted(signed))


def _payload(call: Call) -> str:
    if not call.body:
        return _NO_BODY
    kind = next((v for k, v in call.headers.items() if k.lower() == "content-type"), "")
    if not kind.startswith(_SIGNED_BODIES):
        return _UNSIGNED
    return hashlib.sha256(call.body).hexdigest()


@lru_cache(maxsize=1024)
def _canonical_path(path: str) -> str:
    encoded = "/".join(_encode(part) for part in unquote(path).split("/"))
    return encoded if encoded.endswith("/") else f"{encoded}/"


@lru_cache(maxsize=8)
def _sdk_date(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%SZ")


def _encode(text: str) -> str:
    return quote(text, safe="~")


def _word(value: str | int) -> str:
    # bool is an int whose str() is not what the gateway reads.
    return str(value).lower() if isinstance(value, bool) else str(value)
