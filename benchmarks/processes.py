"""What the benchmarks run: a cloud that is no bottleneck, the daemon, and its peers."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import yaml

HERE = Path(__file__).parents[1]
ACCESS_KEY, SECRET_KEY = (
    "QTWAOYTTINDUT2QVKYUC",
    "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc",
)
TASK = (
    '{{"id":"t{number}","create_at":1757558550733,"update_at":1757558564470,'
    '"status":"{status}","message":"","server_id":"s{number}",'
    '"server_name":"liteserver-a2-aiserver-{number:04}",'
    '"cloud_server":{{"id":"c{number}","type":"BMS"}}}}'
)
JOB = (
    '{{"create_at":1757558550702,"update_at":1757558564458,"id":"{job}","name":"query",'
    '"type":"ASCEND_SOFTWARE_QUERY","status":"PROCESSING","items":[{{"type":"HDK_QUERY"}}],'
    '"tasks":[{tasks}],"template_id":"tpl","user_name":"zoe","abnormal_count":0,'
    '"description":"Query software."}}'
)
NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/error.log; events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; keepalive_timeout 75s; sendfile on;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder}; types {{}}
  map $connection_requests $version {{ default 0; "~(?<last>[0-9])$" $last; }}
  server {{
    listen 127.0.0.1:{port}; default_type application/json; root {folder};
    location ~ "^/v1/[^/]+/dev-servers/jobs/(?<which>large|moving)$" {{ try_files /$which-$version.json =500; }}
    location ~ "^/v1/[^/]+/dev-servers/jobs/(?<which>burst-[0-9]+)$" {{ try_files /now/$which.json =500; }}
    location ~ "^/v1/[^/]+/dev-servers/jobs/([A-Za-z0-9_-]+)$" {{ return 200 '{job}'; }}
    location / {{ return 404 '{{"error_code":"APIGW.0101","error_msg":"no"}}'; }}
  }}
}}
"""


def job_of(job, tasks):
    """Return the body for a job, given the status words of its tasks."""
    rows = (TASK.format(number=n, status=each) for n, each in enumerate(tasks))
    return JOB.format(job=job, tasks=",".join(rows))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def cloud(tasks=0, prepare=lambda _: None):
    """Serve any number of jobs of one task, and two of so many.

    `large` never changes; `moving` has other 1 % of its tasks done at each request of a
    connection. Jobs called `burst-N` are the files of the folder `now`, which `prepare` is
    to make in the folder that it is given.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        prepare(folder)
        for version in range(10 if tasks else 0):
            done = range(version * tasks // 200, (version + 1) * tasks // 200)
            words = ["SUCCESS" if n in done else "PROCESSING" for n in range(tasks)]
            (folder / f"moving-{version}.json").write_text(job_of("moving", words))
            still = job_of("large", ["PROCESSING"] * tasks)
            (folder / f"large-{version}.json").write_text(still)
        config = folder / "nginx.conf"
        job = job_of("$1", ["PROCESSING"])
        config.write_text(NGINX.format(folder=folder, port=port, job=job))
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        server = subprocess.Popen([program, "-c", config, "-p", folder])
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/v1/p/dev-servers/jobs/x")
            yield url
        finally:
            server.terminate()
            server.wait()


def wait_for(url, patience=60.0):
    """Wait for a good answer; return the seconds that it took."""
    began = time.monotonic()
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return time.monotonic() - began
        except OSError:
            if time.monotonic() > began + patience:
                raise
            time.sleep(0.02)


def used(pid):
    """CPU seconds of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    """Bytes of memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def settings(url, jobs, interval, **more):
    """Return a configuration: detail mode, signed, at most 1,000 requests a second."""
    poll = {
        "interval": interval,
        "requests_per_second": 1000,
        "max_in_flight": 64,
        "mode": "detail",
        **more.pop("poll", {}),
    }
    target = {
        "endpoint": url,
        "project_id": "p",
        "credentials": {
            "kind": "static",
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "max_in_flight": 64,
        },
        "jobs": jobs,
    }
    return {
        "targets": {"prod": target},
        "poll": poll,
        "store": {"url": "sqlite:///watcher.db"},
        "log": {"level": "error"},
        **more,
    }


class Daemon:
    """A running daemon."""

    def __init__(self, url, process, began):
        self.url, self.pid, self.began = url, process.pid, began

    def ready(self, patience=300.0):
        """Wait until it is ready; return the seconds since its process began."""
        wait_for(f"{self.url}/readyz", patience)
        return time.monotonic() - self.began

    def metric(self, name):
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=300) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith((name + "{", name + " ")):
                    return float(line.rpartition(" ")[2])
        raise LookupError(name)

    def cost(self, seconds):
        """Return CPU in µs a poll, and polls a second; one scrape is within."""
        polls, cpu, began = self.metric("watcher_polls_total"), self.used, now()
        time.sleep(seconds)
        polls = self.metric("watcher_polls_total") - polls
        return 1e6 * (self.used - cpu) / polls, polls / (now() - began)

    @property
    def used(self):
        return used(self.pid)

    @property
    def resident(self):
        return resident(self.pid)


def now():
    return time.monotonic()


def surroundings(folder):
    """Return an environment that sets nothing of the daemon but where its state is."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("WATCHER_")}
    return given | {"STATE_DIRECTORY": folder}


@contextmanager
def daemon(values, checkout=HERE, output=subprocess.DEVNULL):
    """Run the daemon of a checkout with a configuration and a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        file = Path(folder) / "watcher.yaml"
        server = {"listen": f"127.0.0.1:{port}", **values.get("server", {})}
        file.write_text(yaml.safe_dump({**values, "server": server}))
        began = now()
        process = subprocess.Popen(
            [sys.executable, "-m", "watcher", "run", "--config", str(file)],
            cwd=checkout,
            env=surroundings(folder),
            stdout=output,
        )
        try:
            yield Daemon(f"http://127.0.0.1:{port}", process, began)
        finally:
            process.terminate()
            process.wait()


def peer(name, url, *numbers):
    """Run a peer of `peers.py` to its end; return its CPU in µs a request."""
    python = HERE / ".venv/bench/bin/python"
    done = subprocess.run(
        [python, HERE / "benchmarks/peers.py", name, url, *map(str, numbers)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)
