"""CPU of the daemon for each poll of a job that does not change, and memory for each job.

    python -m benchmarks.polls [--jobs 1000] [--rate 500] [--seconds 20] [--against DIR]

The whole daemon: sign, request, decode, compare, keep the time of the look. nginx answers
from a template, so that the server is not the bottleneck. `--against` names another
checkout of the watcher, such as an earlier version; the two run in turn, so that the ratio
holds where the machine's speed drifts. The peers are one process each: aiohttp alone, GET
and JSON, evenly paced and in ticks of 100 ms.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import yaml

TASK = (
    '{"id":"t1","create_at":1757558550733,"update_at":1757558564470,"status":"PROCESSING",'
    '"message":"","server_id":"s1","server_name":"liteserver-a2-aiserver-001",'
    '"cloud_server":{"id":"c1","type":"BMS"}}'
)
JOB = (
    '{"create_at":1757558550702,"update_at":1757558564458,"id":"$1","name":"query",'
    '"type":"ASCEND_SOFTWARE_QUERY","status":"PROCESSING","items":[{"type":"HDK_QUERY"}],'
    '"tasks":[' + TASK + '],"template_id":"tpl","user_name":"zoe","abnormal_count":0,'
    '"description":"Query software."}'
)
NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/error.log; events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; keepalive_timeout 75s;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder}; types {{}}
  server {{
    listen 127.0.0.1:{port}; default_type application/json;
    location ~ "^/v1/[^/]+/dev-servers/jobs/([A-Za-z0-9_-]+)$" {{ return 200 '{job}'; }}
    location / {{ return 404 '{{"error_code":"APIGW.0101","error_msg":"no"}}'; }}
  }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def cloud(folder):
    port = free_port()
    config = Path(folder) / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, job=JOB))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    server = subprocess.Popen([program, "-c", str(config), "-p", folder])
    try:
        wait_for(f"http://127.0.0.1:{port}/v1/p/dev-servers/jobs/x")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def wait_for(url, patience=60.0):
    end = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def used(pid):
    """CPU seconds of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    """Bytes of memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def metric(url, name):
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name + "{"):
                return float(line.rpartition(" ")[2])
    raise LookupError(name)


def settings(url, jobs, rate, port):
    return {
        "targets": {
            "prod": {
                "endpoint": url,
                "project_id": "p",
                "credentials": {
                    "kind": "static",
                    "access_key": "QTWAOYTTINDUT2QVKYUC",
                    "secret_key": "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc",
                },
                "jobs": [f"job-{number}" for number in range(jobs)],
            }
        },
        "poll": {
            "interval": jobs / rate,
            "requests_per_second": 1000,
            "max_in_flight": 64,
            "mode": "detail",
        },
        "server": {"listen": f"127.0.0.1:{port}"},
        "store": {"url": "sqlite:///watcher.db"},
        "log": {"level": "error"},
    }


def measure(checkout, url, jobs, rate, seconds):
    """Run one daemon; return CPU in µs a poll, polls a second, bytes a job."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        file = Path(folder) / "watcher.yaml"
        file.write_text(yaml.safe_dump(settings(url, jobs, rate, port)))
        daemon = subprocess.Popen(
            [sys.executable, "-m", "watcher", "run", "--config", str(file)],
            cwd=checkout,
            env={**os.environ, "STATE_DIRECTORY": folder},
            stdout=subprocess.DEVNULL,
        )
        try:
            here = f"http://127.0.0.1:{port}"
            wait_for(f"{here}/readyz", 120.0)
            time.sleep(2 * jobs / rate + 2)
            polls, cpu = metric(here, "watcher_polls_total"), used(daemon.pid)
            began = time.monotonic()
            time.sleep(seconds)
            cpu = used(daemon.pid) - cpu
            passed = time.monotonic() - began
            polls = metric(here, "watcher_polls_total") - polls
            return 1e6 * cpu / polls, polls / passed, resident(daemon.pid)
        finally:
            daemon.terminate()
            daemon.wait()


PEER = """
import asyncio, json, sys, time, aiohttp
url, rate, seconds, tick = sys.argv[1], *map(float, sys.argv[2:])
async def main():
    async with aiohttp.ClientSession() as session:
        async def get(number):
            async with session.get(f"{url}/v1/p/dev-servers/jobs/job-{number % 1000}") as answer:
                json.loads(await answer.read())
        loop, sent, tasks = asyncio.get_running_loop(), 0, set()
        began = loop.time()
        while loop.time() < began + seconds:
            due = int((loop.time() - began) * rate)
            while sent < due:
                task = asyncio.ensure_future(get(sent)); tasks.add(task)
                task.add_done_callback(tasks.discard); sent += 1
                if not tick: break
            await asyncio.sleep(tick or max(0, began + (sent + 1) / rate - loop.time()))
        await asyncio.gather(*tasks)
        print(time.process_time() / sent * 1e6)
asyncio.run(main())
"""


def peer(url, rate, seconds, tick):
    done = subprocess.run(
        [sys.executable, "-c", PEER, url, str(rate), str(seconds), str(tick)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path)
    args = parser.parse_args()
    here = Path(__file__).parents[1]
    found = {}
    with tempfile.TemporaryDirectory() as folder, cloud(folder) as url:
        for _ in range(args.rounds):
            for title, checkout in (("now", here), ("before", args.against)):
                if checkout is not None:
                    row = measure(checkout, url, args.jobs, args.rate, args.seconds)
                    found.setdefault(title, []).append(row)
            for title, tick in (("aiohttp even", 0), ("aiohttp ticks", 0.1)):
                row = (peer(url, args.rate, args.seconds, tick), args.rate, 0)
                found.setdefault(title, []).append(row)
    base = {title: median(row[0] for row in rows) for title, rows in found.items()}
    for title, rows in found.items():
        rate, memory = median(r[1] for r in rows), median(r[2] for r in rows)
        print(
            f"{title:14} {base[title]:7.0f} µs a poll   {rate:6.0f} polls/s   "
            f"{memory / 2**20:6.1f} MiB   now/this {base['now'] / base[title]:.2f}"
        )


if __name__ == "__main__":
    main()
