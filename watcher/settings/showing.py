"""Tells people of the settings: what is wrong with them, what they are, what there is."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from watcher.settings.schema import Settings, Target


def findings(
    exc: ValidationError, where: Callable[[Sequence[str]], str] = lambda _: ""
) -> list[str]:
    """Write one line for each finding: the setting, what is wrong, where it is given.

    Args:
        exc: What was found.
        where: Returns the place that gives a setting, or nothing.
    """
    lines = []
    for error in exc.errors(include_url=False, include_input=False):
        parts = _path(error["loc"])
        place = where(parts)
        line = f"{'.'.join(parts) or 'configuration'}: {_problem(error, parts)}"
        lines.append(f"{line} ({place})" if place else line)
    return lines


def _path(loc: tuple[int | str, ...]) -> list[str]:
    parts = [str(part) for part in loc if part != "[key]"]
    if parts[:1] == ["targets"] and parts[2:3] == ["credentials"]:
        del parts[3:4]  # the kind, by which the union was entered
    return parts


def _problem(error: Mapping[str, Any], path: Sequence[str]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return f"unknown setting{_meant(path)}"
        case "missing":
            return "is required"
        case "union_tag_not_found":
            return "needs a kind"
        case _:
            message = str(error["msg"]).removeprefix("Value error, ")
            return message[:1].lower() + message[1:]


def _meant(path: Sequence[str]) -> str:
    """Ask whether another setting was meant, where one is like it."""
    *parents, name = path
    near = nearest(name, _names(parents))
    if near:
        return f"; did you mean {'.'.join([*parents, near])}?"
    homes = [each for each, _ in paths() if each.rpartition(".")[2] == name]
    return f"; did you mean {homes[0]}?" if homes else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the word that was most likely meant, if there is one."""
    return next(iter(difflib.get_close_matches(word, list(known), 1)), None)


def _names(path: Sequence[str]) -> set[str]:
    """Return the names of the settings that may stand at a path."""
    models: set[type[BaseModel]] = {Settings}
    for part in path:
        inner = [m.model_fields[part] for m in models if part in m.model_fields]
        if inner:  # else the name of a target, or a place in a list
            models = {each for field in inner for each in _models(field.annotation)}
    return {name for model in models for name in model.model_fields}


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


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
