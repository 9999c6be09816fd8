"""The first of several sources that has a key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from watcher.client.classify import one_line
from watcher.client.credentials.base import Credentials, Proof, no_credentials
from watcher.client.credentials.metadata import ADDRESS, MetadataCredentials
from watcher.client.credentials.profiles import ProfileCredentials
from watcher.client.credentials.static import EnvironmentCredentials
from watcher.client.shared import SharedClient
from watcher.core.errors import Refusal, Rejected


def default_chain(
    shared: SharedClient,
    environment: Mapping[str, str] = os.environ,
    metadata_address: str = ADDRESS,
) -> ChainCredentials:
    """Return the chain: environment, profile file, metadata service."""
    return ChainCredentials(
        (
            EnvironmentCredentials(environment),
            ProfileCredentials(environment),
            MetadataCredentials(
                shared.session, shared.clock.server_time, metadata_address
            ),
        )
    )


class ChainCredentials:
    """Asks its sources in order, at every request: an earlier one may have come up."""

    def __init__(self, sources: Sequence[Credentials]) -> None:
        self._sources = sources
        self._used = sources[0]

    async def current(self) -> Proof | None:
        """Return what the first source gives that has something.

        Raises:
            Rejected: None has; the message says what each lacks.
        """
        lacks = []
        for source in self._sources:
            try:
                proof = await source.current()
            except Rejected as error:
                if error.refusal is not Refusal.CREDENTIALS:
                    raise
                lacks.append(error.message)
            else:
                self._used = source
                return proof
        raise no_credentials(one_line(f"no credentials found: {'; '.join(lacks)}"))

    async def renew(self, refused: Proof, /) -> Proof | None:
        """Return what the source in use gives instead.

        Raises:
            ApiError: It has nothing any more.
        """
        return await self._used.renew(refused)
