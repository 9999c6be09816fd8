"""Everybody at the door at once, while two hundred jobs are polled and none is lost."""

import json
import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import bcrypt
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.doors.test_web_config import certificate
from tests.whole.daemon import free_port, running, surroundings, target
from tests.whole.storm import connected
from watcher.simulator import SimulatorOptions, simulate

FILES = 8192  # as the unit has it
SECONDS = 20
TASKS = 2
RATE = 400
"""Requests a second; the first round is over at once, so that none is late by its rate."""
SLOWEST_PROBE = 0.1
"""Seconds, the 99th percentile."""
MOST_MEMORY = 160
"""MiB."""
ASIDE = ["nice", "-n", "15", "taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))]
"""Attackers bring processors of their own: here they share one."""
TOKEN = "t"
ATTACKS = {
    "half_open": 10_000,
    "stalled_handshakes": 2000,
    "slow_readers": 300,
    "bombs": 50,
    "wrong_passwords": 1500,
}


def web_config(folder):
    certificate(folder, "server")
    right = bcrypt.hashpw(b"right", bcrypt.gensalt(10)).decode()
    file = folder / "web.yml"
    tls = {"cert_file": "server.pem", "key_file": "server.key"}
    values = {"tls_server_config": tls, "basic_auth_users": {"zoe": right}}
    file.write_text(yaml.safe_dump(values))
    return file


async def attack(found, name, port, **options):
    values = {"port": port, "seconds": SECONDS, "tls": True, "token": TOKEN, **options}
    aside = ASIDE if name in ATTACKS else []
    storm = [sys.executable, "-m", "tests.whole.storm", name, json.dumps(values)]
    done = await anyio.run_process(
        [*aside, *storm],
        cwd=Path(__file__).parents[2],
        env=surroundings(),
        check=True,
        stderr=None,
    )
    found.update(json.loads(done.stdout))


def memory(process, field):
    text = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(field))
    return int(line.split()[1]) // 1024


def processor(process):
    """Seconds for which it ran, and for which it waited for a processor."""
    ran, waited, _ = Path(f"/proc/{process.pid}/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


def late(before, after, seconds):
    """How many polls of the storm were later than that, and how many there were."""
    name = "watcher_poll_lag_seconds"

    def grown(*series):
        return int(after[series] - before[series])

    every = grown(f"{name}_count", ("target", "prod"))
    return every - grown(f"{name}_bucket", ("le", seconds), ("target", "prod")), every


async def the_storm(daemon, port):
    """Let everybody loose; return what they saw, and the most memory it took."""
    found = {}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attack, found, "probe", port)
        tasks.start_soon(attack, found, "scrape", port)
        await anyio.sleep(1)
        for name, count in ATTACKS.items():
            tasks.start_soon(partial(attack, found, name, port, count=count))
    return found, memory(daemon.process, "VmHWM:")


async def everything_told(daemon, sim, ask):
    """Let the jobs end, and look that each was told once, with all of its tasks."""
    sim.clock.set(advance=100_000)
    await daemon.until(lambda: len(daemon.events("job.finished")) == len(sim.job_ids))
    told = [line for line in daemon.lines if "event_id" in line]
    assert [line["seq"] for line in told] == [*range(1, len(told) + 1)]
    assert len({line["event_id"] for line in told}) == len(told)
    ends = Counter(
        line["job_id"]
        for line in daemon.events("task.transition")
        if line["to"] != "PROCESSING"
    )
    assert ends == dict.fromkeys(sim.job_ids, TASKS)
    shown = json.loads(await ask("/api/v1/events?limit=1000"))["events"]
    assert [each["event_id"] for each in shown] == [
        each["event_id"] for each in told[:1000]
    ]


@pytest.mark.alone
async def test_everybody_at_once(tmp_path, capsys):
    options = SimulatorOptions(jobs=200, tasks=TASKS, speed=1)
    with free_port() as port:
        pass
    async with simulate(options) as sim:
        prod = target(sim.url, sim.job_ids, credentials={"kind": "none"})
        server = {"listen": f"127.0.0.1:{port}", "api_token": TOKEN}
        values = {
            "targets": {"prod": prod},
            "poll": {"interval": "4s", "requests_per_second": RATE, "mode": "detail"},
            "server": {**server, "web_config_file": str(web_config(tmp_path))},
        }
        limited = ("prlimit", f"--nofile={FILES}:{FILES}")
        async with running(tmp_path, values, prefix=limited) as daemon:
            await daemon.started()
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 200)
            ask = partial(anyio.to_thread.run_sync, asked, port)
            before = sampled(await ask("/metrics"))
            found, most_memory = await the_storm(daemon, port)
            ran, waited = processor(daemon.process)
            samples = sampled(await ask("/metrics"))
            ordinary = [line for line in daemon.lines if "event_id" not in line]
            await everything_told(daemon, sim, ask)
            code, seconds = await daemon.end()
    with capsys.disabled():
        behind = late(before, samples, "1.0")
        print(f"\n{found}\nlate: {behind}, {most_memory} MiB,", end=" ")
        print(f"{len(ordinary)} lines of its own, ended in {seconds:.1f} s;", end=" ")
        print(f"ran {ran:.1f} s and waited {waited:.1f} s for a processor")
    probe, scrape = found["probe"], found["scrape"]
    assert probe["failed"] <= probe["asked"] // 50
    assert probe["p99"] < SLOWEST_PROBE
    overdue, of_all = late(before, samples, "1.0")
    assert not overdue, of_all
    assert scrape["200"] >= 0.8 * sum(scrape.values())
    assert most_memory < MOST_MEMORY
    assert len(ordinary) < 100
    assert samples["watcher_login_failures_total",] > 0
    assert code == 0


def asked(port, path):
    with connected(port, tls=True, wait=30.0) as each:
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        each.sendall(f"{head}Authorization: Bearer {TOKEN}\r\n\r\n".encode())
        whole = b"".join(iter(lambda: each.recv(65536), b""))
    top, _, body = whole.partition(b"\r\n\r\n")
    assert b" 200 " in top, top
    return unchunked(body).decode()


def unchunked(body):
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        text, body = text + body[:length], body[length + 2 :]
    return text


def sampled(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }
