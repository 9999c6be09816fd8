"""Shows a diagnosis: to people as aligned lines, to programs as one JSON object."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TextIO

from pydantic import SecretStr

from watcher.client.masking import Mask
from watcher.doctor.findings import Diagnosis, Finding, Status
from watcher.encoding import printable

_MARKS = {
    Status.OK: "✓",
    Status.WARN: "!",
    Status.FAIL: "✗",
    Status.SKIPPED: "\N{EN DASH}",
}
_ASCII = {Status.OK: "+", Status.WARN: "!", Status.FAIL: "x", Status.SKIPPED: "-"}
_COLOURS = {Status.OK: 32, Status.WARN: 33, Status.FAIL: 31, Status.SKIPPED: 2}
_DAEMON = "this machine"


def clean(diagnosis: Diagnosis, secrets: Iterable[SecretStr]) -> Diagnosis:
    """Return a diagnosis that may be shown.

    Secrets are masked, and what could steer a terminal is written out.
    """
    mask = Mask(secrets)

    def wash(text: str) -> str:
        masked = mask.apply(text.encode("utf-8", "backslashreplace"))
        return printable(masked.decode("utf-8", "backslashreplace"))

    def wash_all(findings: Sequence[Finding]) -> list[Finding]:
        return [
            replace(
                each,
                text=wash(each.text),
                hint=None if each.hint is None else wash(each.hint),
            )
            for each in findings
        ]

    return Diagnosis(
        {name: wash_all(findings) for name, findings in diagnosis.targets.items()},
        wash_all(diagnosis.daemon),
    )


def write(diagnosis: Diagnosis, out: TextIO, *, as_json: bool) -> None:
    """Write a clean diagnosis.

    Args:
        diagnosis: As `clean` returns it.
        out: Coloured if it is a terminal and `NO_COLOR` is not set.
        as_json: One JSON object, on one line.
    """
    if as_json:
        json.dump(_as_object(diagnosis), out)
        out.write("\n")
        return
    encoding = out.encoding or "utf-8"
    colours = out.isatty() and not os.environ.get("NO_COLOR")
    lines = "\n".join(_lines(diagnosis, _marks(encoding), colours=colours))
    out.write(lines.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def _as_object(diagnosis: Diagnosis) -> Mapping[str, object]:
    return {
        "ok": diagnosis.exit_code == os.EX_OK,
        "targets": {
            name: {
                "ok": all(finding.fault is None for finding in findings),
                "findings": [_finding(each) for each in findings],
            }
            for name, findings in diagnosis.targets.items()
        },
        "findings": [_finding(each) for each in diagnosis.daemon],
    }


def _finding(finding: Finding) -> Mapping[str, str | None]:
    return {
        "step": finding.step,
        "status": finding.status,
        "text": finding.text,
        "hint": finding.hint,
    }


def _marks(encoding: str) -> Mapping[Status, str]:
    try:
        "".join(_MARKS.values()).encode(encoding)
    except UnicodeEncodeError:
        return _ASCII
    return _MARKS


def _lines(
    diagnosis: Diagnosis, marks: Mapping[Status, str], *, colours: bool
) -> Iterator[str]:
    width = max((len(finding.step) for finding in diagnosis.all), default=0)
    for name, findings in {**diagnosis.targets, _DAEMON: diagnosis.daemon}.items():
        yield name
        for each in findings:
            mark = marks[each.status]
            if colours:
                mark = f"\x1b[{_COLOURS[each.status]}m{mark}\x1b[0m"
            yield f"  {mark} {each.step:{width}}  {each.text}"
            if each.hint is not None:
                yield f"    {'':{width}}  hint: {each.hint}"
    count = sum(finding.fault is not None for finding in diagnosis.all)
    yield f"{count or 'no'} fault{'' if count == 1 else 's'} found"
