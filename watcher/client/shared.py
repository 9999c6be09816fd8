"""What all targets of a process share on their way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import aiohttp

from watcher.client.breaker import Breakers
from watcher.client.clock import ServerClock

RequestKind = Literal["detail", "list", "token"]
OnRequest = Callable[[RequestKind], None]
"""Told of each request as it is sent; `token` is any request to IAM."""


@dataclass(frozen=True, slots=True)
class SharedClient:
    """Connections, the servers' time, and the breakers."""

    session: aiohttp.ClientSession
    clock: ServerClock
    breakers: Breakers
