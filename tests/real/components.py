"""The real things that these tests run: whether they are here, and how to wait for them."""

import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = "0123456789abcdef0123456789abcdef"
ACCESS_KEY = "QTWAOYTTINDUT2QVKYUC"
SECRET_KEY = "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc"
PATIENCE = 60.0


def require(*names):
    """Skip where a program is missing, or fail where WATCHER_REQUIRE_REAL says so.

    The name `root` stands for the right to make name spaces and mounts.
    """
    for name in names:
        here = os.geteuid() == 0 if name == "root" else shutil.which(name)
        if not here:
            missing(name)


def clean_environment(**more):
    """Return the environment without what is meant for these tests, or set by chance."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WATCHER_")}
    return kept | more


def missing(name):
    tell = pytest.fail if os.environ.get("WATCHER_REQUIRE_REAL") == "1" else pytest.skip
    tell(f"needs {name}")


def cache():
    """Return the folder of what is costly to make: kept from one run to the next."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "devserver-watcher-tests"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    assert folder.stat().st_uid == os.geteuid(), f"{folder} belongs to somebody else"
    return folder


def cached(name, *ingredients, make):
    """Return a path in the cache, made anew whenever what it is made of has changed.

    Args:
        name: What it is.
        ingredients: Bytes that it depends on.
        make: Called with a path that is not there, to make it.
    """
    digest = hashlib.sha256(b"\0".join(ingredients)).hexdigest()[:12]
    place = cache() / f"{digest}-{name}"
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            make(place)
    return place


def run(*command, seconds=PATIENCE, **options):
    """Run a command to its end, however it ends."""
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        **options,
    )


def output(*command, **options):
    """Run a command that must succeed; return what it wrote."""
    done = run(*command, **options)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def until(condition, seconds=PATIENCE, what=None):
    """Wait until a condition holds and return what it returned."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, what() if what else "waited in vain"
        time.sleep(0.1)
    return found


def free_port():
    """Return a port that is free, and that the kernel gives to nobody by itself."""
    while True:
        port = random.randrange(20000, 32000)  # below net.ipv4.ip_local_port_range
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def http(url, body=None, method=None):
    """Return status and text of an answer, or (0, reason) where there is none."""
    data = None if body is None else body.encode()
    request = urllib.request.Request(url, data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def asked(url, **options):
    """Return the JSON of a good answer."""
    status, text = http(url, **options)
    assert status == 200, f"{url}: {status} {text}"
    return json.loads(text)


@contextmanager
def started(*command, folder, name, **options):
    """Run a process in the background; its output goes to `folder/name.log`."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=log,
            stderr=subprocess.STDOUT,
            **options,
        )
    try:
        yield process
    finally:
        end(process)


def end(process, seconds=10):
    """End a process that was started here, by force where it must be."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(seconds)


class Cloud:
    """A simulated cloud in a process of its own, and its control door."""

    def __init__(self, url, job_ids):
        self.url = url
        self.job_ids = job_ids

    def told(self, path, body, method="POST"):
        """Ask the control door for something."""
        status, text = http(f"{self.url}/_simulator/{path}", body, method)
        assert status < 300, text
        return text

    def finish(self, job_id, failing=0):
        """End a job, with so many failed tasks."""
        tasks = asked(f"{self.url}/_simulator/jobs/{job_id}")["tasks"]
        failed = {
            task: {"status": "FAILED", "message": "power lost"}
            for task in list(tasks)[:failing]
        }
        end = {"tasks": failed, "finish": True, "status": "FINISHED"}
        self.told(f"jobs/{job_id}", json.dumps(end))


@contextmanager
def cloud(folder, *, jobs=2, tasks=4, speed=0, prefix=(), program=None):
    """Run the simulator; at speed 0 nothing happens by itself."""
    port = free_port()
    ids = folder / "jobs.log"
    command = [
        *prefix,
        *(program or (sys.executable, "-m", "watcher")),
        "simulate",
        *("--listen", f"127.0.0.1:{port}"),
        *("--jobs", jobs, "--tasks", tasks, "--speed", speed),
    ]
    with started(*command, folder=folder, name="jobs", cwd=ROOT) as process:

        def listed():
            assert process.poll() is None, ids.read_text()
            lines = ids.read_text().split("\n")
            names = [line for line in lines if line and "simulating" not in line]
            return names if len(names) == jobs and lines[-1] == "" else None

        yield Cloud(f"http://127.0.0.1:{port}", until(listed))


def configuration(cloud_url, job_ids, **more):
    """Return a quick watcher's configuration."""
    return {
        "targets": {
            "prod": {
                "endpoint": cloud_url,
                "project_id": PROJECT,
                "credentials": {"kind": "none"},
                "jobs": list(job_ids),
            }
        },
        "poll": {"interval": "1s", "requests_per_second": 200},
        **more,
    }


@contextmanager
def daemon(folder, values, name="daemon"):
    """Run the watcher of this checkout; yields its address and process."""
    port = free_port()
    listen = f"127.0.0.1:{port}"
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**values, "server": {"listen": listen}}))
    command = (sys.executable, "-m", "watcher", "run", "--config", file)
    environ = clean_environment(STATE_DIRECTORY=str(folder))
    with started(*command, folder=folder, name=name, cwd=ROOT, env=environ) as process:
        ready = f"http://{listen}/readyz"
        log = folder / f"{name}.log"
        until(lambda: http(ready)[0] == 200, what=log.read_text)
        yield listen, process


@contextmanager
def prometheus(folder, config, *rules):
    """Run Prometheus with a configuration; yields its address."""
    require("prometheus")
    port = free_port()
    file = folder / "prometheus.yaml"
    values = {**config, "rule_files": [str(rule) for rule in rules]}
    file.write_text(yaml.safe_dump(values))
    command = (
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--rules.alert.resend-delay=1s",  # one that got lost is told again
    )
    url = f"http://127.0.0.1:{port}"
    with started(*command, folder=folder, name="prometheus"):
        log = folder / "prometheus.log"
        until(lambda: http(f"{url}/-/ready")[0] == 200, what=log.read_text)
        yield url


@contextmanager
def alertmanager(folder, webhook):
    """Run Alertmanager as we propose, but telling at once; yields host and port."""
    require("prometheus-alertmanager")
    listen = f"127.0.0.1:{free_port()}"
    config = yaml.safe_load((ROOT / "deploy/prometheus/alertmanager.yaml").read_text())
    config["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    (receiver,) = config["receivers"]
    receiver["webhook_configs"] = [{"url": webhook, "send_resolved": True}]
    file = folder / "alertmanager.yaml"
    file.write_text(yaml.safe_dump(config))
    command = (
        "prometheus-alertmanager",
        f"--config.file={file}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={listen}",
        "--cluster.listen-address=",
    )
    with started(*command, folder=folder, name="alertmanager"):
        log = folder / "alertmanager.log"
        ready = f"http://{listen}/-/ready"
        until(lambda: http(ready)[0] == 200, what=log.read_text)
        yield listen
