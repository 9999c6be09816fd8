"""The gateway's half of SDK-HMAC-SHA256: recompute a signature from the raw request.

Written from the published algorithm and on purpose sharing nothing with the client, so
that an error in one is not hidden by the same error in the other.

Source: Huawei Cloud, API Request Signing Guide, "AK/SK Signing and Authentication
Algorithm" (api-sign-algorithm-002).
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from typing import NamedTuple
from urllib.parse import quote, unquote

from watcher.simulator.answers import RawRequest

ALGORITHM = "SDK-HMAC-SHA256"

_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Access=([^,\s]+), ?SignedHeaders=([^,\s]+), ?Signature=([^,\s]+)"
)


class Claim(NamedTuple):
    """What a request's Authorization header says."""

    access_key: str
    signed_headers: tuple[str, ...]
    signature: str


def read_claim(authorization: str) -> Claim | None:
    """Return what the header says, or None where it is malformed."""
    found = _AUTHORIZATION.fullmatch(authorization.strip())
    if found is None:
        return None
    access_key, names, signature = found.groups()
    return Claim(access_key, tuple(names.split(";")), signature)


def canonical_request(request: RawRequest, signed_headers: tuple[str, ...]) -> str:
    """Return the text whose hash is signed.

    Raises:
        KeyError: A signed header is missing.
    """
    names = sorted(signed_headers)
    return "\n".join(
        (
            request.method,
            _canonical_path(request.path),
            _canonical_query(request.query),
            *(f"{name}:{request.headers[name].strip()}" for name in names),
            "",
            ";".join(signed_headers),
            _payload_hash(request),
        )
    )


def sign(secret_key: str, date: str, canonical: str) -> str:
    """Return the signature of a canonical request in hexadecimal."""
    digest = hashlib.sha256(_to_bytes(canonical)).hexdigest()
    text = f"{ALGORITHM}\n{date}\n{digest}"
    return hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()


def read_date(text: str) -> float | None:
    """Return Unix seconds of an X-Sdk-Date, or None where it is malformed."""
    try:
        return float(calendar.timegm(time.strptime(text, "%Y%m%dT%H%M%SZ")))
    except ValueError:
        return None


def _canonical_path(path: str) -> str:
    encoded = "/".join(_encoded(part) for part in unquote(path).split("/"))
    return encoded if encoded.endswith("/") else encoded + "/"


def _canonical_query(query: str) -> str:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    decoded = sorted((unquote(name), unquote(value)) for name, _, value in pairs)
    return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in decoded)


def _payload_hash(request: RawRequest) -> str:
    if request.body and request.headers.get("x-sdk-content-sha256"):
        return request.headers["x-sdk-content-sha256"]
    return hashlib.sha256(request.body).hexdigest()


def _encoded(text: str) -> str:
    return quote(text, safe="~")


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
