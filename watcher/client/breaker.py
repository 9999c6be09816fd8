"""Keeps an access key from being locked.

The gateway locks a key for 5 minutes after more than five refusals running, for every
tool that uses it. A key that is not accepted yet, or was refused last, goes one request at
a time, and is refused three times in 5 minutes at most. One that is accepted has so many
requests on their way as its settings say: all of them may be refused, if it is revoked.
`Circuit` decides, with time as an argument; `Breaker` waits and tells.

Source: API request signing guide, "FAQs".
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum, auto

import anyio

from watcher.client.classify import one_line
from watcher.core.errors import ApiError, JobNotFound, Refusal, Rejected

WINDOW = 300.0
MOST_REFUSED = 3
MOST_IN_FLIGHT = 5
"""Requests of an accepted key, unless its settings say otherwise: no more than may be
refused running."""
_MANY = 64

OnChange = Callable[[str, Rejected | None], None]
"""Told the account, and the refusal that opened its breaker, or None: it closed."""


class Outcome(Enum):
    """What an answer says about the key."""

    ACCEPTED = auto()
    REFUSED = auto()
    LOCKED = auto()
    UNCLEAR = auto()


def outcome_of(error: ApiError) -> Outcome:
    """Tell what a failure says about the key that signed the request."""
    match error:
        case Rejected(refusal=Refusal.LOCKED):
            return Outcome.LOCKED
        case Rejected(status_code=401):
            return Outcome.REFUSED
        case Rejected(refusal=refusal) if refusal.concerns_key:
            return Outcome.REFUSED
        case JobNotFound() | Rejected(refusal=Refusal.PERMISSION, error_code=str()):
            return Outcome.ACCEPTED  # whoever says so has looked at the key first
        case _:
            return Outcome.UNCLEAR


class Circuit:
    """Decides whether one more request may go; all times are monotonic seconds."""

    def __init__(self) -> None:
        self._refused: deque[float] = deque(maxlen=MOST_REFUSED)
        self._refusals = 0
        self._locked_until = 0.0
        self._accepted = False
        self._in_flight = 0
        self.opened = False

    def hold(self, now: float) -> float:
        """Return the seconds for which nothing may go; 0.0 where something may."""
        full = not self._accepted and len(self._refused) == MOST_REFUSED
        until = self._refused[0] + WINDOW if full else 0.0
        return max(until - now, self._locked_until - now, 0.0)

    def limit(self, most: int) -> int:
        """Return how many may be in flight at once.

        Args:
            most: How many, once the key is accepted.
        """
        return most if self._accepted else 1

    def admit(self, now: float, most: int) -> int | None:
        """Let a request go, and count it as in flight.

        Returns:
            What `settle` wants to know of it; None: not now.
        """
        if self.hold(now) or self._in_flight >= self.limit(most):
            return None
        self._in_flight += 1
        return self._refusals

    def settle(self, now: float, ticket: int, outcome: Outcome) -> None:
        """Take note of how a request that was let go ended."""
        self._in_flight -= 1
        match outcome:
            # One that left before the last refusal came says nothing of what was after.
            case Outcome.ACCEPTED if ticket == self._refusals:
                self._accepted = True
                self.opened = self.opened and self.hold(now) > 0
            case Outcome.REFUSED | Outcome.LOCKED:
                self._accepted = False
                self._refusals += 1
                self._refused.append(now)
                if outcome is Outcome.LOCKED:
                    self._locked_until = now + WINDOW
                self.opened = self.opened or self.hold(now) > 0
            case _:
                pass

    def idle(self, now: float) -> bool:
        """Tell whether forgetting it changes nothing but the proof."""
        recent = any(moment + WINDOW > now for moment in self._refused)
        return not (self._in_flight or recent or self.opened)


@dataclass(slots=True)
class _Era:
    """What belongs to one generation of an account's credentials."""

    circuit: Circuit = field(default_factory=Circuit)
    fingerprints: set[Hashable] = field(default_factory=set)
    cause: Rejected | None = None


class Breaker:
    """The circuit of one account, shared by every target that uses it."""

    def __init__(self, account: str, on_change: OnChange | None = None) -> None:
        self._account = account
        self._on_change = on_change or (lambda _account, _refusal: None)
        self._era = _Era()
        self._waiting: deque[anyio.Event] = deque()

    @property
    def locked(self) -> bool:
        """Whether it opened and no request has been accepted since."""
        return self._era.circuit.opened

    def limit(self, most: int) -> int:
        """Return how many may be on their way at once; more would stand in line.

        Args:
            most: How many, once the key is accepted.
        """
        return self._era.circuit.limit(most)

    def idle(self) -> bool:
        """Tell whether forgetting it changes nothing but the proof."""
        return self._era.circuit.idle(anyio.current_time())

    def attempt(
        self, fingerprint: Hashable, *, changed: bool, most: int = MOST_IN_FLIGHT
    ) -> AbstractAsyncContextManager[None]:
        """Send one request inside; an `ApiError` that leaves it is judged.

        Args:
            fingerprint: Of the credentials in use.
            most: How many may be on their way at once, once the key is accepted.
            changed: Whether the caller has used others, or none, until now. Credentials
                that are new to this breaker too close it.

        Raises:
            Rejected: Held back, nothing was sent; `retry_after` says for how long.
        """
        return _Attempt(self, self._era_of(fingerprint, changed=changed), most)

    def _era_of(self, fingerprint: Hashable, *, changed: bool) -> _Era:
        if changed and fingerprint not in self._era.fingerprints:
            was_open = self.locked
            self._era = _Era()
            if was_open:
                self._on_change(self._account, None)
        self._era.fingerprints.add(fingerprint)
        return self._era

    async def enter(self, era: _Era, most: int) -> int:
        """Wait for a place; return what `leave` wants to know."""
        while (ticket := era.circuit.admit(now := _now(), most)) is None:
            if seconds := era.circuit.hold(now):
                raise _held(era.cause, seconds)
            await self._stand_in_line()
        return ticket

    async def _stand_in_line(self) -> None:
        """Wait until a request has ended."""
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        finally:
            if not turn.is_set():
                self._waiting.remove(turn)

    def _call(self, count: int) -> None:
        for _ in range(min(count, len(self._waiting))):
            self._waiting.popleft().set()

    def leave(
        self, era: _Era, most: int, ticket: int, error: BaseException | None
    ) -> None:
        """Judge how a request ended, and let those go that have room now."""
        now = _now()
        self._judge(era, ticket, error, now)
        if self._waiting:
            held = era.circuit.hold(now) > 0
            self._call(len(self._waiting) if held else most)

    def _judge(
        self, era: _Era, ticket: int, error: BaseException | None, now: float
    ) -> None:
        was_open, outcome = era.circuit.opened, Outcome.UNCLEAR
        if error is None:
            outcome = Outcome.ACCEPTED
        elif isinstance(error, ApiError):
            outcome = outcome_of(error)
        era.circuit.settle(now, ticket, outcome)
        if isinstance(error, Rejected) and outcome in {Outcome.REFUSED, Outcome.LOCKED}:
            era.cause = error
        if era is self._era and era.circuit.opened != was_open:
            self._on_change(self._account, None if was_open else era.cause)


class _Attempt(AbstractAsyncContextManager[None]):
    """One request under a breaker; as a class, for it stands on the path of each poll."""

    __slots__ = ("_breaker", "_era", "_most", "_ticket")

    def __init__(self, breaker: Breaker, era: _Era, most: int) -> None:
        self._breaker = breaker
        self._era = era
        self._most = most
        self._ticket = 0

    async def __aenter__(self) -> None:
        self._ticket = await self._breaker.enter(self._era, self._most)

    async def __aexit__(
        self, _: object, error: BaseException | None, __: object
    ) -> None:
        self._breaker.leave(self._era, self._most, self._ticket, error)


class Breakers:
    """One breaker for each account, whatever the number of targets."""

    def __init__(self, on_change: OnChange | None = None) -> None:
        self._on_change = on_change
        self._breakers: dict[str, Breaker] = {}

    def of(self, account: str) -> Breaker:
        """Return the breaker of an access key, or of a domain and user."""
        if account not in self._breakers:
            self._forget_idle()
            self._breakers[account] = Breaker(account, self._on_change)
        return self._breakers[account]

    def _forget_idle(self) -> None:
        # Temporary keys come with an access key of their own, every hour or so.
        if len(self._breakers) >= _MANY:
            busy = {k: v for k, v in self._breakers.items() if not v.idle()}
            self._breakers = busy


def _now() -> float:
    return asyncio.get_running_loop().time()


def _held(cause: Rejected | None, seconds: float) -> Rejected:
    because = "refused" if cause is None else cause.message
    return Rejected(
        one_line(f"held back for {seconds:.0f} s, the key being refused: {because}"),
        refusal=Refusal.SIGNATURE if cause is None else cause.refusal,
        error_code=None if cause is None else cause.error_code,
        retry_after=seconds,
    )
