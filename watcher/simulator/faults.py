"""Fault rules: what goes wrong, on which requests, and how it is written down.

A rule is written `kind:key=value,key=value`, several are joined by `;`; or as JSON, a
list of objects with the same keys and the kind under `kind`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

ALL_PERCENT = 100

CALLS = (
    "detail",
    "list",
    "create",
    "delete",
    "token",
    "projects",
    "metadata_token",
    "metadata_key",
    "unknown",
)

KINDS: Mapping[str, str] = {
    "429": "throttled by the gateway; `retry_after`",
    "500": "internal error of the service",
    "502_html": "a proxy's page: bad gateway",
    "503": "IAM cannot be reached by the gateway",
    "504": "the gateway waited too long for the service",
    "403": "not authorized to call this API",
    "404_html": "a web server's page: not found",
    "404_apigw": "the gateway does not know the path (APIGW.0101)",
    "404_json": "job not found, as HTTP 404",
    "gone": "job not found, as HTTP 400 with ModelArts.6404",
    "302": "redirect to `location`",
    "bad_signature": "the signature does not hold",
    "unknown_key": "the access key does not exist",
    "expired": "the signature has expired",
    "locked": "the access key is locked",
    "token_expired": "the token must be updated (APIGW.0307)",
    "echo_secret": "an error (`status`) that quotes the request's credentials",
    "not_json": "200 with text that is not JSON",
    "html_200": "200 with a log-in page",
    "empty_200": "200 with nothing",
    "wrong_id": "200 with another id",
    "duplicate_tasks": "each task twice, the second one contradicting the first",
    "missing_tasks": "no task list",
    "null_tasks": "a task list that is null",
    "vanish": "the first task is left out",
    "flip": "all ended tasks are back in PROCESSING",
    "stale_rows": "a list whose rows do not move while a job runs",
    "unknown_words": "status words that no edition knows",
    "wrong_types": "fields of another type than documented",
    "bad_utf8": "texts that are not UTF-8",
    "hostile_text": "line ends, escape sequences and markup in names and messages",
    "big_body": "`size` bytes more, in a field that nobody knows",
    "deep_nesting": "`size` lists in one another, in a field that nobody knows",
    "truncated": "the connection closes in the middle of the body",
    "slow_drip": "one byte every `seconds`",
    "hang": "no answer for `seconds`; for ever where not given",
    "reset": "the connection is reset instead of answered",
    "skewed_date": "the Date header is ahead by `seconds`",
}
"""All kinds of faults, with what each is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One rule: something goes wrong on certain requests.

    A request is one of the rule's own if `call`, `job`, `after` and `until` fit; `nth`,
    `every` and `percent` choose among these, and `count` ends it.

    Attributes:
        kind: One of `KINDS`.
        call: One of `CALLS`, or `any`.
        job: Only requests for this job id.
        nth: Only the one with this number, from 1.
        every: Only each so-manieth.
        percent: Only so many in a hundred, by chance.
        count: Only so many times.
        after: Only from this second after the start.
        until: Only before this second after the start.
        clock: Which seconds `after` and `until` count.
        seconds: A duration, where the kind has one.
        size: A size, where the kind has one.
        status: An HTTP status, where the kind has a choice.
        retry_after: The Retry-After header of `429`; None leaves it out.
        location: Where `302` leads to.
    """

    kind: str
    call: str = "any"
    job: str | None = None
    nth: int | None = None
    every: int | None = None
    percent: float | None = None
    count: int | None = None
    after: float = 0.0
    until: float = math.inf
    clock: Literal["real", "simulated"] = "real"
    seconds: float | None = None
    size: int | None = None
    status: int = 500
    retry_after: str | None = None
    location: str = "https://auth.example.com/login"

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            ValueError: One line that names the bad word.
        """
        _known("kind", self.kind, KINDS)
        _known("call", self.call, ("any", *CALLS))
        _known("clock", self.clock, ("real", "simulated"))
        for name in ("nth", "every", "count", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"faults: {name}={value} is not 1 or more")
        if self.percent is not None and not 0 <= self.percent <= ALL_PERCENT:
            raise ValueError(f"faults: percent={self.percent} is not within 0 and 100")


_READERS: dict[str, Callable[[Any], Any]] = {
    "nth": int,
    "every": int,
    "count": int,
    "size": int,
    "status": int,
    "percent": float,
    "after": float,
    "until": float,
    "seconds": float,
}


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read fault rules, in either notation.

    Raises:
        ValueError: One line that names the bad word.
    """
    if text.lstrip().startswith(("[", "{")):
        return _parse_json(text)
    rules = (rule.strip() for rule in text.split(";"))
    return tuple(_parse_rule(rule) for rule in rules if rule)


def load_faults(argument: str) -> tuple[Fault, ...]:
    """Read fault rules from a text, or from the file it names (`*.json`).

    Raises:
        ValueError: One line that names the bad word or the file.
    """
    if not argument.endswith(".json"):
        return parse_faults(argument)
    try:
        return parse_faults(Path(argument).read_text(encoding="utf-8"))
    except OSError as exc:
        raise ValueError(f"faults: cannot read {argument}: {exc.strerror}") from exc


def describe(fault: Fault) -> dict[str, Any]:
    """Return a rule as JSON would have it, without what is at its default."""
    defaults = {field.name: field.default for field in fields(Fault)}
    return {
        name: value for name, value in asdict(fault).items() if value != defaults[name]
    }


def _parse_json(text: str) -> tuple[Fault, ...]:
    try:
        entries = json.loads(text)
    except ValueError as exc:
        raise ValueError(f"faults: not JSON: {exc}") from exc
    if not isinstance(entries, list):
        entries = [entries]
    for entry in entries:
        if not isinstance(entry, dict):
            raise ValueError(f"faults: {entry!r} is not an object")  # noqa: TRY004
    return tuple(_build(entry) for entry in entries)


def _parse_rule(text: str) -> Fault:
    kind, _, rest = text.partition(":")
    entry = {"kind": kind.strip()}
    for word in filter(None, (word.strip() for word in rest.split(","))):
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"faults: {word!r} in {text!r} is not key=value")
        entry[name.strip()] = value.strip()
    return _build(entry)


def _build(entry: Mapping[str, Any]) -> Fault:
    if "kind" not in entry:
        raise ValueError(f"faults: {dict(entry)!r} has no kind")
    names = [field.name for field in fields(Fault)]
    for name in entry:
        _known("key", name, names)
    read = {name: _read(name, value) for name, value in entry.items()}
    return Fault(**read)


def _read(name: str, value: Any) -> Any:
    try:
        return _READERS.get(name, str)(value)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"faults: {name}={value} is not a number") from exc


def _known(what: str, word: str, words: Iterable[str]) -> None:
    if word not in words:
        raise ValueError(f"faults: unknown {what} {word!r}; known: {', '.join(words)}")
