"""All benchmarks with a gate: one table, pass or miss.

    python -m benchmarks [--quick] [--only polls,large] [--write]

Ratios, not times: what is compared runs in turn, in one go, and what is counted is CPU,
user and system. `--quick` takes less than a minute, leaves out what takes long, and fails
where a gate is missed by more than a factor of three. `--write` writes the page.

A group is a module with `rows(hasty)`, which yields a `Row` for each gate.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

import aiohttp

from benchmarks import burst, large, list_mode, lives, polls, scrape, stored
from benchmarks.row import HEADER

GROUPS = {
    each.__name__.rpartition(".")[2]: each
    for each in (polls, large, burst, lives, list_mode, scrape, stored)
}
PAGE = Path("docs/performance.md")
HEAD = """# What it costs

Gates that a change is held against, and what was measured last. All figures are of the whole
daemon: sign, request, decode, compare, commit, render. Absolute figures differ by a third
between two runs on a shared machine; what is compared ran in turn, in one go, and the ratios
hold; times, memory and shares of a core grow with what else the machine does. A gate that is
missed stays where it is.

```console
$ make bench         # this page, in a quarter of an hour
$ make bench-quick   # under a minute, wide margins; CI runs it
$ python -m benchmarks.polls --against ../earlier   # two checkouts in turn
```

nginx serves the answers, all on this machine; the peers are those of `requirements/bench.txt`.
"""


def machine():
    model = next(
        line.partition(": ")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return (
        f"Measured with Python {platform.python_version()}, aiohttp {aiohttp.__version__}, "
        f"on {os.cpu_count()} shared cores ({model})."
    )


def page(rows):
    """Return the page of these rows."""
    table = [HEADER, *(row.line() for row in rows)]
    told = [row for row in rows if row.tried]
    stories = [f"**{row.work}: {row.gate}.** {row.tried}" for row in told]
    return "\n".join([HEAD, machine(), "", *table, "", "\n\n".join(stories), ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(GROUPS))
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    rows = []
    print(HEADER, flush=True)
    for name in args.only.split(","):
        for row in GROUPS[name].rows(args.quick):
            rows.append(row)
            print(row.line(), flush=True)
    if args.write:
        PAGE.write_text(page(rows))
    far = [row for row in rows if not row.passes(row.wide)]
    if args.quick and far:
        sys.exit(f"{len(far)} gates are missed by far")


if __name__ == "__main__":
    main()
