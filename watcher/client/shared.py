"""What all targets of a process share on their way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
import anyio

from watcher.client.breaker import Breakers
from watcher.client.clock import ServerClock

RequestKind = Literal["detail", "list", "token"]
OnRequest = Callable[[RequestKind], None]
"""Told of each request as it is sent; `token` is any request to IAM."""


@dataclass(frozen=True, slots=True)
class SharedClient:
    """Connections, the servers' time, and the breakers.

    Attributes:
        decoding: Lets one large answer be read at a time, in a thread of its own.
    """

    session: aiohttp.ClientSession
    clock: ServerClock
    breakers: Breakers
    decoding: anyio.CapacityLimiter = field(
        default_factory=lambda: anyio.CapacityLimiter(1)
    )
