"""The API gateway in front of the service: credentials, lock-out, throttling.

Its refusals are those of the real one: the same status, code and words, and the lock
of an access key after more than five failed signatures in a row.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from watcher.simulator.answers import (
    Answer,
    RawRequest,
    throttled,
    token_outdated,
    unauthorized,
)
from watcher.simulator.options import SimulatorOptions
from watcher.simulator.signature import (
    Claim,
    canonical_request,
    read_claim,
    read_date,
    sign,
)

MAX_SKEW = 15 * 60.0
"""Seconds that X-Sdk-Date may be off."""

LOCKED = "AK access failed to reach the limit,forbidden."
EXPIRED = "calc ak sk signature fail:signature expired"


@dataclass(frozen=True, slots=True)
class Key:
    """What the gateway knows of an access key.

    Attributes:
        security_token: What requests of a temporary key must carry.
        expires_at: Unix seconds on the server's clock; None is never.
    """

    secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    expires_at: float | None = None


def unknown_key(access_key: str) -> str:
    """Return the refusal of a key that does not exist."""
    return f"Get secretKey failed,ak:{access_key},err:ak not exist"


class Gateway:
    """Checks each request before the service sees it.

    Attributes:
        keys: By access key; None, where no credentials of any kind are configured,
            lets everything pass.
        tokens: Values of X-Auth-Token with the Unix second at which each expires.
    """

    def __init__(
        self,
        options: SimulatorOptions,
        wall: Callable[[], float],
        elapsed: Callable[[], float],
    ) -> None:
        """Take the server's wall clock and the real seconds since the start."""
        self._options = options
        self._wall = wall
        self._elapsed = elapsed
        self._failures: Counter[str] = Counter()
        self._locked_until: dict[str, float] = {}
        self._second = 0
        self._in_second: Counter[str] = Counter()
        self.keys = _initial_keys(options)
        self.tokens: dict[str, float] = dict.fromkeys(options.tokens, float("inf"))
        self.tokens |= dict.fromkeys(options.expired_tokens, 0.0)

    def secret_of(self, access_key: str | None) -> str | None:
        """Return the secret key, where both are known."""
        key = (self.keys or {}).get(access_key or "")
        return key.secret if key else None

    def set_keys(self, keys: dict[str, Key] | None) -> None:
        """Replace the access keys and lift all locks."""
        self.keys = keys
        self._failures.clear()
        self._locked_until.clear()

    def throttle(self, call: str) -> Answer | None:
        """Count a request; return the refusal where it is one too many."""
        limit = self._options.rate_limit
        if limit is None:
            return None
        second = int(self._elapsed())
        if second != self._second:
            self._second = second
            self._in_second.clear()
        self._in_second[call] += 1
        if self._in_second[call] <= limit:
            return None
        wait = self._options.retry_after
        return throttled(limit, None if wait is None else f"{wait:g}")

    def authenticate(self, request: RawRequest) -> Answer | None:
        """Return the refusal of a request, or None where it may pass."""
        if self.keys is None:
            return None
        authorization = request.headers.get("authorization")
        if authorization is None:
            return self._check_token(request.headers.get("x-auth-token"))
        claim = read_claim(authorization)
        if claim is None:
            return unauthorized("verify aksk signature fail, malformed Authorization")
        if self._elapsed() < self._locked_until.get(claim.access_key, 0.0):
            return unauthorized(LOCKED)
        key = self.keys.get(claim.access_key)
        if key is None:
            return unauthorized(unknown_key(claim.access_key))
        reason = self._mismatch(request, claim, key)
        self._remember(claim.access_key, failed=reason is not None)
        return None if reason is None else unauthorized(reason)

    def _check_token(self, token: str | None) -> Answer | None:
        if token is None:
            return unauthorized("x-auth-token not found")
        expires_at = self.tokens.get(token)
        if expires_at is None:
            return unauthorized("decrypt token fail")
        return None if self._wall() < expires_at else token_outdated()

    def _mismatch(self, request: RawRequest, claim: Claim, key: Key) -> str | None:
        """Return why the signature does not hold, or None where it does."""
        missing = self._missing(request, claim, key)
        if missing is not None:
            return f"verify aksk signature fail, {missing} not found in signed headers"
        date = request.headers["x-sdk-date"]
        at, now = read_date(date), self._wall()
        if at is None or abs(now - at) > MAX_SKEW:
            return EXPIRED
        if key.expires_at is not None and now >= key.expires_at:
            return EXPIRED
        token = request.headers.get("x-security-token")
        if key.security_token is not None and token != key.security_token:
            return "decrypt token fail"
        canonical = canonical_request(request, claim.signed_headers)
        wanted = sign(key.secret, date, canonical)
        if hmac.compare_digest(wanted.encode(), claim.signature.encode()):
            return None
        echo = canonical.replace("\n", "|")
        return f"verify aksk signature fail, canonicalRequest:{echo}"

    @staticmethod
    def _missing(request: RawRequest, claim: Claim, key: Key) -> str | None:
        needed = ["x-sdk-date"]
        if key.security_token is not None:
            needed.append("x-security-token")
        for name in (*needed, *claim.signed_headers):
            if name not in claim.signed_headers or name not in request.headers:
                return name
        return None

    def _remember(self, access_key: str, *, failed: bool) -> None:
        if not failed:
            del self._failures[access_key]
            return
        self._failures[access_key] += 1
        if self._failures[access_key] > self._options.lock_after:
            del self._failures[access_key]
            self._locked_until[access_key] = (
                self._elapsed() + self._options.lock_seconds
            )


def _initial_keys(options: SimulatorOptions) -> dict[str, Key] | None:
    by_token = options.tokens or options.expired_tokens or options.users is not None
    if options.credentials is None and not by_token:
        return None
    return {
        access: Key(secret, options.security_tokens.get(access))
        for access, secret in (options.credentials or {}).items()
    }
