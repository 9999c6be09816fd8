"""CPU of the daemon for each poll of a job that does not change.

    python -m benchmarks.polls [--jobs 1000] [--rate 500] [--seconds 10] [--against DIR]

The whole daemon: sign, request, decode, compare, keep the time of the look, render.
`--against` names another checkout of the watcher, such as an earlier version; they run in
turn, so that the ratio holds where the machine's speed drifts.
"""

import argparse
from pathlib import Path
from statistics import median

from benchmarks.processes import HERE, cloud, daemon, peer, settings
from benchmarks.row import Row

RATE, JOBS, THREADS, TICK = 500, 1000, 8, 0.1


def measure(url, jobs=JOBS, rate=RATE, seconds=10.0, checkout=HERE):
    """Run one daemon; return CPU in µs a poll, polls a second, bytes of memory."""
    names = [f"job-{number}" for number in range(jobs)]
    with daemon(settings(url, names, jobs / rate), checkout) as watcher:
        watcher.ready()
        watcher.cost(jobs / rate + 1)  # the first two rounds
        return *watcher.cost(seconds), watcher.resident


def rows(hasty):
    """Compare with aiohttp, paced evenly and in ticks, and with the official SDK."""
    seconds, found = (3.0 if hasty else 10.0), {}
    with cloud() as url:
        for _ in range(1 if hasty else 4):
            for name, cost in (
                ("us", lambda: measure(url, seconds=seconds)[0]),
                ("even", lambda: peer("aiohttp", url, RATE, seconds, 0)),
                ("ticks", lambda: peer("aiohttp", url, RATE, seconds, TICK)),
                ("sdk", lambda: peer("sdk", url, int(seconds * 200), THREADS, "-")),
                ("httpx", lambda: peer("httpx", url, 100, seconds, 0)),
            ):
                found.setdefault(name, []).append(cost())
    cost = {name: median(costs) for name, costs in found.items()}
    us, work = cost["us"], "1,000 jobs of one task, unchanged, 500 polls/s, signed"
    note = "{:.0f} µs a poll, {:.0f} µs".format
    yield Row(
        work,
        1.0,
        "× aiohttp GET and json, evenly paced",
        us / cost["even"],
        note=note(us, cost["even"]),
        tried=EVEN,
    )
    yield Row(
        "the same",
        1.3,
        "× aiohttp in equal ticks",
        us / cost["ticks"],
        note=note(us, cost["ticks"]),
        tried=TICKS,
    )
    yield Row(
        "the same",
        4.0,
        "× cheaper than the official SDK in threads",
        cost["sdk"] / us,
        least=True,
        note=f"{note(us, cost['sdk'])}; httpx at 100 a second {cost['httpx']:.0f} µs",
        tried=SDK,
    )


EVEN = """Polls that fall due within 100 ms are released together, so that one turn of the
loop serves many: paced evenly, aiohttp alone costs about twice what it costs in ticks. An answer
that repeats the last one byte for byte is neither masked, decoded nor compared; addresses and
series of metrics are kept and not made for each request, and plain asyncio stands where a
task group or a generator as context manager stood. Together 240 µs where it was 416. A key that
lets 64 requests go instead of five brought 282 to 240: fewer turns. uvloop brought nothing."""
TICKS = """The peer neither signs nor remembers, nor is it limited, observed or asked for
metrics; it only reads JSON. By profile, half of a poll is aiohttp's session and connector, a fifth
takes in the look and counts it, a fourteenth is the signature. Next: speak HTTP/1.1 over aiohttp's
connection and parser without its session, which makes and drops a dozen objects a request."""
SDK = """Eight threads, each asking as fast as it can: pacing would cost it more, and it is not
asked to keep 500 requests a second."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path)
    args = parser.parse_args()
    found = {}
    with cloud() as url:
        for _ in range(args.rounds):
            for title, checkout in (("now", HERE), ("before", args.against)):
                if checkout is not None:
                    row = measure(url, args.jobs, args.rate, args.seconds, checkout)
                    found.setdefault(title, []).append(row)
            for title, tick in (("aiohttp even", 0), ("aiohttp ticks", TICK)):
                cost = peer("aiohttp", url, args.rate, args.seconds, tick)
                found.setdefault(title, []).append((cost, args.rate, 0))
    base = {title: median(row[0] for row in rows) for title, rows in found.items()}
    for title, runs in found.items():
        rate, memory = median(r[1] for r in runs), median(r[2] for r in runs)
        print(
            f"{title:14} {base[title]:7.0f} µs a poll   {rate:6.0f} polls/s   "
            f"{memory / 2**20:6.1f} MiB   now/this {base['now'] / base[title]:.2f}"
        )


if __name__ == "__main__":
    main()
