"""What an examination finds, and the exit code that it comes to; pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Status(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


class Fault(IntEnum):
    """What kind of failure it is; the value is the exit code, as in sysexits.h."""

    OTHER = 1
    UNREACHABLE = os.EX_UNAVAILABLE
    REFUSED = os.EX_NOPERM
    SETTINGS = os.EX_CONFIG


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one step.

    Attributes:
        text: One sentence; may hold text from outside.
        hint: What to do about it, or None.
        fault: None unless the step failed.
    """

    step: str
    status: Status
    text: str
    hint: str | None = None
    fault: Fault | None = None

    @property
    def passed(self) -> bool:
        """Whether what builds on the step makes sense."""
        return self.status in {Status.OK, Status.WARN}


def ok(step: str, text: str) -> Finding:
    """Return the finding of a step that found nothing wrong."""
    return Finding(step, Status.OK, text)


def warn(step: str, text: str, hint: str) -> Finding:
    """Return a finding that holds nothing up."""
    return Finding(step, Status.WARN, text, hint)


def fail(step: str, text: str, hint: str, fault: Fault = Fault.OTHER) -> Finding:
    """Return a finding that needs somebody."""
    return Finding(step, Status.FAIL, text, hint, fault)


def skipped(step: str, text: str) -> Finding:
    """Return the finding of a step that was not taken."""
    return Finding(step, Status.SKIPPED, text)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings.

    Attributes:
        targets: Those of each target, in the order of its steps.
        daemon: Those that concern no target.
    """

    targets: Mapping[str, Sequence[Finding]]
    daemon: Sequence[Finding]

    @property
    def all(self) -> Iterable[Finding]:
        """All findings, one after the other."""
        for findings in self.targets.values():
            yield from findings
        yield from self.daemon

    @property
    def exit_code(self) -> int:
        """The exit code of the process.

        78 where the configuration is at fault, else 77 where credentials were refused,
        else 69 where no target could be reached, else 1 for any other fault, else 0.
        """
        faults = {finding.fault for finding in self.all if finding.fault is not None}
        for fault in (Fault.SETTINGS, Fault.REFUSED):
            if fault in faults:
                return fault
        if all(map(_unreachable, self.targets.values())):
            return Fault.UNREACHABLE
        return Fault.OTHER if faults else os.EX_OK


def _unreachable(findings: Sequence[Finding]) -> bool:
    return any(finding.fault is Fault.UNREACHABLE for finding in findings)
