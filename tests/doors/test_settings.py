"""Four places for a setting, one definition; bad input is one line with its path."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from watcher.core.errors import SettingsError
from watcher.fields import parse_duration
from watcher.settings.document import Document
from watcher.settings.example import example
from watcher.settings.loading import Origin, config_file, load, nest
from watcher.settings.schema import Settings, Store, listen_address
from watcher.settings.showing import as_yaml, described, duration

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


def test_what_is_given_whole_and_what_is_given_of_it_are_joined():
    part = ("WATCHER_TARGETS__PROD__JOBS", "a,b")
    whole = ("WATCHER_TARGETS", '{"prod": {"region": "cn-north-4", "project_id": "p"}}')
    for order in (part, whole), (whole, part):
        target = load({}, environ=dict(order)).targets["prod"]
        assert (target.region, target.jobs) == ("cn-north-4", ("a", "b"))


def test_a_text_that_is_given_twice(tmp_path):
    environ = {"WATCHER_LOG__LEVEL": "info", "watcher_log__level": "debug"}
    assert findings(MINIMAL, environ=environ) == [
        "log.level: is given twice, first by WATCHER_LOG__LEVEL (watcher_log__level)"
    ]
    for name in ("log__level", "watcher_log__level"):
        (tmp_path / name).write_text("info")
    (line,) = findings(MINIMAL, environ={"WATCHER_SECRETS_DIR": str(tmp_path)})
    assert line.startswith("log.level: is given twice, first by ")
    assert findings({}, {"targets": '{"prod": {"jobs": [], "jobs": ["a"]}}'}) == [
        "targets.jobs: is given twice in the JSON text"
    ]


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
        ({**MINIMAL, "sinks": {"ops": {"url": HOOK}}}, "sinks: must be a list, each"),
        ({**MINIMAL, "poll": "1s"}, "poll: must have names below it"),
        ({**MINIMAL, "targets": ["prod"]}, "targets: must have names below it"),
        (
            {
                "targets": {
                    "credentials": {
                        **MINIMAL["targets"]["prod"],
                        "credentials": {"kind": "static", "access_key": "AK"},
                    }
                }
            },
            "targets.credentials.credentials.secret_key: is required",
        ),
        ({**MINIMAL, "log": {"level": "loud"}}, "log.level: "),
        ({**MINIMAL, "server": {"listen": "10911"}}, "server.listen: "),
        ({**MINIMAL, "server": {"max_connections": 8}}, "server.max_connections: "),
        ({**MINIMAL, "server": {"public_url": "watcher"}}, "server.public_url: "),
        ({**MINIMAL, "server": {"public_url": "ftp://a"}}, "server.public_url: "),
        ({**MINIMAL, "server": {"public_url": "https://u@a"}}, "server.public_url: "),
        ({**MINIMAL, "server": {"public_url": "http://[::1"}}, "server.public_url: "),
        ({**MINIMAL, "server": {"allowed_hosts": ["a:1"]}}, "server.allowed_hosts.0: "),
        ({**MINIMAL, "poll": {"max_in_flight": 0}}, "poll.max_in_flight: "),
        ({**MINIMAL, "journal": {"max_age": 0}}, "journal.max_age: "),
        ({**MINIMAL, "journal": {"max_events": 0}}, "journal.max_events: "),
        ({**MINIMAL, "journal": {"max_events": 2**63}}, "journal.max_events: "),
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
        ("a: 2026-02-30", "cannot be"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: " + "{a: " * 3000 + "}" * 3000, "nested too deeply"),
    ],
    ids=lambda text: text[:20].encode("unicode_escape").decode(),
)
def test_files_that_are_no_configuration(tmp_path, text, words):
    file = tmp_path / "watcher.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        Document(file)
    (line,) = caught.value.findings
    assert line.startswith(str(file))
    assert words in line


def read(tmp_path, text, flags=None, environ=None):
    file = tmp_path / "watcher.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        Origin(file, flags or {}, environ=environ or {}).load()
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.findings]


def test_a_key_that_is_given_twice(tmp_path):
    text = (
        "targets:\n  a: {jobs: [x], jobs: [y]}\n  b: {}\n  a: {}\npoll: {}\npoll: {}\n"
    )
    assert sorted(read(tmp_path, text)) == [
        "poll: is given twice, first in line 5 (watcher.yaml:6)",
        "targets.a.jobs: is given twice, first in line 2 (watcher.yaml:2)",
        "targets.a: is given twice, first in line 2 (watcher.yaml:4)",
    ]


def test_merge_keys_and_anchors_repeat_nothing(tmp_path):
    file = tmp_path / "watcher.yaml"
    file.write_text(
        "targets:\n"
        "  a: &a {region: cn-north-4, project_id: p, jobs: [x]}\n"
        "  b: {<<: *a, jobs: [y]}\n"
    )
    targets = Origin(file, environ={}).load().targets
    assert (targets["b"].region, targets["b"].jobs) == ("cn-north-4", ("y",))


def test_anchors_that_would_fill_the_memory(tmp_path):
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    lines += ["poll: &b {interval: *b}"]
    found = read(tmp_path, "\n".join(lines))
    assert "a29: unknown setting (watcher.yaml:30)" in found


def test_every_finding_names_its_source(tmp_path):
    text = """
targets:
  prod:
    region: cn-north-4
    jobs: [a, b/c]
    credentials:
      kind: static
      access_key: AK
  dev:
    project_id: p
  test:
    jobs: [a, b]
poll:
  interval: soon
  timeout: 1s
  intervall: 1
"""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "poll__backoff_max").write_text("later")
    flags = {"poll.max_in_flight": "many"}
    environ = {
        "WATCHER_SECRETS_DIR": str(secrets),
        "WATCHER_POLL__TIMEOUT": "never",
        "WATCHER_TARGETS__TEST__JOBS": "a,b/c",
        "WATCHER_LOG__LEVLE": "info",
    }
    found = read(tmp_path, text, flags, environ)
    places = {line.partition(": ")[0]: line.rpartition(" (")[2][:-1] for line in found}
    assert places == {
        "targets.prod.jobs.1": "watcher.yaml:5",
        "targets.prod.credentials.secret_key": "watcher.yaml:6",
        "targets.dev": "watcher.yaml:9",
        "targets.test.jobs.1": "WATCHER_TARGETS__TEST__JOBS",
        "poll.interval": "watcher.yaml:14",
        "poll.timeout": "WATCHER_POLL__TIMEOUT",
        "poll.backoff_max": "secrets/poll__backoff_max",
        "poll.max_in_flight": "--poll.max_in_flight",
        "poll.intervall": "watcher.yaml:16",
        "log.levle": "WATCHER_LOG__LEVLE",
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pol": {}}, "pol: unknown setting; did you mean poll?"),
        ({"poll": {"intervall": 1}}, "; did you mean poll.interval?"),
        ({"interval": 1}, "interval: unknown setting; did you mean poll.interval?"),
        ({"qwertz": 1}, "qwertz: unknown setting"),
        (with_target(job=[]), "; did you mean targets.prod.jobs?"),
        (
            with_target(
                credentials={"kind": "static", "access_key": "a", "secretkey": "b"}
            ),
            "; did you mean targets.prod.credentials.secret_key?",
        ),
        ({"sinks": [{"kind": "webhook", "ulr": "x"}]}, "did you mean sinks.0.url?"),
    ],
)
def test_what_was_meant(values, words):
    assert words in "\n".join(findings({**MINIMAL, **values}))


def test_text_that_is_nested_too_deeply():
    (line,) = findings(MINIMAL, {"targets": "[" * 100_000})
    assert line.startswith("targets: ")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        Document(tmp_path / "nothing.yaml")


def test_a_file_that_is_not_text(tmp_path):
    file = tmp_path / "watcher.yaml"
    file.write_bytes(b"a: \xff")
    with pytest.raises(SettingsError, match="not readable as text"):
        Document(file)


def test_empty_or_no_file(tmp_path):
    file = tmp_path / "watcher.yaml"
    file.write_text("# nothing\n")
    assert Document(file).values == {}
    assert config_file(None, {}) is None
    assert config_file(None, {"WATCHER_CONFIG": str(file)}) == file
    assert config_file(tmp_path, {"WATCHER_CONFIG": str(file)}) == tmp_path


def test_the_example_is_valid_with_and_without_what_is_behind_a_sign(tmp_path):
    file = tmp_path / "watcher.yaml"
    file.write_text(example())
    few = Origin(file, environ={}).load()
    file.write_text(re.sub(r"^#(?=\S|  )", "", example(), flags=re.MULTILINE))
    every = Origin(file, environ={}).load()
    assert few.targets["prod"].jobs == every.targets["prod"].jobs != ()
    assert every.targets["prod"].discover.status == "PROCESSING"
    free = {"runbook_url": None, "password": None}
    for section in ("poll", "finished", "log", "metrics", "store", "replica"):
        given, default = (getattr(each, section).model_dump() for each in (every, few))
        assert {**given, **free} == {**default, **free}
    assert every.store.password
    assert every.server.api_token
    assert every.sinks


def store_of(**store):
    return Store.model_validate(store)


def test_a_password_in_the_url_of_the_store_is_kept_apart():
    store = store_of(url="postgresql://u:p%40s%3As@db:5432/w?sslmode=require")
    assert store.url == "postgresql://u@db:5432/w?sslmode=require"
    assert store.password.get_secret_value() == "p@s:s"
    assert "p%40s" not in repr(store)
    assert store_of(url="postgresql://u@db/w").password is None
    assert store_of(url="postgresql://u@db/w", password="x").password is not None


@pytest.mark.parametrize(
    "store",
    [
        {"url": "postgresql://u:s3cr3t@db/w", "password": "other"},
        {"url": "postgresql://u@db/w?password=s3cr3t"},
        {"url": "postgresql://u:s3cr3t@db"},
        {"url": "postgresql://u:s3cr3t@db/w?options=-cx"},
        {"url": "mysql://u:s3cr3t@db/w"},
    ],
)
def test_a_refused_url_of_a_store_shows_no_password(store):
    with pytest.raises(ValidationError) as refused:
        store_of(**store)
    assert "s3cr3t" not in str(refused.value)


def test_the_readme_is_valid(tmp_path):
    (text,) = re.findall(
        r"<<'END'\n(.*?)END\n", Path("README.md").read_text(), re.DOTALL
    )
    file = tmp_path / "watcher.yaml"
    file.write_text(text)
    assert Origin(file, environ={}).load().targets["prod"].jobs


@given(st.integers(0, 10**7))
def test_durations_can_be_read_back(milliseconds):
    assert parse_duration(duration(milliseconds / 1000)) == pytest.approx(
        milliseconds / 1000
    )


def test_the_effective_settings_can_be_read_back():
    settings = load(MINIMAL, {"poll.interval": "1h30m"}, {})
    again = load(yaml.safe_load(as_yaml(settings)), environ={})
    assert again.model_dump() == settings.model_dump()


def test_every_setting_is_described_with_its_default():
    known = {each.path: each.default for each in described()}
    assert known["poll.interval"] == "10s"
    assert known["poll.requests_per_second"] == "20"
    assert known["targets.NAME.jobs"] == "none"
    assert known["targets.NAME.discover.max_jobs"] == "10000"
    assert {path.partition(".")[0] for path in known} == set(Settings.model_fields)
    assert all(each.what for each in described())


@given(
    st.dictionaries(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple),
        st.text(),
    )
)
def test_any_pairs_nest(pairs):
    nest((list(path), text) for path, text in pairs.items())


def test_the_names_of_the_pages():
    server = {
        "listen": "Box:1",
        "public_url": "https://Watcher.example.org:8443/sub",
        "allowed_hosts": "watcher, watcher.monitoring.svc",
    }
    settings = load({**MINIMAL, "server": server}, environ={})
    assert settings.server.names == {
        *("box", "watcher.example.org", "watcher", "watcher.monitoring.svc"),
    }
    assert load(MINIMAL, environ={}).server.names == {"127.0.0.1"}
