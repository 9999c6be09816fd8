"""What a benchmark hands back: one measured ratio against its gate."""

from dataclasses import dataclass

WIDE = 3.0
"""The factor by which a gate may be missed where there is no time to measure well."""


@dataclass(frozen=True)
class Row:
    """A line of the table, and a paragraph below it.

    Attributes:
        work: What was done.
        limit: The gate, a number.
        of: What the number counts, such as "times bare aiohttp".
        measured: In the same unit.
        least: Whether the gate is what must be reached; else what may not be exceeded.
        note: The figures behind the ratio, in a few words.
        wide: `WIDE`, or more where the gate is known to be missed by more.
        tried: What was tried, what helped, what did not, what could come next.
    """

    work: str
    limit: float
    of: str
    measured: float
    least: bool = False
    note: str = ""
    tried: str = ""
    wide: float = WIDE

    def passes(self, margin=1.0):
        """Whether the gate is reached, or missed by no more than a factor."""
        if self.least:
            return self.measured >= self.limit / margin
        return self.measured <= self.limit * margin

    @property
    def gate(self):
        return f"{'≥' if self.least else '≤'} {self.limit:g} {self.of}"

    @property
    def verdict(self):
        """`pass`, or by how much it is missed."""
        if self.passes():
            return "pass"
        over = self.measured / self.limit
        return f"**miss** by {abs(1 - over):.0%}"

    def line(self):
        return f"| {self.work} | {self.gate} | {self.measured:.3g} | {self.verdict} | {self.note} |"


HEADER = "| work | gate | measured | | figures |\n|---|---|--:|---|---|"
