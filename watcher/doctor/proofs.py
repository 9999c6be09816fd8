"""Tells which credentials are in use and where they came from, never what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from watcher.client.credentials.base import Credentials, Proof, Token
from watcher.client.credentials.profiles import ProfileCredentials
from watcher.client.credentials.static import EnvironmentCredentials
from watcher.client.signing import Key
from watcher.core.errors import ApiError, Rejected
from watcher.doctor.advice import Given

_CHAIN = "chain"
_PLACES = {
    "environment": "the environment (HUAWEICLOUD_SDK_AK, HUAWEICLOUD_SDK_SK)",
    "profile": "the profile file (HUAWEICLOUD_SDK_CREDENTIALS_FILE)",
    "metadata": "the agency of this server (metadata service)",
}
_KEY = "put a usable key into {place}"
_LACKS = {
    _CHAIN: (
        "set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK, or write them into the profile "
        "file, or give this server an agency"
    ),
    "metadata": "give this server an agency that may read ModelArts",
    "token": "correct user, password and domain in {place}",
}


def given_by(where: str, kind: str) -> Given:
    """Return what hints may refer to while no credentials are known.

    Args:
        where: Path of the target's settings, such as `targets.prod`.
        kind: Of its credentials.
    """
    return Given(where, _PLACES.get(kind, f"{where}.credentials"), kind)


async def given_with(
    proof: Proof | None, given: Given, environ: Mapping[str, str]
) -> Given:
    """Return what hints may refer to once the credentials are known."""
    if not isinstance(proof, Key):
        return given
    given = replace(given, temporary=proof.security_token is not None)
    if given.kind != _CHAIN:
        return given
    return replace(given, key_place=_PLACES[await _source(environ)])


async def _source(environ: Mapping[str, str]) -> str:
    """Return which source of the chain gives the key: the first that has one."""
    sources: dict[str, Credentials] = {
        "environment": EnvironmentCredentials(environ),
        "profile": ProfileCredentials(environ),
    }
    for name, source in sources.items():
        try:
            await source.current()
        except Rejected:
            continue
        return name
    return "metadata"


def describe(proof: Proof | None, given: Given) -> str:
    """Return a sentence about credentials that were had; it shows the access key."""
    match proof:
        case None:
            return "none are sent, as credentials.kind is none"
        case Token():
            return f"IAM gave a token for the user in {given.key_place}"
        case Key(access_key=access, expires_at=float() as end):
            until = datetime.fromtimestamp(end, UTC).isoformat(" ", "seconds")
            return (
                f"temporary access key {access} from {given.key_place}, until {until}"
            )
        case Key(access_key=access):
            kind = "temporary access key" if given.temporary else "access key"
            return f"{kind} {access} from {given.key_place}"


def advise_lack(error: ApiError, given: Given) -> str:
    """Return a hint for credentials that could not be had."""
    if given.kind == "token" and not isinstance(error, Rejected):
        return (
            f"IAM gave no usable answer: check {given.where}.credentials.iam_endpoint, "
            "and the firewalls and proxies on the way"
        )
    return _LACKS.get(given.kind, _KEY).format(place=given.key_place)
