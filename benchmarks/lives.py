"""How the daemon starts, idles, copes with a slow cloud, with many jobs and with change."""

import asyncio
import json
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import cloud, daemon, job_of, settings
from benchmarks.row import Row

MIB = 2**20
TOKEN = "a-token-of-32-characters-or-more"


def rows(hasty):
    yield start()
    yield slow_cloud(3.0 if hasty else 15.0)
    if not hasty:
        yield from idle(60.0)
        yield many(20.0)
        yield comings_and_goings(1000, 5)


def start():
    names = [f"job-{number}" for number in range(1000)]
    poll = {"requests_per_second": 100}
    with cloud() as url, daemon(settings(url, names, "10m", poll=poll)) as watcher:
        return Row(
            "start with 1,000 jobs, `interval: 10m`, 100 requests a second",
            11.0,
            "s until `/readyz` is 200",
            watcher.ready(),
            note="the process itself included",
        )


def slow_cloud(seconds):
    with answering_after(0.2) as url:
        names = [f"job-{number}" for number in range(1000)]
        values = settings(url, names, "10s")
        for name in ("requests_per_second", "max_in_flight"):
            del values["poll"][name]
        with daemon(values) as watcher:
            time.sleep(3.0)
            _, rate = watcher.cost(seconds)
    return Row(
        "one key, answers after 200 ms, defaults",
        20.0,
        "polls a second",
        rate,
        least=True,
        note="the default rate is 20, the default limit of a key 5 in flight",
    )


@contextmanager
def answering_after(delay):
    """Serve jobs, each answer late, by a loop in a thread of its own."""

    async def serve(reader, writer):
        with_end = b"\r\n\r\n"
        try:
            while head := await reader.readuntil(with_end):
                job = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
                body = job_of(job, ["PROCESSING"]).encode()
                await asyncio.sleep(delay)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                )
                writer.write(body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def idle(seconds):
    with cloud() as url, daemon(settings(url, ["job-0"], "10s")) as watcher:
        watcher.ready()
        time.sleep(5.0)
        before = watcher.used
        time.sleep(seconds)
        share = 100 * (watcher.used - before) / seconds
        memory = watcher.resident / MIB
    work = "one job, idle"
    yield Row(work, 0.1, "% of a core", share, note=f"over {seconds:.0f} s")
    yield Row(work, 56.0, "MiB", memory)


def many(seconds):
    """CPU a poll at 100,000 jobs against 1,000, at the same rate."""
    cost = {}
    with cloud() as url:
        for jobs, warm in ((1000, 5.0), (100_000, 15.0)):
            names = [f"job-{number}" for number in range(jobs)]
            with daemon(settings(url, names, jobs / 500)) as watcher:
                watcher.ready()
                watcher.cost(warm)
                cost[jobs] = watcher.cost(seconds)[0]
    few, all_of_them = cost.values()
    return Row(
        "100,000 jobs, 500 polls/s",
        1.2,
        "× CPU a poll at 1,000",
        all_of_them / few,
        note=f"{all_of_them:.0f} µs a poll, {few:.0f} µs; one scrape of all of them within",
    )


def comings_and_goings(jobs, waves):
    """So many jobs are added over HTTP and removed again, wave after wave."""
    memory, files = [], []
    with cloud() as url:
        values = settings(url, ["job-0"], "1s")
        with daemon({**values, "server": {"api_token": TOKEN}}) as watcher:
            watcher.ready()
            for wave in range(waves):
                names = [f"wave-{wave}-{number}" for number in range(jobs)]
                for name in names:
                    asked = {"target": "prod", "job_id": name}
                    ask(watcher.url, "POST", "/api/v1/jobs", asked)
                time.sleep(2.0)
                for name in names:
                    ask(watcher.url, "DELETE", f"/api/v1/jobs/prod/{name}")
                memory.append(watcher.resident / MIB)
                files.append(len([*Path(f"/proc/{watcher.pid}/fd").iterdir()]))
    return Row(
        f"{jobs * waves:,} jobs coming and going, {jobs:,} at a time, in minutes",
        1.05,
        "× memory after the second thousand",
        memory[-1] / memory[1],
        note=f"{memory[1]:.1f} to {memory[-1]:.1f} MiB, {files[1]} to {files[-1]} files",
    )


def ask(url, method, path, values=None):
    request = urllib.request.Request(
        url + path,
        method=method,
        data=None if values is None else json.dumps(values).encode(),
        headers={
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=30):
        pass
