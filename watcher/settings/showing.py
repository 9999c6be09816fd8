"""Tells people of the settings: what is wrong with them, what they are, what there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from watcher.settings.schema import Settings, Target

_UNIONS = {"credentials": 1, "sinks": 2}
"""Settings of several kinds, and how far behind them pydantic names the kind."""


def findings(exc: ValidationError) -> list[str]:
    """Write one line for each finding: the setting's path and what is wrong."""
    return [
        f"{_path(error['loc'])}: {_problem(error)}"
        for error in exc.errors(include_url=False, include_input=False)
    ]


def _path(loc: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in loc if part != "[key]"]
    for place, part in enumerate(parts):
        if part in _UNIONS:
            at = place + _UNIONS[part]
            del parts[at : at + 1]  # the kind, by which the union was entered
            break
    return ".".join(parts) or "configuration"


def _problem(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "unknown setting"
        case "missing":
            return "is required"
        case "union_tag_not_found":
            return "needs a kind"
        case _:
            message = str(error["msg"]).removeprefix("Value error, ")
            return message[:1].lower() + message[1:]


def as_yaml(settings: Settings) -> str:
    """Write the effective settings as YAML, secrets masked."""
    values = settings.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def paths(model: type[BaseModel] = Settings) -> Iterable[tuple[str, str]]:
    """Yield each setting's dotted path and its default as text, targets as `NAME`."""
    for name, each in model.model_fields.items():
        inner = Target if name == "targets" else each.annotation
        where = f"{name}.NAME" if name == "targets" else name
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from ((f"{where}.{path}", text) for path, text in paths(inner))
        elif each.is_required():
            yield where, "required"
        else:
            yield where, _as_text(each.get_default(call_default_factory=True))


def _as_text(default: object) -> str:
    match default:
        case None | ():
            return "none"
        case BaseModel():
            return str(default.model_dump())
        case _:
            return str(default)
