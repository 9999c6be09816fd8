"""Submit a DevServer job, tell the watcher beside, wait for the end, exit accordingly.

The command given as arguments submits and prints the job's id. Any language will do: write
the id into a file in the shared folder, then ask the watcher.
"""
# ruff: noqa: INP001, S310, S603, T201, TID251 - a script that stands alone

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

FILE = Path("/run/devserver-job/job.txt")
WATCHER = "http://127.0.0.1:10911/api/v1/jobs/prod/"
LOOK_EVERY = float(os.environ.get("LOOK_EVERY", "5"))
FINISHED = {"succeeded": 0, "failed": 1, "deleted": 1, "gone": 1}


def submit(command: list[str]) -> str:
    """Submit a job and leave its id to the watcher, or return the id left before."""
    if FILE.exists():  # this container was restarted
        return FILE.read_text().strip()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    job_id = done.stdout.strip()
    # Whole or not at all: the watcher may look at any moment.
    draft = FILE.with_suffix(".draft")
    draft.write_text(job_id + "\n")
    draft.rename(FILE)
    return job_id


def phase(job_id: str) -> str:
    """Ask the watcher what it concludes about the job."""
    try:
        with urllib.request.urlopen(WATCHER + job_id, timeout=10) as answer:
            return str(json.load(answer)["phase"])
    except (OSError, ValueError):  # not watched yet, or the sidecar is being restarted
        return "unknown"


def main() -> int:
    """Return 0 where the job succeeded, else 1."""
    job_id = submit(sys.argv[1:])
    print("submitted", job_id, flush=True)
    if os.environ.get("SUBMIT_ONLY"):  # the watcher's own exit code tells the rest
        return 0
    while (now := phase(job_id)) not in FINISHED:
        time.sleep(LOOK_EVERY)
    print("finished", job_id, now, flush=True)
    return FINISHED[now]


if __name__ == "__main__":
    sys.exit(main())
