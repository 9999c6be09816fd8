"""The least of a script that still shows what was found."""

import re

from tests.world.world import run

MOST_RUNS = 200


def kind_of(finding):
    """Return a finding without what is particular to it."""
    return re.sub(r"[0-9a-f-]{8,}|[\d.]+", "#", finding)[:60]


def minimised(script, findings):
    """Leave out operations, halves first, as long as it still shows one of these."""
    wanted = {kind_of(each) for each in findings}
    ops, found = list(script["ops"]), findings
    size, runs = max(1, len(ops) // 2), 0
    while ops and runs < MOST_RUNS:
        for start in range(0, len(ops), size):
            fewer = ops[:start] + ops[start + size :]
            report = run({**script, "ops": fewer})
            runs += 1
            if wanted & {kind_of(each) for each in report.findings}:
                ops, found = fewer, report.findings
                break
        else:
            if size == 1:
                break
            size = max(1, size // 2)
    return {**script, "ops": ops}, found
