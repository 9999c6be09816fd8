"""Memory of an idle daemon and time from exec to ready, over a number of jobs."""

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.processes import surroundings

PROJECT = "0123456789abcdef0123456789abcdef"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
            return True
    except (OSError, urllib.error.URLError):
        return False


def resident_mib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def measure(python, cloud, ids, settle):
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "jobs.txt").write_text("\n".join(ids))
        began = time.monotonic()
        with subprocess.Popen(
            [
                python,
                "-m",
                "watcher",
                "run",
                f"--targets.prod.endpoint={cloud}",
                f"--targets.prod.project_id={PROJECT}",
                "--targets.prod.credentials.kind=none",
                f"--targets.prod.job_files={folder}/jobs.txt",
                "--poll.requests_per_second=1000",
                f"--server.listen=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            env=surroundings(folder),
        ) as daemon:
            while not is_ready(port):
                time.sleep(0.01)
            ready = time.monotonic() - began
            time.sleep(settle)
            resident = resident_mib(daemon.pid)
            daemon.terminate()
    return ready, resident


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="of the daemon")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 1000])
    parser.add_argument("--settle", type=float, default=15.0, help="seconds")
    options = parser.parse_args()
    print("| jobs × tasks | ready, s (median, min–max) | resident, MiB (median) |")
    print("|---|---|---|")
    for jobs in options.jobs:
        port = free_port()
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "watcher",
                "simulate",
                "--speed",
                "0",
                "--jobs",
                str(jobs),
                "--tasks",
                "8",
                "--listen",
                f"127.0.0.1:{port}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as cloud:
            ids = [cloud.stdout.readline().strip() for _ in range(jobs)]
            runs = [
                measure(options.python, f"http://127.0.0.1:{port}", ids, options.settle)
                for _ in range(options.runs)
            ]
            cloud.terminate()
        ready, resident = zip(*runs, strict=True)
        print(
            f"| {jobs} × 8 | {statistics.median(ready):.2f} "
            f"({min(ready):.2f}–{max(ready):.2f}) | {statistics.median(resident):.1f} |"
        )


if __name__ == "__main__":
    main()
