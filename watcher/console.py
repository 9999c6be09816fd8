"""A log line as people read it: aligned, coloured by result, harmless to a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from watcher.core.model import EventName, Phase, TaskPhase
from watcher.core.transitions import task_phase
from watcher.encoding import printable
from watcher.fields import lasted

_PLAIN = "\x1b[0m"
_CODES = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "dim": 2, "bold": 1}
_PHASES = {
    TaskPhase.FAILED: "red",
    TaskPhase.SUCCEEDED: "green",
    TaskPhase.ACTIVE: "cyan",
}
_LEVELS = {"debug": "dim", "info": "dim", "warning": "yellow"}
_WORD, _WHO, _JOB = 10, 26, 23
_FIRST_OF_ID = 8
_APART = frozenset({"timestamp", "level", "event", "exception", "event_id", "seq"})
"""What is shown by itself, or is for machines."""

Shown: TypeAlias = Mapping[str, Any]


class _Told(NamedTuple):
    """What a journal event says of a job: a result, of what, and more."""

    word: str
    colour: str
    who: str
    text: str


def render(line: Shown, *, colours: bool) -> str:
    """Write a line of the log for people.

    Args:
        line: As JSON has it; of a folded burst with `count` and `servers` too.
        colours: Whether to colour it.
    """
    tell = _EVENTS.get(str(line["event"])) if line.get("event_id") else None
    text = _of_job(line, tell(line), colours) if tell else _plain(line, colours)
    moment = f"{str(line['timestamp']).partition('T')[2][: len('00:00:00')]}Z"
    traceback = "".join(
        f"\n{printable(each)}" for each in str(line.get("exception") or "").split("\n")
    )
    return f"{_painted(moment, 'dim', colours)}  {text}{traceback.rstrip()}"


def _of_job(line: Shown, told: _Told, colours: bool) -> str:
    short = str(line.get("job_id") or "")[:_FIRST_OF_ID]
    name = line.get("job_name")
    job = printable(f"{name}/{short}" if name else short)
    word = printable(told.word).ljust(_WORD)
    who = printable(told.who).ljust(_WHO)
    again = " (told again)" if line.get("replayed") else ""
    text = (
        f"{_painted(word, told.colour, colours)}  {_painted(who, 'bold', colours)}  "
        f"{job.ljust(_JOB)}  {printable(told.text)}{again}"
    )
    return text.rstrip()


def _plain(line: Shown, colours: bool) -> str:
    level = str(line["level"])
    fields = " ".join(
        f"{printable(name)}={_value(value)}"
        for name, value in line.items()
        if name not in _APART and value is not None
    )
    shown = _painted(level.ljust(_WORD), _LEVELS.get(level, "red"), colours)
    return f"{shown}  {printable(str(line['event']))}  {fields}".rstrip()


def _value(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    shown = printable(text)
    return (
        f'"{shown}"'
        if isinstance(value, str) and (" " in shown or not shown)
        else shown
    )


def _painted(text: str, colour: str, colours: bool) -> str:
    code = _CODES.get(colour) if colours else None
    return f"\x1b[{code}m{text}{_PLAIN}" if code else text


def _task(line: Shown) -> _Told:
    word = str(line.get("to") or "")
    colour = _PHASES.get(task_phase(word), "yellow")
    text = str(line.get("message") or "")
    if line["event"] == EventName.TASK_VANISHED:
        word, colour = "VANISHED", "yellow"
    if count := line.get("count"):
        if colour == "red":
            more = count - len(line["servers"])
            named = ", ".join(line["servers"]) + (f" and {more} more" if more else "")
            text = f"{text}  ({named})".lstrip()
        return _Told(word, colour, f"{count} servers", text)
    who = line.get("server_name") or line.get("server_id") or line.get("task_id")
    return _Told(word, colour, str(who), text)


def _counts(line: Shown) -> str:
    tasks = line.get("tasks") or {}
    return ", ".join(f"{count} {word}" for word, count in tasks.items()) or "no tasks"


def _seen(line: Shown) -> _Told:
    again = line["event"] == EventName.REAPPEARED
    who = "job is back" if again else "job first seen"
    colour = "red" if line["phase"] == Phase.FAILED else "cyan"
    return _Told(str(line["phase"]).upper(), colour, who, _counts(line))


def _moved(line: Shown) -> _Told:
    return _Told(str(line["to"]), "cyan", "job", f"was {line['from']}")


def _abnormal(line: Shown) -> _Told:
    text = f"failed on {line['to']} nodes, was {line['from'] or 0}"
    return _Told("ABNORMAL", "yellow", "job", text)


def _finished(line: Shown) -> _Told:
    well = line["phase"] == Phase.SUCCEEDED
    spent = line.get("duration_seconds")
    text = _counts(line) if spent is None else f"{_counts(line)} in {lasted(spent)}"
    return _Told(
        str(line["phase"]).upper(), "green" if well else "red", "job finished", text
    )


_EVENTS: Mapping[str, Callable[[Shown], _Told]] = {
    EventName.TASK_TRANSITION: _task,
    EventName.TASK_VANISHED: _task,
    EventName.FIRST_SEEN: _seen,
    EventName.REAPPEARED: _seen,
    EventName.JOB_TRANSITION: _moved,
    EventName.ABNORMAL_COUNT: _abnormal,
    EventName.FINISHED: _finished,
}
