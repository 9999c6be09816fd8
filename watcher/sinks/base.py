"""What an operator may set of every kind of sink: its name, and what it is told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from watcher.core.model import EventName, JournalEvent, Phase
from watcher.fields import NAME, Interval, Section, Split


class SinkSettings(Section):
    """One entry of `sinks`; a kind narrows `kind`, names itself and adds its own.

    Attributes:
        name: Its delivery state is kept under it.
        events: Names of the events that it is told; None means all.
        phases: Phases that it is told; None means all. Events without a phase pass.
        timeout: Seconds for one request.
    """

    kind: str
    name: str = Field(pattern=f"^{NAME}$")
    events: Annotated[tuple[EventName, ...], Split] | None = None
    phases: Annotated[tuple[Phase, ...], Split] | None = None
    timeout: Interval = 10.0

    def wants(self, event: JournalEvent) -> bool:
        """Whether the sink is to be told."""
        if self.events is not None and event.transition.event not in self.events:
            return False
        phase = event.transition.fields.get("phase")
        return self.phases is None or phase is None or phase in self.phases
