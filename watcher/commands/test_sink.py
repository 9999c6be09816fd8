"""`watcher test-sink`: whether a sink takes a message, before one matters."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from watcher.commands.command import Commands, Exit, Flags, add, complain, origin_of
from watcher.core.errors import SettingsError, SinkError
from watcher.core.model import JobKey, JournalEvent, Level
from watcher.core.transitions import rfc3339, transition
from watcher.ports import Undeliverable
from watcher.settings.schema import Settings
from watcher.sinks.base import SinkSettings
from watcher.sinks.kinds import open_sink

EVENT = "sink.test"


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add(
        commands, "test-sink", _try, "send one marked message to a sink", settable=True
    )
    parser.add_argument("name", metavar="NAME", help="of the sink")


def _try(args: argparse.Namespace, flags: Flags) -> int:
    import anyio

    from watcher.daemon import app

    given = _named(args.name, origin_of(args, flags).load())
    try:
        anyio.run(_send, given, app.wall)
    except SinkError as error:
        given_up = isinstance(error, Undeliverable)
        fate = "given up" if given_up else "offered again"
        complain(f"{given.name}: refused: {error}; an event would be {fate}")
        return Exit.FAILED
    print(f"{given.name}: taken")  # noqa: T201
    return Exit.OK


def _named(name: str, settings: Settings) -> SinkSettings:
    for given in settings.sinks:
        if given.name == name:
            return given
    known = ", ".join(sink.name for sink in settings.sinks) or "none is configured"
    raise SettingsError([f"sinks: there is no sink '{name}' ({known})"])


async def _send(given: SinkSettings, now: Callable[[], float]) -> None:
    everything = given.model_copy(update={"events": None, "phases": None})
    async with open_sink(everything, now) as sink:
        await sink.deliver([marked_event(now())])


def marked_event(now: float) -> JournalEvent:
    """Make an event that is in no journal; another one at each moment."""
    fields = {
        "project_id": None,
        "job_id": "test",
        "job_name": "watcher test-sink",
        "observed_at": rfc3339(now),
        "test": True,
    }
    key = JobKey("test", "test")
    return JournalEvent(0, transition(key, EVENT, Level.INFO, int(now * 1000), fields))
