"""Four places for a setting, one definition; bad input is one line with its path."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from watcher.core.errors import SettingsError
from watcher.fields import parse_duration
from watcher.settings.loading import config_file, load, nest, read_file
from watcher.settings.schema import Settings, listen_address
from watcher.settings.showing import as_yaml, paths

SECRET = "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc"
JOB = "0319470a-7fad-452e-bff0-d3ba3bd83955"
MINIMAL = {"targets": {"prod": {"region": "cn-north-4", "project_id": "p"}}}


def findings(values, flags=None, environ=None):
    with pytest.raises(SettingsError) as caught:
        load(values, flags, environ or {})
    return caught.value.findings


def with_target(**changes):
    return {"targets": {"prod": {**MINIMAL["targets"]["prod"], **changes}}}


EVENT_WORDS = (
    "'job.first_seen', 'task.transition', 'task.vanished', 'job.transition', "
    "'job.abnormal_count', 'job.reappeared' or 'job.finished'"
)
HOOK = "https://example.com/hook"


def with_sink(**sink):
    return {**MINIMAL, "sinks": [sink]}


def test_defaults():
    settings = load(MINIMAL, environ={})
    target = settings.targets["prod"]
    assert target.url == "https://modelarts.cn-north-4.myhuaweicloud.com"
    assert target.credentials.kind == "chain"
    assert (settings.poll.interval, settings.poll.backoff_max) == (10.0, 300.0)
    assert settings.server.address == ("127.0.0.1", 10911)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (" 5m ", 300),
        ("2d", 172800),
        ("1w", 604800),
        ("10", 10),
        ("0.25", 0.25),
        (7, 7),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "ten", "10x", "10s5", "s", "-5s", "1h 30m"])
def test_no_durations(text):
    (line,) = findings({**MINIMAL, "poll": {"interval": text}})
    assert line.startswith("poll.interval: ")


@pytest.mark.parametrize("value", ["0s", 0, -1, "nan", "inf"])
def test_an_interval_is_positive_and_finite(value):
    (line,) = findings({**MINIMAL, "poll": {"interval": value}})
    assert line.startswith("poll.interval: ")


def test_precedence(tmp_path):
    (tmp_path / "POLL__INTERVAL").write_text("3s\n")
    (tmp_path / "poll__timeout").write_text("3s\n")
    (tmp_path / "poll__backoff_max").write_text("3s\n")
    environ = {
        "WATCHER_SECRETS_DIR": str(tmp_path),
        "WATCHER_POLL__INTERVAL": "2s",
        "watcher_poll__timeout": "2s",
    }
    file = {
        **MINIMAL,
        "poll": {
            "interval": "4s",
            "timeout": "4s",
            "backoff_max": "4s",
            "max_in_flight": 4,
        },
    }
    poll = load(file, {"poll.interval": "1s"}, environ).poll
    assert (poll.interval, poll.timeout, poll.backoff_max, poll.max_in_flight) == (
        1,
        2,
        3,
        4,
    )


def test_a_target_from_the_environment_alone():
    settings = load(
        {},
        environ={
            "WATCHER_TARGETS__CN_PROD__REGION": "cn-north-4",
            "WATCHER_TARGETS__CN_PROD__PROJECT_ID": "p",
            "WATCHER_TARGETS__CN_PROD__JOBS": f"{JOB}, other-job,",
            "WATCHER_TARGETS__CN_PROD__JOB_FILES": '["/a/*.txt", "/b"]',
            "WATCHER_TARGETS__CN_PROD__CREDENTIALS__KIND": "none",
            "WATCHER_FINISHED__EXIT_WHEN_DONE": "true",
            "WATCHER_METRICS__MAX_TASK_SERIES": "5",
        },
    )
    target = settings.targets["cn-prod"]
    assert target.jobs == (JOB, "other-job")
    assert target.job_files == ("/a/*.txt", "/b")
    assert target.credentials.kind == "none"
    assert settings.finished.exit_when_done
    assert settings.metrics.max_task_series == 5


def test_a_whole_target_as_json():
    text = '{"prod": {"region": "cn-north-4", "project_id": "p"}}'
    assert load({}, {"targets": text}, {}).targets == load(MINIMAL, environ={}).targets


@pytest.mark.parametrize("variable", ["WATCHER_SECRETS_DIR", "CREDENTIALS_DIRECTORY"])
@pytest.mark.parametrize("prefix", ["", "watcher_"])  # systemd's, of a whole folder
def test_secrets_folder(tmp_path, variable, prefix):
    (tmp_path / "..data").mkdir()
    name = f"{prefix}targets__prod__credentials__secret_key"
    (tmp_path / name).write_text(f"{SECRET}\n")
    (tmp_path / "tls.key").write_text("not a setting")
    values = with_target(credentials={"kind": "static", "access_key": "AK"})
    settings = load(values, environ={variable: str(tmp_path)})
    key = settings.targets["prod"].credentials.secret_key
    assert key.get_secret_value() == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in as_yaml(settings)


def test_a_missing_secrets_folder():
    (line,) = findings(MINIMAL, environ={"WATCHER_SECRETS_DIR": "/nowhere"})
    assert line == "WATCHER_SECRETS_DIR: No such file or directory"


def test_what_kubernetes_sets_beside_a_service_of_this_name_is_no_setting():
    load(
        MINIMAL,
        environ={
            "WATCHER_SERVICE_HOST": "10.0.0.1",
            "WATCHER_SERVICE_PORT": "10911",
            "WATCHER_SERVICE_PORT_METRICS": "10911",
            "WATCHER_PORT": "tcp://10.0.0.1:10911",
            "WATCHER_PORT_10911_TCP_ADDR": "10.0.0.1",
            "WATCHER_CONFIG": "/some/file",
            "WATCHER": "",
            "OTHER": "x",
        },
    )


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "targets: is required"),
        ({"targets": {}}, "targets: "),
        ({"targets": {"Prod": MINIMAL["targets"]["prod"]}}, "targets.Prod: "),
        ({"targets": {"prod": None}}, "targets.prod: "),
        (
            {"targets": {"prod": {"project_id": "p"}}},
            "targets.prod: needs a region or an endpoint",
        ),
        (
            with_target(credentials={"kind": "none"}, project_id=None),
            "targets.prod: needs a project_id where credentials.kind is none",
        ),
        ({**MINIMAL, "pol": {}}, "pol: unknown setting"),
        ({**MINIMAL, "poll": {"intervall": 1}}, "poll.intervall: unknown setting"),
        (with_target(region="CN NORTH"), "targets.prod.region: "),
        (with_target(project_id="p/../q"), "targets.prod.project_id: "),
        (
            with_target(endpoint="http://modelarts.example"),
            "targets.prod.endpoint: must begin with https://",
        ),
        (with_target(jobs=["a/b"]), "targets.prod.jobs.0: 'a/b' is not a job id"),
        (with_target(jobs=["templates"]), "targets.prod.jobs.0: 'templates' is not"),
        (with_target(jobs=["x" * 65]), "targets.prod.jobs.0: "),
        (with_target(credentials={"kind": "magic"}), "targets.prod.credentials: "),
        (
            with_target(credentials={"access_key": "AK"}),
            "targets.prod.credentials: needs a kind",
        ),
        (
            with_target(credentials={"kind": "static", "access_key": "AK"}),
            "targets.prod.credentials.secret_key: is required",
        ),
        (with_sink(kind="pigeon"), "sinks.0: input tag 'pigeon'"),
        (with_sink(kind="webhook", url=HOOK, name="log"), "sinks: several sinks"),
        (
            with_sink(kind="webhook", url=HOOK, events=["job.finishd"]),
            f"sinks.0.events.0: input should be {EVENT_WORDS}",
        ),
        (
            with_sink(kind="webhook", url="http://example.com"),
            "sinks.0.url: must be https, except to a loopback address",
        ),
        (
            with_sink(kind="webhook", url=HOOK, secret="whsec_!"),
            "sinks.0.secret: must be base64 after whsec_",
        ),
        (with_sink(kind="webhook", url=HOOK, tempo=1), "sinks.0.tempo: unknown"),
        ({**MINIMAL, "log": {"level": "loud"}}, "log.level: "),
        ({**MINIMAL, "server": {"listen": "10911"}}, "server.listen: "),
        ({**MINIMAL, "poll": {"max_in_flight": 0}}, "poll.max_in_flight: "),
        ({**MINIMAL, "poll": {"requests_per_second": 0}}, "poll.requests_per_second: "),
    ],
)
def test_one_line_with_the_path(values, line):
    (found,) = findings(values)
    assert found.startswith(line)
    assert "\n" not in found


def test_every_finding_has_a_line_and_no_secret():
    lines = findings(
        with_target(
            region="?",
            credentials={"kind": "static", "secret_key": [SECRET], "access_key": ""},
        ),
        {"poll.interval": "x"},
    )
    assert len(lines) == 4
    assert SECRET not in str(lines)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:10911", ("127.0.0.1", 10911)),
        (":0", ("", 0)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(text, address):
    assert listen_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "80", "host", "host:", "::1:80", "h:65536", "h:²"]
)
def test_no_addresses(text):
    with pytest.raises(SettingsError):
        listen_address(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", ":1: not YAML"),
        ('a: 1\nb: "\n', "not YAML"),
        ("- a\n", "not a mapping"),
        ("1: a\n", "not a mapping"),
        ("a: \x00", "not readable"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, text, words):
    file = tmp_path / "watcher.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_file(file)
    (line,) = caught.value.findings
    assert line.startswith(str(file))
    assert words in line


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        read_file(tmp_path / "nothing.yaml")


def test_a_file_that_is_not_text(tmp_path):
    file = tmp_path / "watcher.yaml"
    file.write_bytes(b"a: \xff")
    with pytest.raises(SettingsError, match="not readable as text"):
        read_file(file)


def test_empty_or_no_file(tmp_path):
    file = tmp_path / "watcher.yaml"
    file.write_text("# nothing\n")
    assert read_file(file) == read_file(None) == {}
    assert config_file(None, {}) is None
    assert config_file(None, {"WATCHER_CONFIG": str(file)}) == file
    assert config_file(tmp_path, {"WATCHER_CONFIG": str(file)}) == tmp_path


def test_the_example_file_is_valid():
    assert load(read_file(Path("config/watcher.yaml")), environ={}).targets


def test_the_effective_settings_can_be_read_back():
    settings = load(MINIMAL, {"poll.interval": "1h30m"}, {})
    again = load(yaml.safe_load(as_yaml(settings)), environ={})
    assert again.model_dump() == settings.model_dump()


def test_the_help_knows_every_setting():
    known = dict(paths())
    assert known["poll.interval"] == "10.0"
    assert known["targets.NAME.jobs"] == "none"
    assert {path.partition(".")[0] for path in known} == set(Settings.model_fields)


@given(
    st.dictionaries(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple),
        st.text(),
    )
)
def test_any_pairs_nest(pairs):
    nest((list(path), text) for path, text in pairs.items())
