"""The kinds of sinks: the one place where a new one is named, beside its own file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Field

from watcher.ports import Sink
from watcher.sinks.base import SinkSettings
from watcher.sinks.webhook import Webhook, WebhookSink

if TYPE_CHECKING:
    from watcher.sinks.post import Poster


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of sink.

    Attributes:
        settings: What an operator may set of it.
        make: From these settings, a poster and the wall clock to a sink.
    """

    settings: type[SinkSettings]
    make: Callable[[Any, Poster, Callable[[], float]], Sink]


KINDS: Mapping[str, Kind] = {
    "webhook": Kind(Webhook, WebhookSink),
}

if TYPE_CHECKING:
    AnySink = SinkSettings
else:
    AnySink = Annotated[
        Union[tuple(kind.settings for kind in KINDS.values())],  # noqa: UP007
        Field(discriminator="kind"),
    ]


@asynccontextmanager
async def open_sink(
    given: SinkSettings, now: Callable[[], float]
) -> AsyncIterator[Sink]:
    """Open a sink; it can deliver inside the `async with` block only.

    Args:
        given: Its settings.
        now: Wall clock, Unix seconds.
    """
    # Not above: the settings are read by commands that send nothing and start fast.
    from watcher.sinks.post import open_poster  # noqa: PLC0415

    async with open_poster(given.timeout, now) as poster:
        yield KINDS[given.kind].make(given, poster, now)
