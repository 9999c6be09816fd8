"""Runs worlds: `python -m tests.world SEED`, or as many as fit; see `make world`."""

import argparse
import gc
import itertools
import json
import os
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.world.coverage import never_met
from tests.world.minimise import minimised
from tests.world.script import draw_script
from tests.world.world import run

KEPT = Path(__file__).parent / "kept"
BATCH = 4


def main():
    parser = argparse.ArgumentParser(prog="make world")
    parser.add_argument("seed", nargs="?", help="a seed, or a script (*.json)")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--worlds", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=1e9, help="of real time")
    parser.add_argument("--hours", type=float, default=1e18, help="of watched jobs")
    parser.add_argument("--quiet", action="store_true", help="long worlds, many jobs")
    parser.add_argument("--trace", action="store_true", help="print traces only")
    parser.add_argument("--stop", action="store_true", help="at the first finding")
    parser.add_argument("--keep", action="store_true", help="keep the least script")
    args = parser.parse_args()
    if args.seed is not None:
        return show(args)
    return many(args)


def script_of(seed, *, quiet=False):
    """Return the script of a seed, or that which a file holds."""
    if str(seed).endswith(".json"):
        return json.loads(Path(seed).read_text())
    return draw_script(str(seed), quiet=quiet)


def show(args):
    """Repeat one world and say all there is to say."""
    script = script_of(args.seed, quiet=args.quiet)
    report = run(script)
    print(f"trace {report.trace}")
    if not report.findings:
        print("nothing found")
        return 0
    print("\n".join(report.last))
    if report.crash is not None:
        traceback.print_exception(report.crash)
    print(f"make world SEED={args.seed}", *report.findings, sep="\n    ")
    small, found = minimised(script, report.findings)
    print(f"the least that shows it, of {len(script['ops'])} operations:")
    print(*small["ops"], sep="\n    ")
    print("its findings:", *found, sep="\n    ")
    if args.keep:
        KEPT.mkdir(exist_ok=True)
        (KEPT / f"{args.seed}.json").write_text(json.dumps(small, indent=1) + "\n")
    return 1


def some(seeds, quiet):
    """Run some worlds, in a process of their own."""
    gc.disable()  # what a world leaves is let go of at once, and not in its middle
    reports = [(seed, run(script_of(seed, quiet=quiet))) for seed in seeds]
    gc.collect()
    for _, report in reports:
        report.crash = None
    return reports


class Tally:
    """What many worlds came to."""

    def __init__(self):
        self.worlds = 0
        self.hours = 0.0
        self.asked = 0
        self.cpu = 0.0
        self.failed = {}
        self.met = Counter()

    def add(self, seed, report):
        self.worlds += 1
        self.hours += report.job_hours
        self.asked += report.asked
        self.met += report.coverage
        if report.findings:
            self.failed[seed] = report.findings
            print(f"make world SEED={seed}: {report.findings[0][:300]}", flush=True)

    def tell(self, seconds):
        met = sorted(self.met.items())
        print(*(f"{count:9} {what}" for what, count in met), sep="\n")
        print("never met:", ", ".join(never_met(self.met)) or "nothing")
        print(
            f"{self.worlds} worlds in {seconds:.0f} s, {len(self.failed)} with findings "
            f"{list(self.failed)[:20]}; {self.asked} requests; {self.hours:.0f} job-hours"
            f" in {self.cpu:.0f} s of CPU: {self.hours / max(self.cpu, 0.01):.1f} a second"
        )


def many(args):
    """Run worlds, those that once failed first; say what was found, met and reached."""
    began, tally = time.monotonic(), Tally()
    kept = [] if args.trace or args.quiet else sorted(map(str, KEPT.glob("*.json")))
    seeds = itertools.chain(kept, itertools.count(args.first))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        pending = []
        while (
            tally.worlds < args.worlds
            and tally.hours < args.hours
            and time.monotonic() - began < args.seconds
            and not (args.stop and tally.failed)
        ):
            while len(pending) < 2 * (os.cpu_count() or 1):
                size = 1 if args.quiet else BATCH
                chosen = list(itertools.islice(seeds, size))
                pending.append(pool.submit(some, chosen, args.quiet))
            for seed, report in pending.pop(0).result():
                if tally.worlds < args.worlds:
                    tally.add(seed, report)
                    if args.trace:
                        print(seed, report.trace)
        pool.shutdown(cancel_futures=True)
    used = os.times()
    tally.cpu = sum(used[:4])
    if not args.trace:
        tally.tell(time.monotonic() - began)
    return int(bool(tally.failed))


if __name__ == "__main__":
    sys.exit(main())
