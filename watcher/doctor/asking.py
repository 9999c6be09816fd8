"""Asks as the daemon does, with its own client, but so that no key can be locked by it.

What differs: the first refusal of a key ends its use in the whole examination, no
refused request is sent again in another form, and the server's time is learned from a
request that carries no credentials, so that a wrong clock costs no refusal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace

import aiohttp
import anyio

from watcher.client.api import DevServerApi
from watcher.client.breaker import (
    MOST_IN_FLIGHT,
    Breaker,
    Breakers,
    Outcome,
    outcome_of,
)
from watcher.client.credentials.base import Credentials, Proof
from watcher.client.shared import OnRequest
from watcher.client.signing import Call
from watcher.client.transport import (
    Route,
    exchange,
    in_time,
    route_to,
    trust_in,
)
from watcher.core.errors import ApiError, Malformed
from watcher.core.retry_after import http_date
from watcher.daemon.targets import Targets
from watcher.settings import schema as given

_GREETING_LIMIT = 256 * 1024


class OneRefusal(Breaker):
    """Lets no proof be used again once it was refused, whoever asks.

    Until one request was accepted they go one by one.
    """

    def __init__(self, account: str) -> None:
        super().__init__(account)
        self._refusals: dict[Hashable, ApiError] = {}
        self._accepted: set[Hashable] = set()
        self._turn = anyio.Lock()

    @asynccontextmanager
    async def attempt(
        self, fingerprint: Hashable, *, changed: bool, most: int = MOST_IN_FLIGHT
    ) -> AsyncIterator[None]:
        """Send one request inside; an `ApiError` that leaves it is judged.

        Raises:
            ApiError: It was refused before, and is not sent; a copy of what was said.
        """
        async with self._turn:
            if fingerprint in self._refusals:
                raise copy(self._refusals[fingerprint])
            alone = fingerprint not in self._accepted
            if alone:
                async with self._judged(fingerprint, changed=changed, most=most):
                    yield
        if not alone:
            async with self._judged(fingerprint, changed=changed, most=most):
                yield

    @asynccontextmanager
    async def _judged(
        self, fingerprint: Hashable, *, changed: bool, most: int
    ) -> AsyncIterator[None]:
        try:
            async with super().attempt(fingerprint, changed=changed, most=most):
                yield
        except ApiError as exc:
            outcome = outcome_of(exc)
            if outcome in {Outcome.REFUSED, Outcome.LOCKED}:
                self._refusals[fingerprint] = exc
            elif outcome is Outcome.ACCEPTED:
                self._accepted.add(fingerprint)
            raise
        self._accepted.add(fingerprint)


class CarefulBreakers(Breakers):
    """An `OneRefusal` for each account; says nothing to the log."""

    def of(self, account: str) -> Breaker:
        """Return the breaker of an access key, or of a domain and user."""
        if account not in self._breakers:
            self._breakers[account] = OneRefusal(account)
        return self._breakers[account]


class Witness:
    """Credentials that are shown, and not exchanged when they are refused.

    Attributes:
        proof: In use; None so far, or for requests without proof.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.proof: Proof | None = None
        self._credentials = credentials

    async def current(self) -> Proof | None:
        """Return what is in use now.

        Raises:
            ApiError: It could not be had.
        """
        self.proof = await self._credentials.current()
        return self.proof

    async def renew(self, refused: Proof, /) -> Proof | None:
        """Return the refused proof: one refusal is enough."""
        return refused


@dataclass(frozen=True, slots=True)
class Case:
    """A target, ready to be asked.

    Attributes:
        route: The way to its API.
        sent: How many requests of each kind were sent.
    """

    api: DevServerApi
    witness: Witness
    route: Route
    sent: Counter[str]


class CarefulTargets(Targets):
    """Opens targets as the daemon does."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        now: Callable[[], float],
        environ: Mapping[str, str],
    ) -> None:
        super().__init__(session, now, environ)
        self._shared = replace(self._shared, breakers=CarefulBreakers())
        self._witness: Witness | None = None

    def take(self, name: str, target: given.Target, timeout: float) -> Case:
        """Open a target.

        Raises:
            SettingsError: It cannot be asked, such as for an unreadable `ca_file`.
        """
        sent: Counter[str] = Counter()
        api = self.open(name, target, timeout, lambda kind: sent.update([kind]))
        witness = self._witness
        assert witness is not None, "`open` has made one"  # noqa: S101
        tls = trust_in(target.ca_file) if target.ca_file else None
        route = route_to(target.url, timeout, _GREETING_LIMIT, tls)
        return Case(api, witness, route, sent)

    async def greet(self, route: Route) -> bool:
        """Send a request without credentials; return whether the answer shows the time.

        What it says is nobody's business: only that an answer comes in HTTP.

        Raises:
            Unreachable: None came.
        """
        clock = self._shared.clock
        sent = clock.machine_time()
        call = Call("GET", route.host, "/", headers={"Host": route.host})
        try:
            answer = await in_time(route, exchange(self._shared.session, route, call))
        except Malformed:  # a large one
            return False
        date = answer.headers.get("Date", "")
        clock.note(route.host, date, sent, clock.machine_time())
        return http_date(date) is not None

    def _credentials(
        self, target: given.Target, timeout: float, on_request: OnRequest | None
    ) -> Credentials:
        self._witness = Witness(super()._credentials(target, timeout, on_request))
        return self._witness
