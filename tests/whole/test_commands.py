"""Commands from the outside: exit codes, messages, and no secret in any of them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.whole.daemon import (
    ACCESS_KEY,
    SECRET_KEY,
    free_port,
    running,
    surroundings,
    target,
    watcher,
)
from watcher import __version__
from watcher.simulator import SimulatorOptions, parse_faults, simulate


@pytest.fixture
def config(tmp_path):
    def write(values):
        file = tmp_path / "watcher.yaml"
        file.write_text(yaml.safe_dump(values))
        return file

    return write


def test_version():
    assert watcher("--version").stdout == f"watcher {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["run", "--nonsense"],
        ["run", "--poll.interval"],
        ["simulate", "--poll.interval", "1s"],
        ["simulate", "--faults", "nonsense:="],
        ["simulate", "--key", "only"],
        ["healthcheck", "--address", "nonsense"],
    ],
)
def test_wrong_command_line(arguments):
    done = watcher(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["healthcheck", "check"])
def test_what_is_asked_often_starts_light(config, command):
    file = config({"targets": {"prod": target("http://127.0.0.1:1", ["job-1"])}})
    # Not sqlite3 itself, which the measure of coverage loads.
    heavy = "aiohttp", "prometheus_client", "structlog", "watcher.store.sqlite.store"
    script = (
        "import sys; from watcher.commands.cli import main; "
        f"main(['{command}', '--config', '{file}', *sys.argv[1:]]); "
        f"print('loaded', [each for each in {heavy} if each in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env=surroundings(WATCHER_SERVER__LISTEN="127.0.0.1:1"),
    )
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_alone_it_shows_the_commands():
    done = watcher()
    lines = [line.split() for line in done.stderr.splitlines() if line[:4].isspace()]
    assert ["doctor", "find", "out", "what", "is", "wrong"] in lines


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["chek"], "check"),
        (["run", "--confg=x"], "--config"),
        (["run", "--pol.interval=1s"], "--poll.interval"),
        (["run", "--poll.intervall=1s"], "poll.interval"),
        (["events", "--folow"], "--follow"),
    ],
)
def test_what_was_meant(arguments, meant):
    assert f"; did you mean {meant}?" in watcher(*arguments).stderr


@pytest.mark.parametrize("command", ["run", "check"])
def test_wrong_configuration(config, command):
    values = {
        "targets": {"prod": target("http://192.0.2.1", ["a/b"], region="?")},
        "poll": {"interval": "soon", "tempo": 1},
    }
    done = watcher(command, "--config", config(values))
    assert done.returncode == 78
    lines = done.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "targets.prod.region",
        "targets.prod.endpoint",
        "targets.prod.jobs.0",
        "poll.interval",
        "poll.tempo",
    ]
    assert SECRET_KEY not in done.stderr + done.stdout
    assert done.stdout == ""


def test_a_finding_is_one_line_whatever_it_names(tmp_path):
    file = tmp_path / "watcher.yaml"
    file.write_text('"a\\nb\\e[2J\\u202e": 1\ntargets: {}\n')
    lines = watcher("check", "--config", file).stderr.splitlines()
    assert lines[0].startswith("watcher: targets: ")
    assert lines[1] == rf"watcher: a\nb\x1b[2J\u202e: unknown setting ({file}:1)"


def test_a_configuration_that_is_not_there():
    done = watcher("check", "--config", "/nowhere/watcher.yaml")
    assert done.returncode == 78
    assert done.stderr == "watcher: /nowhere/watcher.yaml: No such file or directory\n"


@pytest.mark.parametrize("command", ["check", "run", "events", "doctor"])
def test_no_configuration_at_all(command):
    done = watcher(command)
    assert done.returncode == 78
    assert done.stderr.startswith("watcher: targets: is required; no configuration is")
    assert "--config FILE" in done.stderr


def test_follow_says_which_store_it_waits_for(config, tmp_path):
    file = config({"targets": {"prod": target("http://127.0.0.1:1", ["job-1"])}})
    with subprocess.Popen(
        [sys.executable, "-m", "watcher", "events", "--follow", "--config", str(file)],
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings(STATE_DIRECTORY=str(tmp_path)),
    ) as process:
        line = process.stderr.readline()
        process.terminate()
    store = tmp_path / "watcher.db"
    assert (
        line == f"watcher: {store} is not there yet; waiting for a daemon to make it\n"
    )


def test_check_prints_what_is_in_force_without_secrets(config):
    values = {"targets": {"prod": target("http://127.0.0.1:1", ["job-1"])}}
    done = watcher(
        "check",
        "--config",
        config(values),
        "--poll.interval=3s",
        WATCHER_POLL__TIMEOUT="4s",
        WATCHER_POLL__INTERVAL="9s",
    )
    assert done.returncode == 0
    shown = yaml.safe_load(done.stdout)
    assert (shown["poll"]["interval"], shown["poll"]["timeout"]) == (3, 4)
    assert SECRET_KEY not in done.stdout
    assert shown["targets"]["prod"]["credentials"]["access_key"] == ACCESS_KEY
    marks = {
        line.split(":")[0].strip(): line.rpartition("# default: ")[2]
        for line in done.stdout.splitlines()
        if "# default: " in line
    }
    assert (marks["interval"], marks["timeout"], marks["jobs"]) == (
        "10s",
        "10s",
        "none",
    )
    assert "backoff_max" not in marks
    assert done.stderr == "watcher: valid: 1 job in 1 target\n"


def test_check_reads_the_job_files(config, tmp_path):
    jobs = tmp_path / "jobs.txt"
    jobs.write_text("job-1\njob-2\n")
    each = {"prod": target("http://127.0.0.1:1", ["job-1"], job_files=[str(jobs)])}
    each["idle"] = target("http://127.0.0.1:1", [])
    file = config({"targets": each})
    good = watcher("check", "--config", file)
    jobs.write_text(f"job-1\nsk {SECRET_KEY}\n{SECRET_KEY}\n")
    bad = watcher("check", "--config", file)
    assert (good.returncode, bad.returncode) == (0, 1)
    idle = "watcher: targets.idle: watches nothing: no jobs, job_files or discover"
    valid = "watcher: valid: 2 jobs in 2 targets"
    assert sorted(good.stderr.splitlines()) == [idle, valid]
    wrong = f"watcher: {jobs}:2: not a job id (and 1 more lines)"
    assert sorted(bad.stderr.splitlines()) == [wrong, idle]
    assert SECRET_KEY not in bad.stderr + bad.stdout


async def test_an_address_in_use(config):
    with free_port() as port:
        file = config({"targets": {"prod": target("http://127.0.0.1:1", [])}})
        done = watcher(
            "run",
            "--config",
            file,
            f"--server.listen=127.0.0.1:{port}",
            "--store.url=memory:",
        )
        assert done.returncode == 75  # it may be free a moment later: worth a restart
        cannot = "watcher: server.listen: cannot listen on 127.0.0.1:"
        assert done.stderr.startswith(cannot)
        assert "Traceback" not in done.stderr


def test_an_address_that_this_machine_has_not_yet(config):
    file = config({"targets": {"prod": target("http://127.0.0.1:1", [])}})
    more = ("--server.listen=192.0.2.1:0", "--store.url=memory:")
    assert watcher("run", "--config", file, *more).returncode == 75


def test_the_unit_starts_again_where_that_may_help():
    unit = Path("deploy/systemd/devserver-watcher.service").read_text()
    (line,) = (each for each in unit.splitlines() if each.startswith("RestartPrev"))
    assert line.partition("=")[2].split() == ["1", "2", "78"]


async def test_what_a_reload_would_change(tmp_path):
    values = {"targets": {"prod": target("http://127.0.0.1:1", ["job-1"])}}
    token = {"WATCHER_SERVER__API_TOKEN": "a-token"}
    command = ("check", "--diff", "--config", tmp_path / "watcher.yaml")
    async with running(tmp_path, values, environ=token) as daemon:
        await daemon.started()
        listen = {"WATCHER_SERVER__LISTEN": daemon.url.removeprefix("http://")}
        changed = watcher(*command, "--poll.interval=3s", **listen, **token)
        strange = watcher(*command, **listen)
        status, shown = await daemon.get(
            "/api/v1/config", Authorization="Bearer a-token"
        )
    assert changed.returncode == 0
    assert "-  interval: 10.0\n+  interval: 3.0\n" in changed.stdout
    assert SECRET_KEY not in changed.stdout + shown
    assert status == 200
    assert (strange.returncode, strange.stdout) == (78, "")
    assert strange.stderr.startswith("watcher: server.api_token: the daemon at 127")
    assert '"error"' not in strange.stderr
    gone = watcher(*command, **listen)
    assert gone.returncode == 78
    assert gone.stderr.startswith("watcher: server.listen: no daemon answers at 127")


async def test_healthcheck(tmp_path):
    values = {"targets": {"prod": target("http://127.0.0.1:1", ["job-1"])}}
    async with running(tmp_path, values) as daemon:
        await daemon.started()
        address = daemon.url.removeprefix("http://")
        assert watcher("healthcheck", "--address", address).returncode == 0
        by_config = watcher(
            "healthcheck",
            "--config",
            tmp_path / "watcher.yaml",
            WATCHER_SERVER__LISTEN=address,
        )
        assert by_config.returncode == 0
        daemon.process.send_signal(signal.SIGSTOP)
        stuck = watcher("healthcheck", "--address", address)
        daemon.process.send_signal(signal.SIGCONT)
        assert (await daemon.end())[0] == 0
    gone = watcher("healthcheck", "--address", address)
    assert (stuck.returncode, gone.returncode) == (1, 1)
    for said in (stuck.stderr, gone.stderr):
        assert said.startswith(f"watcher: no daemon answers at {address} (")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_while_the_cloud_hangs(tmp_path, number):
    options = SimulatorOptions(jobs=3, faults=parse_faults("hang"))
    async with simulate(options) as sim:
        values = {"targets": {"prod": target(sim.url, sim.job_ids)}}
        async with running(tmp_path, values) as daemon:
            await daemon.started()
            await daemon.until(lambda: sim.requests.in_flight)
            code, seconds = await daemon.end(number)
    assert code == 0
    assert seconds < 5


async def test_a_dead_cloud_is_no_failed_probe(tmp_path):
    values = {
        "targets": {"prod": target("http://127.0.0.1:1", ["job-1"])},
        "poll": {"interval": "500ms"},
    }
    async with running(tmp_path, values) as daemon:
        await daemon.started()
        await daemon.until(lambda: daemon.events("poll.failing"))
        assert (await daemon.get("/healthz"))[0] == 200
        assert (await daemon.get("/readyz"))[0] == 200
        line = daemon.first("poll.failing")
        assert (line["reason"], line["jobs"], line["level"]) == (
            "unreachable",
            1,
            "warning",
        )


async def test_a_wrong_key_is_told_without_the_secret(tmp_path):
    async with simulate(
        SimulatorOptions(jobs=5, credentials={ACCESS_KEY: "x" * 40})
    ) as sim:
        values = {
            "targets": {"prod": target(sim.url, sim.job_ids)},
            "poll": {"interval": "100ms"},
        }
        async with running(tmp_path, values) as daemon:
            await daemon.started()
            await daemon.until(lambda: daemon.events("poll.failing"))
            line = daemon.first("poll.failing")
            await daemon.end()
        refused = [each.status for each in sim.requests]
    assert (line["reason"], line["status_code"], line["error_code"]) == (
        "rejected",
        401,
        "APIGW.0301",
    )
    assert len(refused) <= 3
    assert SECRET_KEY not in daemon.output


def test_demo_shows_transitions_and_ends_at_once():
    with subprocess.Popen(
        [sys.executable, "-m", "watcher", "demo", "--server.listen=127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings(),
    ) as process:
        for line in process.stdout:
            if '"task.transition"' in line:
                break
        process.send_signal(signal.SIGINT)
        _, greeting = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "/metrics" in greeting
    assert "Traceback" not in greeting


async def test_demo_cannot_listen():
    with free_port() as port:
        done = watcher("demo", f"--server.listen=127.0.0.1:{port}")
    assert done.returncode == 75
    assert done.stderr.startswith("watcher: server.listen: cannot listen on")


def test_demo_sums_up_and_goes_on():
    with subprocess.Popen(
        [sys.executable, "-m", "watcher", "demo", "--server.listen=127.0.0.1:0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings(),
    ) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if "Others have taken their places" in line:
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 0
    text = "".join(said)
    assert "  All 12 jobs are done: " in text
    assert len([line for line in said if line.startswith(("✓", "✗"))]) == 12
    assert "    liteserver-a2-aiserver-" in text


def test_simulate_prints_its_ids_and_answers():
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "watcher",
            "simulate",
            "--listen",
            "127.0.0.1:0",
            "--jobs",
            "3",
            "--seed",
            "7",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=surroundings(),
    ) as process:
        ids = [process.stdout.readline().strip() for _ in range(3)]
        greeting = process.stderr.readline()
        process.terminate()
    assert len(set(ids)) == 3
    assert greeting.startswith("simulating 3 jobs at http://127.0.0.1:")


@pytest.mark.parametrize("words", ["completion zsh", "check --config $FILE"])
def test_a_reader_that_leaves_is_no_fault(config, words):
    file = config({"targets": {"prod": target("http://127.0.0.1:1", ["job-1"])}})
    done = subprocess.run(
        ["/bin/bash", "-c", f"{sys.executable} -m watcher {words} > >(exit)"],
        capture_output=True,
        text=True,
        check=False,
        env=surroundings(FILE=str(file)),
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.returncode == 0
