"""The unit: what systemd thinks of it, and the daemon under a systemd of its own.

The machine is a Debian in name spaces, without a network but its own loopback; the
daemon is installed there by the very lines of the guide.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import yaml

from tests.real.components import (
    ACCESS_KEY,
    PROJECT,
    ROOT,
    SECRET_KEY,
    end,
    output,
    require,
    run,
    started,
    until,
)

UNIT = ROOT / "deploy" / "systemd" / "devserver-watcher.service"
GUIDE = ROOT / "docs" / "how-to" / "systemd.md"
EXPOSURE = 1.5
SERVICE = "devserver-watcher"
PROGRAM = "/opt/devserver-watcher/bin/watcher"
CLOUD = "127.0.0.1:18080"
PAGES = "127.0.0.1:10911"
JOBS = 8
WATCHDOG = 3
"""Seconds; the unit's own 30 would be most of this test."""


def test_the_unit_is_fenced_in():
    require("systemd-analyze")
    limit = f"--threshold={int(EXPOSURE * 10)}"
    done = run("systemd-analyze", "security", "--offline=true", limit, UNIT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_says_what_systemd_knows(tmp_path):
    require("systemd-analyze")
    text = UNIT.read_text()
    program = shutil.which("true")
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={program}", text))
    done = run("systemd-analyze", "verify", "--man=no", copy)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def guide(section):
    """Return the first block of shell lines under a heading of the guide."""
    text = GUIDE.read_text()
    return re.search(rf"{section}.*?```sh\n(.*?)```", text, re.DOTALL).group(1)


def test_the_guide_has_five_commands():
    assert len(guide("# Run it under systemd").splitlines()) == 5


class Machine:
    """A booted system; commands run inside it as root."""

    def __init__(self, pid):
        self.enter = ("nsenter", f"--target={pid}", "--all")
        self._enter_network = ("nsenter", f"--target={pid}", "--net")

    def shell(self, script, seconds=60):
        return output(*self.enter, "sh", "-ec", script, seconds=seconds)

    def service(self, verb, *words):
        return run(*self.enter, "systemctl", verb, *words, SERVICE)

    def property(self, name):
        return self.service("show", "--value", f"--property={name}").stdout.strip()

    def ask(self, url, body=None, method="GET"):
        """Ask a page inside; the program that asks is the test's own."""
        script = (
            "import sys; from tests.real.components import http;"
            "status, text = http(*eval(sys.argv[1])); print(status); print(text)"
        )
        words = repr((f"http://{url}", body, method))
        command = (sys.executable, "-c", script, words)
        text = output(*self._enter_network, *command, cwd=ROOT)
        status, _, rest = text.partition("\n")
        return int(status), rest

    def journal(self):
        """What the service has written, in order; lines that are no JSON left out."""
        words = ("journalctl", "--output=cat", f"--unit={SERVICE}")
        lines = output(*self.enter, *words).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, name):
        return [line for line in self.journal() if line["event"] == name]

    @contextmanager
    def settings(self, text, name="test.conf"):
        """Change the unit by a drop-in."""
        folder = f"/etc/systemd/system/{SERVICE}.service.d"
        file = f"{folder}/{name}"
        self.shell(f"mkdir -p {folder}; printf '{text}' > {file}")
        self.shell("systemctl daemon-reload")
        yield
        self.shell(f"rm {file}; systemctl daemon-reload")


@pytest.fixture(scope="module")
def kit(tmp_path_factory, wheel, wheelhouse):
    """The folder that the guide begins with, and the wheels that stand in for a network."""
    folder = tmp_path_factory.mktemp("kit")
    shutil.copytree(wheelhouse, folder / "wheels")
    shutil.copy(wheel, folder)
    shutil.copy(UNIT, folder)
    shutil.copy(ROOT / "requirements" / "run.txt", folder)
    (folder / "secret_key").write_text(SECRET_KEY + "\n")
    credentials = {"kind": "static", "access_key": ACCESS_KEY}
    prod = {
        "endpoint": f"http://{CLOUD}",
        "project_id": PROJECT,
        "credentials": credentials,
        "job_files": ["/etc/devserver-watcher/jobs.d/*.txt"],
    }
    values = {"targets": {"prod": prod}, "poll": {"interval": "500ms"}}
    (folder / "watcher.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def machine(tmp_path_factory, debian, kit):
    require("root", "systemd-nspawn", "nsenter", "tar")
    folder = tmp_path_factory.mktemp("machine")
    root = folder / "root"
    root.mkdir()
    output("tar", "-C", root, "-xf", debian)
    command = (
        "systemd-nspawn",
        "--quiet",
        "--boot",
        f"--directory={root}",
        f"--machine=watcher-{os.getpid()}",
        "--register=no",
        "--keep-unit",
        "--private-network",
        "--link-journal=no",
        "--console=passive",
        f"--bind-ro={kit}:/kit",
    )
    with started(*command, folder=folder, name="machine") as nspawn:
        children = f"/proc/{nspawn.pid}/task/{nspawn.pid}/children"
        pid = until(lambda: output("cat", children).split())[0]
        inside = Machine(pid)
        enter = (*inside.enter, "systemctl", "is-system-running")
        until(lambda: run(*enter).stdout.strip() in {"running", "degraded"})
        install(inside)
        yield inside
        run(*inside.enter, "systemctl", "poweroff", "--force")
        with_patience(nspawn)
    shutil.rmtree(root)


def with_patience(process, seconds=20):
    """Let a process end by itself."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        end(process)


def install(inside):
    """Install by the guide, then start the simulator from what was installed."""
    offline = "export PIP_NO_INDEX=1 PIP_FIND_LINKS=/kit/wheels; cd /kit"
    lines = guide("# Run it under systemd")
    inside.shell(f"{offline}\n{lines}", seconds=120)
    inside.shell(
        f"systemd-run --quiet --unit=cloud {PROGRAM} simulate --listen {CLOUD}"
        f" --speed=0 --jobs={JOBS} --tasks=4 --key={ACCESS_KEY}:{SECRET_KEY}"
    )
    until(lambda: inside.ask(f"{CLOUD}/_simulator/jobs")[0] == 200)


@pytest.fixture(scope="module")
def jobs(machine):
    """Ids of the simulated jobs that have tasks; all jobs are watched."""
    _, text = machine.ask(f"{CLOUD}/_simulator/jobs")
    ids = [job["id"] for job in json.loads(text)["jobs"]]
    machine.shell(
        "mkdir -p /etc/devserver-watcher/jobs.d;"
        f"echo '{' '.join(ids)}' | tr ' ' '\\n' > /etc/devserver-watcher/jobs.d/a.txt"
    )
    until(lambda: len(machine.events("job.first_seen")) == JOBS)
    return [job_id for job_id in ids if true(machine, job_id)]


def fail_a_task_of(machine, job_id):
    """End a job with one failed task."""
    _, text = machine.ask(f"{CLOUD}/_simulator/jobs/{job_id}")
    first = next(iter(json.loads(text)["tasks"]))
    body = {"tasks": {first: {"status": "FAILED"}}, "finish": True}
    path = f"{CLOUD}/_simulator/jobs/{job_id}"
    assert machine.ask(path, json.dumps(body), "POST")[0] == 200


def told(machine, job_id):
    """What the journal says of a job's tasks, as (task, word)."""
    lines = machine.events("task.transition")
    return {(line["task_id"], line["to"]) for line in lines if line["job_id"] == job_id}


def true(machine, job_id):
    """What is true of a job's tasks in the cloud."""
    _, text = machine.ask(f"{CLOUD}/_simulator/jobs/{job_id}")
    return set(json.loads(text)["tasks"].items())


def all_told(machine, job_id):
    return until(lambda: told(machine, job_id) == true(machine, job_id), 30)


def test_installed_by_the_guide_it_is_active_and_says_so(machine, jobs):
    assert machine.property("ActiveState") == "active"
    assert machine.property("Type") == "notify"
    assert until(lambda: machine.property("StatusText"))
    assert machine.events("watcher.started")
    assert {line["job_id"] for line in machine.events("job.first_seen")} >= set(jobs)


def test_systemd_finds_nothing_to_say_about_the_installed_unit(machine):
    unit = f"{SERVICE}.service"
    assert machine.shell(f"systemd-analyze verify {unit} 2>&1") == ""
    limit = f"--threshold={int(EXPOSURE * 10)}"
    machine.shell(f"systemd-analyze security --no-pager {limit} {unit}")


def test_it_runs_as_nobody_in_particular_and_may_do_nothing(machine):
    pid = machine.property("MainPID")
    status = dict(
        line.split(":\t", 1)
        for line in machine.shell(f"cat /proc/{pid}/status").splitlines()
        if ":\t" in line
    )
    assert int(status["Uid"].split()[0]) >= 61184  # DynamicUser's range
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    _, text = machine.ask(f"{PAGES}/metrics")
    assert "\nprocess_start_time_seconds 1." in text


def test_the_key_comes_as_a_credential_and_shows_nowhere(machine, jobs):
    # The simulated cloud checks signatures: an answer is proof of the key.
    _, text = machine.ask(f"{PAGES}/metrics")
    assert 'watcher_credentials_locked{target="prod"} 0.0' in text
    assert f'devserver_job_info{{target="prod",job_id="{jobs[0]}"' in text
    pid = machine.property("MainPID")
    places = f"/proc/{pid}/environ /proc/{pid}/cmdline /etc/devserver-watcher/*.yaml"
    assert SECRET_KEY not in machine.shell(f"cat {places}; systemctl show {SERVICE}")
    assert SECRET_KEY not in machine.shell(f"journalctl -u {SERVICE} -o json")
    file = f"/run/credentials/{SERVICE}.service"
    assert SECRET_KEY in machine.shell(f"cat {file}/*")
    assert run(*machine.enter, "su", "nobody", "-s", "/bin/ls", file).returncode


def test_it_stops_in_time_and_its_state_survives(machine, jobs):
    began = time.monotonic()
    assert machine.service("stop").returncode == 0
    assert time.monotonic() - began < 5
    assert machine.property("Result") == "success"
    fail_a_task_of(machine, jobs[0])  # while nobody looks
    assert machine.service("start").returncode == 0
    assert all_told(machine, jobs[0])
    assert len(machine.events("job.first_seen")) == JOBS
    seqs = [line["seq"] for line in machine.journal() if "seq" in line]
    assert seqs == sorted(set(seqs))


def test_a_loop_that_hangs_is_restarted_and_loses_nothing(machine, jobs):
    drop_in = f"[Service]\\nWatchdogSec={WATCHDOG}s\\nRestartSec=200ms\\n"
    with machine.settings(drop_in):
        machine.service("restart")
        until(lambda: machine.ask(f"{PAGES}/readyz")[0] == 200)
        before = machine.property("MainPID")
        machine.shell(f"kill -STOP {before}")
        fail_a_task_of(machine, jobs[1])
        until(lambda: machine.property("NRestarts") == "1", 30)
        until(lambda: machine.property("ActiveState") == "active", 30)
        assert machine.property("MainPID") != before
        assert all_told(machine, jobs[1])
    ids = [line["event_id"] for line in machine.journal() if "event_id" in line]
    replayed = [line for line in machine.journal() if line.get("replayed")]
    assert len(ids) - len(replayed) == len(set(ids))
    lines = machine.shell(f"journalctl -u {SERVICE} -o cat")
    assert "Watchdog timeout" in lines
    assert "most recent call first" in lines  # where it hung


def test_a_dead_cloud_does_not_starve_the_watchdog(machine):
    drop_in = f"[Service]\\nWatchdogSec={WATCHDOG}s\\n"
    with machine.settings(drop_in):
        machine.service("restart")
        assert machine.ask(f"{CLOUD}/_simulator/faults", "hang", "PUT")[0] < 300
        time.sleep(2 * WATCHDOG)
        assert machine.property("NRestarts") == "0"
        assert machine.property("ActiveState") == "active"
        assert machine.ask(f"{CLOUD}/_simulator/faults", None, "DELETE")[0] < 300


def test_a_reload_keeps_process_and_state(machine, jobs):
    before = machine.property("MainPID")
    watched = len(machine.events("job.first_seen"))
    file = "/etc/devserver-watcher/watcher.yaml"
    machine.shell(f"sed -i 's/interval: 500ms/interval: 700ms/' {file}")
    assert machine.service("reload").returncode == 0
    until(lambda: machine.events("config.reloaded"), what=machine.journal)
    until(lambda: machine.property("ActiveState") == "active")
    _, text = machine.ask(f"{PAGES}/metrics")
    assert "\nwatcher_config_last_reload_successful 1" in text
    machine.shell(f"echo 'polls: {{}}' >> {file}")
    machine.service("reload")
    gauge = "\nwatcher_config_last_reload_successful 0"
    until(lambda: gauge in machine.ask(f"{PAGES}/metrics")[1])
    machine.shell(f"cp /kit/watcher.yaml {file}")
    machine.service("reload")
    until(lambda: gauge not in machine.ask(f"{PAGES}/metrics")[1])
    assert machine.property("MainPID") == before
    assert len(machine.events("job.first_seen")) == watched
    fail_a_task_of(machine, jobs[2])
    assert all_told(machine, jobs[2])


def test_a_wrong_configuration_is_told_and_not_tried_again(machine):
    machine.shell("cp /kit/watcher.yaml /etc/devserver-watcher/watcher.yaml")
    machine.shell("echo 'polls: {}' >> /etc/devserver-watcher/watcher.yaml")
    assert machine.service("restart").returncode
    assert machine.property("ExecMainStatus") == "78"
    assert machine.property("ActiveState") == "failed"
    lines = machine.shell(f"journalctl -u {SERVICE} -o cat")
    assert "watcher: polls: unknown setting" in lines
    assert "Traceback" not in lines
    machine.shell("cp /kit/watcher.yaml /etc/devserver-watcher/watcher.yaml")
    assert machine.service("start").returncode == 0
    machine.shell(f"systemctl kill --signal={int(signal.SIGKILL)} {SERVICE}")
    until(lambda: machine.property("ActiveState") == "active", 20)
