"""Records and transitions as JSON text; loading what was saved gives it back equal."""

from __future__ import annotations

import msgspec

from watcher.core.model import JobRecord, Transition

_RECORD = msgspec.json.Decoder(JobRecord)
_TRANSITION = msgspec.json.Decoder(Transition)
_ENCODER = msgspec.json.Encoder()

Unreadable = msgspec.DecodeError
"""Raised for text that is not what it should be."""


def encode(value: JobRecord | Transition) -> str:
    """Write a value as JSON."""
    return _ENCODER.encode(value).decode()


def decode_record(text: str) -> JobRecord:
    """Read a record; raise `Unreadable` if it is none."""
    return _RECORD.decode(text)


def decode_transition(text: str) -> Transition:
    """Read a transition; raise `Unreadable` if it is none."""
    return _TRANSITION.decode(text)
