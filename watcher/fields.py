"""What settings are made of, for every room that has some: durations, lists, sections."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

NAME = r"[a-z0-9][a-z0-9-]{0,39}"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def parse_duration(value: object) -> object:
    """Read `500ms`, `10s`, `1h30m` or a number of seconds as float seconds."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"'{text[:40]}' is not a duration such as 500ms, 10s or 1h30m"
        ) from None


def _split(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


Split = BeforeValidator(_split)
"""Of a tuple: takes a comma list too."""
Duration = Annotated[
    float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)
]
Interval = Annotated[Duration, Field(gt=0)]


class Section(BaseModel):
    """A part of the configuration: closed to unknown keys, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def lasted(seconds: float) -> str:
    """Write seconds in their two largest units, such as `3m12s`."""
    left, parts = max(0, int(seconds)), list[str]()
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(UNITS[unit]))
        if count or parts:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or "0s"
