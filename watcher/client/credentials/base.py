"""What proves to the API who asks, and the one question put to every source of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from pydantic import SecretStr

from watcher.client.signing import Key
from watcher.core.errors import Refusal, Rejected


@dataclass(frozen=True, slots=True)
class Token:
    """An IAM token.

    Attributes:
        account: Domain and user, whose refusals are counted together.
        fingerprint: What it was had with; a new token of the same login has the same.
        expires_at: Unix seconds on the server's clock; None where IAM did not say.
    """

    value: SecretStr
    account: str
    fingerprint: Hashable
    expires_at: float | None = None

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """What must never be shown."""
        return (self.value,)


Proof = Key | Token


class Credentials(Protocol):
    """A source of proofs."""

    async def current(self) -> Proof | None:
        """Return what to use now; None: requests carry no proof at all.

        The same object is returned until it changes.

        Raises:
            Rejected: There is none (`Refusal.CREDENTIALS`), or IAM refused the login.
            ApiError: It could not be had just now.
        """

    async def renew(self, refused: Proof, /) -> Proof | None:
        """Return what to use after the API refused a proof; the same if nothing else.

        Raises:
            ApiError: As for `current`.
        """


def no_credentials(what: str) -> Rejected:
    """Return the failure of a source that has nothing, in one sentence."""
    return Rejected(what, refusal=Refusal.CREDENTIALS)
