"""The image: as small and as locked up as it says, and at work under the strictest flags."""

import json
import os
import signal
import time
from contextlib import contextmanager

import bcrypt
import pytest
import yaml

from tests.real.components import (
    ROOT,
    asked,
    cloud,
    configuration,
    free_port,
    http,
    output,
    until,
)
from tests.real.podman import BASE, IMAGE

LIMIT = "96m"
JOBS = 1000


def test_hadolint_has_nothing_to_say(tools):
    assert output(tools / "hadolint", ROOT / "Dockerfile") == ""


def test_what_the_image_says_of_itself(podman):
    config = podman.inspect(IMAGE)["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["watcher"]
    labels = config["Labels"]
    for name in ("title", "description", "licenses", "version", "revision"):
        assert labels[f"org.opencontainers.image.{name}"]
    assert labels["org.opencontainers.image.base.name"] == BASE


def test_what_the_image_leaves_out(podman):
    look = (
        "import sys, glob, importlib.util as u; base = sys.prefix + '/lib';"
        "assert not any(u.find_spec(n) for n in ('pip', 'setuptools', 'hatchling'));"
        "files = glob.glob(base + '/**', recursive=True);"
        "assert not [f for f in files if '/tests' in f or f.endswith('.pyx')];"
        "print(sum('/watcher/' in f and f.endswith('.pyc') for f in files))"
    )
    words = ("run", "--rm", "--network=none", "--read-only", "--entrypoint=python")
    assert int(podman(*words, IMAGE, "-I", "-c", look)) > 20


def test_a_wrong_configuration_ends_with_its_code(podman):
    done = podman.tried("run", "--rm", "--network=none", "--read-only", IMAGE)
    assert done.returncode == 78
    assert "No such file" in done.stderr


@contextmanager
def running(podman, name, folder, values, ready=200):
    """Run the image under the strictest flags; yields where its pages are."""
    folder.chmod(0o755)
    listen = f"127.0.0.1:{free_port()}"
    file = folder / "watcher.yaml"
    file.write_text(yaml.safe_dump(values))
    file.chmod(0o644)
    podman(
        *("run", "--detach", f"--name={name}", "--network=host", "--read-only"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=65532"),
        *(f"--memory={LIMIT}", f"--memory-swap={LIMIT}", "--pids-limit=64"),
        f"--volume={folder}:/etc/devserver-watcher:ro",
        f"--env=WATCHER_SERVER__LISTEN={listen}",
        IMAGE,
    )
    try:
        until(
            lambda: http(f"http://{listen}/readyz")[0] == ready,
            what=lambda: podman.log(name),
        )
        yield listen
    finally:
        podman.tried("rm", "--force", "--time=0", "--volumes", name)


@pytest.fixture(scope="module")
def container(tmp_path_factory, podman):
    """A thousand jobs watched; yields name and address."""
    folder = tmp_path_factory.mktemp("container")
    name = f"watcher-{os.getpid()}"
    with cloud(folder, jobs=JOBS, tasks=4) as simulated:
        values = configuration(simulated.url, simulated.job_ids)
        with running(podman, name, folder, values) as listen:
            yield name, listen


def test_it_asks_for_a_password_where_users_are_named(podman, tmp_path):
    web = tmp_path / "web.yml"
    secret = bcrypt.hashpw(b"correct-horse", bcrypt.gensalt(4)).decode()
    web.write_text(yaml.safe_dump({"basic_auth_users": {"prometheus": secret}}))
    web.chmod(0o644)
    values = configuration("http://127.0.0.1:9", [])
    values["server"] = {"web_config_file": f"/etc/devserver-watcher/{web.name}"}
    name = f"users-{os.getpid()}"
    with running(podman, name, tmp_path, values) as listen:
        url = f"http://{listen}/metrics"
        ask = ("curl", "-s", "-o", os.devnull, "-w", "%{http_code}", url, "-u")
        for password, status in (("wrong", "401"), ("correct-horse", "200")):
            assert output(*ask, f"prometheus:{password}") == status


def test_a_thousand_jobs_fit_into_its_memory(podman, container):
    name, listen = container
    url = f"http://{listen}"
    until(lambda: asked(f"{url}/api/v1/jobs")["total"] == JOBS)

    def all_known():
        return http(f"{url}/metrics")[1].count("\ndevserver_job_info{") == JOBS

    until(all_known)
    time.sleep(3)
    state = podman.inspect(name)["State"]
    assert (state["Running"], state["OOMKilled"]) == (True, False)
    rss = podman("exec", name, "python", "-c", "print(open('/proc/1/status').read())")
    (line,) = [line for line in rss.splitlines() if line.startswith("VmHWM")]
    assert int(line.split()[1]) < 96 * 1024


def health(podman, name):
    return podman.tried("healthcheck", "run", name).returncode


def test_the_health_check_turns_when_the_loop_hangs(podman, container):
    name, _ = container
    until(lambda: health(podman, name) == 0, 20)
    pid = podman.inspect(name)["State"]["Pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert until(lambda: health(podman, name) == 1, 20)
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: health(podman, name) == 0, 20)


def test_it_ends_cleanly_by_sigterm(podman, container):
    name, _ = container
    began = time.monotonic()
    podman("stop", "--time=10", name)
    assert time.monotonic() - began < 5
    state = podman.inspect(name)["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    lines = [json.loads(line) for line in podman.log(name).splitlines()]
    assert lines[-1]["event"] == "watcher.stopped"
    first = [line for line in lines if line["event"] == "job.first_seen"]
    assert len({line["job_id"] for line in first}) == len(first) == JOBS
