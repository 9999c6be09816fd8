"""Tells people of the settings: what is wrong with them, what they are, what there is."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from watcher.fields import UNITS, parse_duration
from watcher.settings.schema import Settings


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
    # The kind, by which a choice of several was entered.
    if parts[:1] == ["sinks"]:
        del parts[2:3]
    if parts[:1] == ["targets"] and parts[2:3] == ["credentials"]:
        del parts[3:4]
    return parts


def _problem(error: Mapping[str, Any], path: Sequence[str]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return f"unknown setting{_meant(path)}"
        case "missing":
            return "is required"
        case "union_tag_not_found":
            return "needs a kind"
        case "tuple_type" | "list_type":
            return "must be a list, each entry on a line of its own behind `- `"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "must have names below it, each with its value: `name: value`"
        case _:
            message = str(error["msg"]).removeprefix("Value error, ")
            return message[:1].lower() + message[1:]


def _meant(path: Sequence[str]) -> str:
    """Ask whether another setting was meant, where one is like it."""
    *parents, name = path
    near = nearest(name, _names(parents))
    if near:
        return f"; did you mean {'.'.join([*parents, near])}?"
    homes = [p for p, *_ in described() if p.rpartition(".")[2] == name]
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


def marked_yaml(settings: Settings) -> str:
    """Write the same, and beside what is not the default what that is."""
    return "\n".join(_marked(settings, "")) + "\n"


def _marked(model: BaseModel, indent: str) -> Iterator[str]:
    plain = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel) and section_of(field):
            yield f"{indent}{name}:"
            yield from _marked(value, f"{indent}  ")
        elif name == "targets":
            for target in value:
                yield f"{name}:" if target == next(iter(value)) else ""
                yield f"  {in_line(target)}:"
                yield from _marked(value[target], "    ")
        else:
            leaf = {name: plain[name]}
            text = yaml.safe_dump(leaf, allow_unicode=True, sort_keys=False, width=1000)
            first, *more = text.splitlines()
            changed = value != field.get_default(call_default_factory=True)
            if changed and (not more or first == f"{name}:"):
                first += f"  # default: {default_of(field) or 'none'}"
            yield from (f"{indent}{line}" for line in (first, *more))


class Described(NamedTuple):
    """A setting, as people are told of it.

    Attributes:
        path: Dotted; the name of a target is `NAME`.
        default: As it would be written; `none` where nothing is set.
        what: What it means; Markdown.
    """

    path: str
    default: str
    what: str


def described(model: type[BaseModel] = Settings) -> Iterator[Described]:
    """Yield every setting, in the order of the schema."""
    for name, each in model.model_fields.items():
        where = f"{name}.NAME" if name == "targets" else name
        inner = section_of(each)
        if inner is None or get_origin(each.annotation) is UnionType:
            yield Described(where, default_of(each) or "none", each.description or "")
        for one in described(inner) if inner else ():
            yield one._replace(path=f"{where}.{one.path}")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a setting is; None for a value, or a choice of several."""
    models = list(_models(field.annotation))
    whole = get_origin(field.annotation) in {None, UnionType, dict}
    return models[0] if whole and len(models) == 1 else None


def default_of(field: FieldInfo) -> str:
    """Return a default as one would write it in the file; empty for none."""
    value = field.get_default(call_default_factory=True)
    if value is None or value == () or field.is_required():
        return ""
    return in_line(duration(value) if _is_duration(field) else value)


def in_line(value: object) -> str:
    """Write a value as YAML, on one line."""
    plain = value.model_dump() if isinstance(value, BaseModel) else value
    plain = plain.value if isinstance(plain, Enum) else plain
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _is_duration(field: FieldInfo) -> bool:
    return any(getattr(each, "func", None) is parse_duration for each in field.metadata)


def duration(seconds: float) -> str:
    """Write seconds as `10s` or `5m`."""
    for unit, length in reversed(UNITS.items()):
        if seconds >= length and seconds % length == 0 and unit != "w":
            return f"{seconds / length:.10g}{unit}"
    return f"{seconds:.10g}s"
