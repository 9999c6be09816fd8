"""What the doctor finds, with simulated clouds, small servers and real files."""

import asyncio
import errno
import fcntl
import io
import json
import os
import socket
import ssl
import threading
import time
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from tests.doors.client.servers import JOB, PROJECT, cloud, ok, raw_server, refuse
from watcher import doctor
from watcher.core.errors import SettingsError
from watcher.daemon.app import wall
from watcher.doctor import local, reach
from watcher.doctor import target as steps
from watcher.doctor.findings import Diagnosis, Fault, Finding, Status, fail, skipped
from watcher.doctor.report import clean, write
from watcher.settings.loading import Origin
from watcher.simulator import SimulatorOptions, parse_faults, simulate
from watcher.store.sqlite.lock import FileLock
from watcher.web.server import serve

ACCESS, SECRET = "QTWAOYTTINDUT2QVKYUC", "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc"
DATA = Path(__file__).parent / "data"
NO_METADATA = {"HUAWEICLOUD_SDK_METADATA_ENDPOINT": "http://127.0.0.1:1", "HOME": "/-"}


def target(url, **more):
    key = {"kind": "static", "access_key": ACCESS, "secret_key": SECRET}
    return {"endpoint": url, "project_id": PROJECT, "credentials": key, **more}


def key(secret=SECRET, **more):
    return {"kind": "static", "access_key": ACCESS, "secret_key": secret, **more}


async def examine(targets, environ=None, **sections):
    """Examine a target, or several by name."""
    each = {"prod": targets} if "endpoint" in targets else targets
    fixed = {"server": {"listen": "127.0.0.1:0"}, "store": {"url": "memory:"}}
    values = {"targets": each, **fixed, **sections}
    origin = Origin(None, values=values, environ=environ or {})
    with anyio.fail_after(30):
        diagnosis = await doctor.examine(origin, origin.load(), wall)
    assert SECRET not in shown(diagnosis)
    return diagnosis


def shown(diagnosis, *, as_json=False):
    out = io.StringIO()
    write(diagnosis, out, as_json=as_json)
    return out.getvalue()


def found(diagnosis, step, name="prod"):
    (finding,) = [each for each in diagnosis.targets[name] if each.step == step]
    return finding


def of_daemon(diagnosis, step):
    (finding,) = [each for each in diagnosis.daemon if each.step == step]
    return finding


def statuses(diagnosis, name="prod"):
    return {each.step: str(each.status) for each in diagnosis.targets[name]}


def options(**more):
    return SimulatorOptions(**{"jobs": 2, "credentials": {ACCESS: SECRET}, **more})


async def test_all_is_well():
    async with simulate(options()) as sim:
        diagnosis = await examine(target(sim.url, jobs=sim.job_ids))
        asked = [each.call for each in sim.requests]
    assert statuses(diagnosis) == dict.fromkeys(
        (
            *("configuration", "dns", "connection", "credentials"),
            *("request", "clock", "permission"),
        ),
        "ok",
    )
    assert (diagnosis.exit_code, asked) == (0, ["unknown", "detail"])
    shown_key = f"access key {ACCESS} from targets.prod.credentials"
    assert found(diagnosis, "credentials").text == shown_key
    assert all(each.hint is None for each in diagnosis.all)


async def test_without_a_job_the_list_is_asked_for():
    async with simulate(options()) as sim:
        diagnosis = await examine(target(sim.url))
        asked = [each.call for each in sim.requests]
    assert (diagnosis.exit_code, asked) == (0, ["unknown", "list"])
    assert found(diagnosis, "request").text == "the list call answers: 2 jobs in all"
    assert found(diagnosis, "jobs").status is Status.WARN


async def test_a_job_that_is_not_there_proves_the_rest():
    async with simulate(options()) as sim:
        diagnosis = await examine(target(sim.url, jobs=[JOB]))
    assert diagnosis.exit_code == 0
    assert found(diagnosis, "request").status is Status.WARN
    assert found(diagnosis, "permission").status is Status.OK


@pytest.mark.parametrize(
    ("fault", "exit_code", "words"),
    [
        ("bad_signature", 77, "the secret key does not belong to this access key"),
        ("unknown_key", 77, "the access key does not exist"),
        ("locked", 77, "wait 5 minutes"),
        ("expired", 77, "set this machine's clock"),
        ("404_apigw", 1, "another service or region"),
        ("429", 1, "poll.requests_per_second"),
        ("500", 1, "give the request id to its support"),
        ("502_html", 1, "failed on its side"),
        ("html_200", 1, "a captive portal"),
        ("404_html", 1, "a captive portal"),
        ("302", 1, "redirects are not followed"),
        ("reset", 69, "poll.timeout"),
        ("hang", 69, "poll.timeout"),
    ],
)
async def test_each_refusal_has_its_hint(fault, exit_code, words):
    faults = parse_faults(f"{fault}:call=detail")
    async with simulate(options(faults=faults)) as sim:
        given = target(sim.url, jobs=sim.job_ids)
        diagnosis = await examine(given, poll={"timeout": "500ms"})
        asked = sim.requests.calls["detail"]
    finding = found(diagnosis, "request")
    assert finding.status is Status.FAIL
    assert words in finding.hint
    assert diagnosis.exit_code == exit_code
    assert found(diagnosis, "permission").status is Status.SKIPPED
    assert asked == 1 or fault == "reset"


async def test_no_permission_is_not_a_refused_key():
    async with simulate(options(faults=parse_faults("403:call=detail"))) as sim:
        diagnosis = await examine(target(sim.url, jobs=sim.job_ids))
    assert found(diagnosis, "request").status is Status.OK
    finding = found(diagnosis, "permission")
    assert (finding.status, diagnosis.exit_code) == (Status.FAIL, 1)
    assert "APIGW.0302" in finding.text
    assert "administrator" in finding.hint


async def test_what_a_firewall_forbids_says_nothing_about_permission():
    def answer(_request):
        return web.Response(text="<html>blocked", status=403)

    async with cloud(answer) as server:
        diagnosis = await examine(target(server.origin))
    assert "firewall" in found(diagnosis, "request").hint
    assert found(diagnosis, "permission").status is Status.SKIPPED


async def test_a_list_that_the_service_refuses_holds_nothing_up():
    async with simulate(options(paging="refused")) as sim:
        diagnosis = await examine(target(sim.url))
    assert found(diagnosis, "request").status is Status.WARN
    assert "poll.mode" in found(diagnosis, "request").hint
    assert found(diagnosis, "permission").status is Status.SKIPPED
    assert diagnosis.exit_code == 0


@pytest.mark.parametrize("fault", ["bad_signature", "unknown_key", "expired", "locked"])
async def test_a_refused_key_is_used_once_for_all_targets(fault):
    faults = parse_faults(f"{fault}:call=detail")
    async with simulate(options(faults=faults, latency=0.05)) as sim:
        given = target(sim.url, jobs=sim.job_ids)
        diagnosis = await examine({"a": given, "b": given, "c": given, "d": given})
        asked = sim.requests.calls["detail"]
    assert (asked, diagnosis.exit_code) == (1, 77)
    texts = [found(diagnosis, "request", name).text for name in "abcd"]
    assert sum("so not asked again" in text for text in texts) == 3
    assert all("APIGW.0301" in text for text in texts)
    assert not any("held back" in text for text in texts)


@pytest.mark.parametrize("jobs", [[], [JOB]], ids=["found", "not-found"])
async def test_a_good_key_serves_all_targets_at_once(jobs):
    async with simulate(options(latency=0.2)) as sim:
        given = target(sim.url, jobs=jobs)
        names = [f"t{number}" for number in range(20)]
        began = time.monotonic()
        diagnosis = await examine(dict.fromkeys(names, given))
    assert diagnosis.exit_code == 0
    assert time.monotonic() - began < 3


async def test_another_key_is_tried_in_its_own_right():
    async with simulate(options()) as sim:
        wrong = target(sim.url, credentials=key("another-secret-key"))
        diagnosis = await examine({"a": wrong, "b": target(sim.url)})
    assert found(diagnosis, "request", "a").status is Status.FAIL
    assert found(diagnosis, "request", "b").status is Status.OK


async def test_who_waits_in_vain_for_a_key_in_use_is_skipped():
    faults = parse_faults("hang:call=detail")
    async with simulate(options(faults=faults)) as sim:
        given = target(sim.url, jobs=sim.job_ids)
        diagnosis = await examine({"a": given, "b": given}, poll={"timeout": "300ms"})
    seen = {statuses(diagnosis, name)["request"] for name in "ab"}
    assert {"fail"} <= seen <= {"fail", "skipped"}, (
        "who had it first may give it up late"
    )


async def test_a_temporary_key_that_is_refused_is_not_exchanged():
    faults = parse_faults("bad_signature:call=list")
    async with simulate(options(faults=faults)) as sim:
        environ = {"HUAWEICLOUD_SDK_METADATA_ENDPOINT": sim.url}
        diagnosis = await examine(
            target(sim.url, credentials={"kind": "metadata"}), environ
        )
        asked = sim.requests.calls
    assert (asked["list"], asked["metadata_key"]) == (1, 1)
    assert diagnosis.exit_code == 77


async def test_a_login_that_was_refused_elsewhere_is_said_to_be_so():
    logins = []

    async def answer(request):
        if request.method == "GET":
            return refuse(401, "APIGW.0301", "decrypt token fail")
        logins.append(request)
        await anyio.sleep(0.5 if len(logins) == 2 else 0)
        headers = {"X-Subject-Token": "a-token-of-iam"}
        return web.json_response({"token": {}}, status=201, headers=headers)

    async with cloud(answer) as server:
        login = {"user": "operator", "domain": "acme", "password": "a-password"}
        token = {"kind": "token", "iam_endpoint": server.origin, **login}
        given = target(server.origin, credentials=token)
        diagnosis = await examine({"a": given, "b": given})
    texts = [found(diagnosis, "request", name).text for name in "ab"]
    assert sum("so not asked again" in text for text in texts) == 1
    assert "the token is of no use" in found(diagnosis, "request", "a").hint


@pytest.mark.parametrize(
    ("status", "code", "jobs", "exit_code", "words"),
    [
        (400, "APIGW.0201", [], 1, "check targets.prod.region"),
        (400, "ModelArts.6400", [JOB], 1, "check targets.prod.region"),
        (401, "APIGW.0305", [JOB], 77, "this kind of credentials"),
        (400, "ModelArts.6401", [JOB], 77, "the token is of no use"),
        (500, "ModelArts.0109", [JOB], 1, None),
    ],
)
async def test_the_code_decides(status, code, jobs, exit_code, words):
    async with cloud(lambda _r: refuse(status, code, "no")) as server:
        diagnosis = await examine(target(server.origin, jobs=jobs))
    if words is None:
        assert found(diagnosis, "permission").status is Status.FAIL
    else:
        assert found(diagnosis, "request").status is Status.FAIL
        assert words in found(diagnosis, "request").hint
        assert found(diagnosis, "permission").status is Status.SKIPPED
    assert diagnosis.exit_code == exit_code


async def test_terminal_and_json_have_no_control_characters_or_secrets():
    def answer(_request):
        return refuse(400, "X.1", f"\x1b]0;you\x07\u202e {SECRET} \x9b")

    async with cloud(answer) as server:
        diagnosis = await examine(target(server.origin, jobs=[JOB]))
    for text in (shown(diagnosis), shown(diagnosis, as_json=True)):
        assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("skew", "status", "words"),
    [
        (0, "ok", "agrees"),
        (30, "ok", "30 s behind"),
        (-30, "ok", "30 s ahead of"),
        (100, "warn", "100 s behind"),
        (-100, "warn", "100 s ahead of"),
        (2000, "fail", "2000 s behind"),
        (-2000, "fail", "the daemon dates requests by the server's"),
    ],
)
async def test_clock(skew, status, words):
    async with simulate(options(clock_skew=skew)) as sim:
        diagnosis = await examine(target(sim.url, jobs=sim.job_ids))
        refused = sim.requests.statuses[401]
    assert statuses(diagnosis)["clock"] == status
    assert words in found(diagnosis, "clock").text
    assert found(diagnosis, "request").status is Status.OK
    assert refused == 0, "the time is known before anything is signed"
    assert diagnosis.exit_code == (1 if status == "fail" else 0)


async def test_a_server_without_a_date():
    body = b'{"data": []}'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n"
    async with raw_server(head + body) as origin:
        diagnosis = await examine(target(origin))
    assert statuses(diagnosis)["request"] == "ok"
    assert statuses(diagnosis)["clock"] == "skipped"


async def test_a_name_that_does_not_exist():
    diagnosis = await examine(target("https://no-such-host.invalid", jobs=[JOB]))
    assert diagnosis.exit_code == 69
    assert "targets.prod.region" in found(diagnosis, "dns").hint
    assert statuses(diagnosis) == {
        "configuration": "ok",
        "dns": "fail",
        "connection": "skipped",
        "credentials": "ok",
        "request": "skipped",
        "clock": "skipped",
        "permission": "skipped",
    }


def test_a_name_server_that_hangs_holds_nothing_up(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(60))
    monkeypatch.setattr("watcher.doctor.target.LONGEST_LOOKUP", 0.2)
    monkeypatch.setattr("watcher.doctor.local.LONGEST", 0.2)
    values = {"targets": {"prod": target("https://slow.invalid")}}
    values |= {"store": {"url": "memory:"}}
    out = io.StringIO()
    began = time.monotonic()
    code = doctor.main(
        Origin(None, values=values, environ={}), as_json=True, out=out, now=wall
    )
    took = time.monotonic() - began
    left = [each for each in threading.enumerate() if each.name == "doctor"]
    released.set()
    assert left
    assert all(each.daemon for each in left)
    assert (code, took < 5) == (69, True)
    assert "no answer within 0.2 s" in out.getvalue()


async def test_one_target_out_of_reach_is_a_fault_of_its_own():
    async with simulate(options()) as sim:
        each = {"a": target("https://no-such-host.invalid"), "b": target(sim.url)}
        diagnosis = await examine(each)
    assert diagnosis.exit_code == 1


async def test_a_refused_connection():
    async with cloud() as gone:
        origin = gone.origin
    diagnosis = await examine(target(origin.replace("127.0.0.1", "localhost")))
    finding = found(diagnosis, "connection")
    assert "Connection refused" in finding.text
    assert "nothing listens there" in finding.hint
    assert diagnosis.exit_code == 69


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH])
def test_no_way_there(number):
    hop = reach.Hop("192.0.2.1", 443, None, "x", "y")
    finding = reach._unconnected(hop, OSError(number, "?"))
    assert "this machine has no way there" in finding.hint


async def test_a_server_that_never_answers(monkeypatch):
    monkeypatch.setattr("watcher.doctor.target.LONGEST_GREETING", 0.2)
    async with raw_server(b"", linger=30) as origin:
        diagnosis = await examine(target(origin))
    assert "no answer in HTTP" in found(diagnosis, "connection").text
    assert diagnosis.exit_code == 69


async def test_a_server_that_does_not_greet_in_tls(monkeypatch):
    monkeypatch.setattr("watcher.doctor.target.LONGEST_CONNECT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        diagnosis = await examine(target(f"https://127.0.0.1:{port}"))
    assert "no connection with" in found(diagnosis, "connection").text
    assert diagnosis.exit_code == 69


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b""])
async def test_a_server_of_another_kind(data):
    async with raw_server(data) as origin:
        plain = await examine(target(origin))
        secure = await examine(target(origin.replace("http:", "https:")))
    assert "firewall" in found(plain, "connection").hint
    assert "TLS handshake" in found(secure, "connection").text
    assert plain.exit_code == secure.exit_code == 69


def certificate(name):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(DATA / f"{name}.pem")
    return context


@pytest.mark.parametrize(
    ("name", "host", "trusted", "words"),
    [
        ("self-signed", "localhost", True, None),
        ("self-signed", "localhost", False, "targets.prod.ca_file"),
        ("self-signed", "127.0.0.1", True, "another server answers in this name"),
        ("expired", "localhost", True, "set this machine's clock"),
    ],
)
async def test_tls(name, host, trusted, words):
    async with simulate(options(), tls=certificate(name)) as sim:
        trust = {"ca_file": str(DATA / f"{name}.pem")} if trusted else {}
        url = sim.url.replace("127.0.0.1", host)
        diagnosis = await examine(target(url, jobs=sim.job_ids, **trust))
        asked = sim.requests.calls.total()
    finding = found(diagnosis, "connection")
    if words is None:
        assert diagnosis.exit_code == 0
        assert "TLSv1.3" in finding.text
    else:
        assert "is not trusted" in finding.text
        assert words in finding.hint
        assert (diagnosis.exit_code, asked) == (69, 0)


async def test_a_ca_file_that_is_not_there():
    diagnosis = await examine(
        target("https://localhost", ca_file="/nowhere.pem", jobs=[JOB])
    )
    assert diagnosis.exit_code == 78
    assert "targets.prod.ca_file" in found(diagnosis, "configuration").text
    assert set(statuses(diagnosis).values()) == {"fail", "skipped"}


async def test_a_proxy_that_is_not_there(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://me:sesame@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    diagnosis = await examine(target("https://no-such-host.invalid"))
    finding = found(diagnosis, "connection")
    assert "127.0.0.1:1: Connection refused" in finding.text
    assert "HTTPS_PROXY" in finding.hint
    assert "sesame" not in shown(diagnosis)


async def test_a_proxy_that_does_not_connect(monkeypatch):
    async with raw_server(b"HTTP/1.1 407 No\r\n\r\n") as origin:
        monkeypatch.setenv("https_proxy", origin)
        monkeypatch.setenv("no_proxy", "")
        diagnosis = await examine(target("https://no-such-host.invalid"))
    finding = found(diagnosis, "connection")
    assert "refused to connect" in finding.text
    assert "let the proxy in HTTPS_PROXY pass" in finding.hint


async def test_portal_that_redirects_everything_gets_no_second_look():
    async with cloud() as other:

        def redirect(_request):
            return web.Response(status=302, headers={"Location": other.origin})

        async with cloud(redirect) as server:
            diagnosis = await examine(target(server.origin))
    assert "captive portal" in found(diagnosis, "request").hint
    assert not other.seen
    assert diagnosis.exit_code == 1


async def test_the_greeting_carries_no_credentials():
    async with cloud(lambda _r: ok({"data": []})) as server:
        await examine(target(server.origin))
    first, second = server.seen
    assert "Authorization" not in first.headers
    assert ACCESS not in str(first.headers)
    assert "Authorization" in second.headers


async def test_a_greeting_may_be_answered_with_any_page():
    def answer(request):
        if request.path == "/":
            return web.Response(body=b" " * 2**20, status=500)
        return ok({"data": []})

    async with cloud(answer) as server:
        diagnosis = await examine(target(server.origin))
    assert statuses(diagnosis)["connection"] == "ok"
    assert statuses(diagnosis)["request"] == "ok"


# Credentials


async def test_a_key_of_the_environment():
    environ = {"HUAWEICLOUD_SDK_AK": ACCESS, "HUAWEICLOUD_SDK_SK": SECRET}
    async with simulate(options()) as sim:
        given = target(sim.url, credentials={"kind": "chain"})
        diagnosis = await examine(given, environ)
    text = found(diagnosis, "credentials").text
    assert text.startswith(f"access key {ACCESS} from the environment")
    assert diagnosis.exit_code == 0


@pytest.mark.parametrize("kind", ["chain", "profile"])
async def test_a_wrong_key_of_the_profile_file(tmp_path, kind):
    file = tmp_path / "credentials"
    file.write_text(f"[basic]\nak = {ACCESS}\nsk = {SECRET}\n")
    environ = {"HUAWEICLOUD_SDK_CREDENTIALS_FILE": str(file)}
    async with simulate(options(credentials={ACCESS: "x" * 40})) as sim:
        diagnosis = await examine(target(sim.url, credentials={"kind": kind}), environ)
    assert "profile file" in found(diagnosis, "credentials").text
    assert "profile file" in found(diagnosis, "request").hint
    assert diagnosis.exit_code == 77


@pytest.mark.parametrize("kind", ["chain", "metadata"])
async def test_a_key_of_the_metadata_service(kind):
    async with simulate(options()) as sim:
        environ = {**NO_METADATA, "HUAWEICLOUD_SDK_METADATA_ENDPOINT": sim.url}
        diagnosis = await examine(target(sim.url, credentials={"kind": kind}), environ)
        asked = sim.requests.calls["metadata_key"]
    text = found(diagnosis, "credentials").text
    assert "metadata service" in text
    assert "until 20" in text
    assert (diagnosis.exit_code, asked) == (0, 1)


async def test_temporary_keys_that_have_ended():
    token = "a-token-of-a-temporary-key"
    faults = parse_faults("expired:call=list")
    async with simulate(options(faults=faults)) as sim:
        given = target(sim.url, credentials=key(security_token=token))
        diagnosis = await examine(given)
    assert "temporary access key" in found(diagnosis, "credentials").text
    assert "the temporary keys have ended" in found(diagnosis, "request").hint
    assert token not in shown(diagnosis)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("chain", "set HUAWEICLOUD_SDK_AK"),
        ("profile", "profile file"),
        ("metadata", "give this server an agency"),
    ],
)
async def test_no_credentials_to_be_had(kind, words):
    async with simulate(options()) as sim:
        given = target(sim.url, credentials={"kind": kind})
        diagnosis = await examine(given, NO_METADATA)
    assert words in found(diagnosis, "credentials").hint
    assert statuses(diagnosis)["request"] == "skipped"
    assert statuses(diagnosis)["clock"] == "ok"
    assert diagnosis.exit_code == 77


async def test_credentials_that_take_too_long(monkeypatch):
    monkeypatch.setattr("watcher.doctor.target.LONGEST_CREDENTIALS", 0.2)
    async with raw_server(b"", linger=30) as slow, simulate(options()) as sim:
        environ = {"HUAWEICLOUD_SDK_METADATA_ENDPOINT": slow}
        given = target(sim.url, credentials={"kind": "metadata"})
        diagnosis = await examine(given, environ)
    assert "not had within 0.2 s" in found(diagnosis, "credentials").text
    assert diagnosis.exit_code == 1


async def test_a_target_that_wants_credentials_but_gets_none():
    async with simulate(options()) as sim:
        diagnosis = await examine(target(sim.url, credentials={"kind": "none"}))
    assert "none are sent" in found(diagnosis, "credentials").text
    assert "set targets.prod.credentials" in found(diagnosis, "request").hint
    assert diagnosis.exit_code == 77


def user(sim, password):
    login = {"user": "operator", "domain": "acme", "password": password}
    return {"kind": "token", "iam_endpoint": sim.url, **login}


async def test_a_user_of_iam():
    users = {"operator": "a-right-password"}
    async with simulate(SimulatorOptions(users=users)) as sim:
        good = target(sim.url, credentials=user(sim, "a-right-password"))
        wrong = target(sim.url, credentials=user(sim, "a-wrong-password"))
        diagnosis = await examine({"a": good})
        assert "IAM gave a token" in found(diagnosis, "credentials", "a").text
        assert diagnosis.exit_code == 0
        logins = sim.requests.calls["token"]
        diagnosis = await examine({"a": wrong, "b": wrong, "c": wrong})
        assert sim.requests.calls["token"] == logins + 1
    assert diagnosis.exit_code == 77
    for name in "abc":
        assert "user, password and domain" in found(diagnosis, "credentials", name).hint
    assert "a-wrong-password" not in shown(diagnosis)


async def test_an_iam_that_does_not_answer():
    async with cloud() as gone:
        origin = gone.origin
    async with simulate(options()) as sim:
        login = user(sim, "a-right-password") | {"iam_endpoint": origin}
        diagnosis = await examine(target(sim.url, credentials=login))
    assert "iam_endpoint" in found(diagnosis, "credentials").hint
    assert diagnosis.exit_code == 1


# The look-up of the project


def looked_up(sim, secret=SECRET, region="cn-north-4"):
    """A target whose project is asked for; the simulator stands in for IAM."""
    given = target(sim.url, region=region, credentials=key(secret))
    del given["project_id"]
    return given


@pytest.fixture
def iam(monkeypatch):
    def stand_in(url):
        monkeypatch.setattr("watcher.client.api.iam_endpoint_of", lambda _: url)

    return stand_in


async def test_a_project_that_is_looked_up(iam):
    async with simulate(options()) as sim:
        iam(sim.url)
        diagnosis = await examine(looked_up(sim))
        asked = [each.call for each in sim.requests]
    assert found(diagnosis, "project").text == f"IAM names project {PROJECT}"
    assert (diagnosis.exit_code, asked) == (0, ["unknown", "projects", "list"])


async def test_a_project_that_is_not_found(iam):
    async with simulate(options()) as sim:
        iam(sim.url)
        diagnosis = await examine(looked_up(sim, region="eu-west-101"))
    assert "set targets.prod.project_id" in found(diagnosis, "project").hint
    assert statuses(diagnosis)["request"] == "skipped"
    assert diagnosis.exit_code == 1


async def test_a_key_that_the_look_up_refuses_is_not_used_again(iam):
    async with simulate(options()) as sim:
        iam(sim.url)
        diagnosis = await examine(looked_up(sim, "another-secret-key"))
        asked = [each.call for each in sim.requests]
    assert asked == ["unknown", "projects"]
    assert "the secret key does not belong" in found(diagnosis, "project").hint
    assert diagnosis.exit_code == 77


async def test_look_up_and_request_share_their_time(iam, monkeypatch):
    monkeypatch.setattr("watcher.doctor.target.LONGEST_REQUEST", 0.5)
    async with simulate(options(latency=0.35)) as sim:
        iam(sim.url)
        diagnosis = await examine(looked_up(sim))
    assert found(diagnosis, "project").status is Status.OK
    assert found(diagnosis, "request").text == "no answer within 0.5 s"


# This machine


async def test_job_files(tmp_path):
    (tmp_path / "good.txt").write_text(f"{JOB} # the first\njob-2\n")
    async with simulate(options()) as sim:
        given = target(sim.url, job_files=[f"{tmp_path}/*.txt"])
        diagnosis = await examine(given)
        assert found(diagnosis, "job_files").text == "2 jobs in them"
        (tmp_path / "bad.txt").write_text("no id\n")
        diagnosis = await examine(given)
    assert found(diagnosis, "job_files").status is Status.FAIL
    assert "bad.txt:1" in found(diagnosis, "job_files").text
    assert diagnosis.exit_code == 1


async def test_job_files_that_are_not_there_or_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    async with simulate(options()) as sim:
        none = await examine(target(sim.url, job_files=[f"{tmp_path}/*.ids"]))
        pipe = await examine(target(sim.url, job_files=[f"{tmp_path}/*.txt"]))
    assert found(none, "job_files").status is Status.WARN
    assert none.exit_code == 0
    assert "is not a file" in found(pipe, "job_files").text
    assert pipe.exit_code == 1


async def store(folder, url="sqlite:///watcher.db"):
    async with simulate(options()) as sim:
        environ = {"STATE_DIRECTORY": str(folder)}
        diagnosis = await examine(target(sim.url), environ, store={"url": url})
    return of_daemon(diagnosis, "store")


async def test_a_store_that_can_be_had(tmp_path):
    finding = await store(tmp_path)
    assert finding.status is Status.OK
    assert "can be written" in finding.text
    assert list(tmp_path.iterdir()) == []


async def test_a_store_that_a_daemon_holds(tmp_path):
    lock = FileLock(tmp_path / "watcher.db.lock")
    finding = await store(tmp_path)
    assert finding.status is Status.OK
    assert f"a daemon with pid {os.getpid()} holds it" in finding.text
    lock.close()
    assert "no daemon holds it" in (await store(tmp_path)).text


async def test_the_doctor_lets_the_store_go(tmp_path):
    FileLock(tmp_path / "watcher.db.lock").close()
    await store(tmp_path)
    with (tmp_path / "watcher.db.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_a_store_in_no_folder(tmp_path):
    finding = await store(tmp_path / "nowhere")
    assert (finding.status, finding.fault) == (Status.FAIL, Fault.OTHER)
    assert "make the folder" in finding.hint


async def test_a_store_that_is_a_folder(tmp_path):
    (tmp_path / "watcher.db").mkdir()
    finding = await store(tmp_path)
    assert "Is a directory" in finding.text
    assert "name a file" in finding.hint


async def test_a_store_that_may_not_be_written(tmp_path, monkeypatch):
    (tmp_path / "watcher.db").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    finding = await store(tmp_path)
    assert finding.text == f"{tmp_path}/watcher.db: Permission denied"
    assert "as the daemon's user" in finding.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_store_in_a_folder_of_others(tmp_path):
    tmp_path.chmod(0o555)
    finding = await store(tmp_path)
    tmp_path.chmod(0o755)
    assert "as the daemon's user" in finding.hint


async def test_a_store_on_a_file_system_that_is_not_written():
    finding = await store("/proc")
    assert finding.status is Status.FAIL


async def listen(address):
    async with simulate(options()) as sim:
        diagnosis = await examine(target(sim.url), server={"listen": address})
    return of_daemon(diagnosis, "listen")


async def test_an_address_that_is_free():
    finding = await listen("127.0.0.1:0")
    assert finding.status is Status.OK


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", ""),
        ("0.0.0.0", "0.0.0.0"),
        ("::", ""),
        ("::", "[::]"),
        ("::1", "[::1]"),
    ],
)
async def test_an_address_that_a_watcher_holds(host, asked):
    async with serve([], host, 0) as (_, port):
        finding = await listen(f"{asked}:{port}")
    assert finding.status is Status.OK
    assert "held by a running watcher" in finding.text


async def test_an_address_that_another_program_holds():
    async with cloud() as other:
        finding = await listen(other.origin.removeprefix("http://"))
    assert finding.status is Status.FAIL
    assert "no watcher" in finding.text


async def test_what_is_held_in_ipv4_is_free_in_ipv6():
    async with cloud() as other:
        finding = await listen(f"[::]:{other.origin.rpartition(':')[2]}")
    assert finding.text.endswith("is free")


async def test_an_address_whose_last_connections_linger():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    finding = await listen(f"127.0.0.1:{port}")
    assert finding.text.endswith("is free")


async def test_a_port_for_root_alone(monkeypatch):
    refused = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(local, "_bind", lambda *_: refused)
    finding = await listen("127.0.0.1:80")
    assert "a port from 1024 on" in finding.hint


def test_a_machine_without_ipv6(monkeypatch):
    real = socket.socket

    def without(family, *more):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "?")
        return real(family, *more)

    monkeypatch.setattr(local.socket, "socket", without)
    assert local._bind("", 0) is None


async def test_an_address_of_another_machine():
    finding = await listen("192.0.2.1:10911")
    assert finding.status is Status.FAIL
    assert "name an address of this machine" in finding.hint


async def test_a_watcher_behind_tls_is_known_again():
    handler = web.Server(
        lambda _: asyncio.sleep(
            0, web.Response(status=503, headers={"Server": "devserver-watcher"})
        )
    )
    runner = web.ServerRunner(handler, shutdown_timeout=0.1)
    await runner.setup()
    tls = certificate("self-signed")
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    finding = await listen(f"127.0.0.1:{runner.addresses[0][1]}")
    await runner.cleanup()
    assert finding.status is Status.WARN
    assert "poll loop stands still" in finding.text


# What is told


@pytest.mark.parametrize(
    ("targets", "daemon", "exit_code"),
    [
        ({"a": [None]}, [None], 0),
        ({"a": [None]}, [Fault.OTHER], 1),
        ({"a": [Fault.UNREACHABLE], "b": [Fault.UNREACHABLE]}, [], 69),
        ({"a": [Fault.UNREACHABLE], "b": [None]}, [], 1),
        ({"a": [Fault.UNREACHABLE, Fault.REFUSED]}, [], 77),
        ({"a": [Fault.REFUSED], "b": [Fault.SETTINGS]}, [], 78),
        ({}, [Fault.SETTINGS], 78),
    ],
)
def test_exit_codes(targets, daemon, exit_code):
    def findings(faults):
        return [
            Finding("x", Status.OK, "") if each is None else fail("x", "", "", each)
            for each in faults
        ]

    given = {name: findings(faults) for name, faults in targets.items()}
    assert Diagnosis(given, findings(daemon)).exit_code == exit_code


SOME = Diagnosis(
    {"prod": [Finding("dns", Status.OK, "found"), fail("request", "no", "try")]},
    [Finding("store", Status.WARN, "odd", "look"), skipped("listen", "moot")],
)


def test_lines_are_aligned():
    assert shown(SOME).splitlines() == [
        "prod",
        "  ✓ dns      found",
        "  ✗ request  no",
        "             hint: try",
        "this machine",
        "  ! store    odd",
        "             hint: look",
        "  \N{EN DASH} listen   moot",
        "1 fault found",
    ]


def test_json_is_one_object():
    def each(step, status, text, hint=None):
        return {"step": step, "status": status, "text": text, "hint": hint}

    assert json.loads(shown(SOME, as_json=True)) == {
        "ok": False,
        "targets": {
            "prod": {
                "ok": False,
                "findings": [
                    each("dns", "ok", "found"),
                    each("request", "fail", "no", "try"),
                ],
            }
        },
        "findings": [
            each("store", "warn", "odd", "look"),
            each("listen", "skipped", "moot"),
        ],
    }


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("kind", "no_color", "coloured"),
    [(Terminal, "", True), (Terminal, "1", False), (io.StringIO, "", False)],
)
def test_colours(monkeypatch, kind, no_color, coloured):
    monkeypatch.setenv("NO_COLOR", no_color)
    out = kind()
    write(SOME, out, as_json=False)
    assert ("\x1b[31m✗\x1b[0m" in out.getvalue()) is coloured
    assert ("\x1b" in out.getvalue()) is coloured


def test_a_terminal_without_unicode():
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    write(Diagnosis({"prod": [fail("request", "阿", "try")]}, []), out, as_json=False)
    out.flush()
    assert b"  x request  \\u963f\n" in raw.getvalue()


def test_what_is_told_is_clean():
    raw = Diagnosis({}, [fail("store", "a\x1b[2J\r\n\x7f\u202e\udcff", "b\x07")])
    (finding,) = clean(raw, ()).daemon
    assert (finding.text + finding.hint).isprintable()


@pytest.mark.parametrize("secret", [SECRET, "a-secret-of-a-webhook"])
async def test_secrets_are_masked_wherever_they_stand(tmp_path, secret):
    """Such as in the name of a job file."""
    file = tmp_path / f"{secret} sk"
    file.write_text("no id\n")
    environ = {"HUAWEICLOUD_SDK_AK": ACCESS, "HUAWEICLOUD_SDK_SK": SECRET}
    hook = {"kind": "webhook", "url": "https://x", "secret": "a-secret-of-a-webhook"}
    async with simulate(options()) as sim:
        chain = {"kind": "chain"}
        given = target(sim.url, job_files=[str(file)], credentials=chain)
        diagnosis = await examine(given, environ, sinks=[hook])
    assert "*** sk" in found(diagnosis, "job_files").text


@pytest.mark.parametrize("as_json", [True, False])
def test_an_invalid_configuration(as_json):
    out = io.StringIO()
    origin = Origin(None, values={"targets": {"prod": {"tempo": 1}}}, environ={})
    with pytest.raises(SettingsError):
        doctor.main(origin, as_json=as_json, out=out, now=wall)
    if as_json:
        answer = json.loads(out.getvalue())
        assert not answer["ok"]
        assert answer["findings"][0]["step"] == "configuration"
        assert "targets.prod" in answer["findings"][0]["text"]
    else:
        assert out.getvalue() == ""


def test_the_limits_of_all_steps_leave_room_in_30_seconds():
    names = ("LOOKUP", "CONNECT", "GREETING", "CREDENTIALS", "REQUEST")
    assert sum(getattr(steps, f"LONGEST_{name}") for name in names) < 29
