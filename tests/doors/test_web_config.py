"""TLS and users as Prometheus exporters have them: real files, real handshakes."""

import base64
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from contextlib import asynccontextmanager

import aiohttp
import anyio
import bcrypt
import pytest
import structlog.testing

from watcher.core.errors import SettingsError
from watcher.ports import Response
from watcher.web import logins
from watcher.web import web_config as module
from watcher.web.http import Refused
from watcher.web.server import Rules, serve
from watcher.web.web_config import WebConfig

HASHED = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode()
LONG = "x" * 80
OTHER = bcrypt.hashpw(LONG[:72].encode(), bcrypt.gensalt(4)).decode()
USERS = {"zoe": HASHED, "prometheus": OTHER.replace("$2b$", "$2y$")}


class Page:
    path = "/page"
    parameters = ()

    async def respond(self, _):
        return Response([b"ok\n"])


class Probe(Page):
    path = "/healthz"


class Change:
    method = "POST"
    path = "/change"

    async def respond(self, _):
        return Response([b"done"])


def write(folder, text):
    file = folder / "web.yml"
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(textwrap.dedent(text))
    if before:  # a clock that ticks slowly must not hide the change
        os.utime(file, ns=(before + 10**9, before + 10**9))
    return file


def with_users(folder, users=USERS):
    lines = "".join(f"  {user}: {hashed}\n" for user, hashed in users.items())
    return write(folder, f"basic_auth_users:\n{lines}")


@asynccontextmanager
async def serving(config, token="t0ken", login_failed=lambda: None, **tls):
    rules = Rules(lambda: token, web_config=config, login_failed=login_failed)
    options = {"actions": [Change()], "rules": rules}
    async with (
        serve([Page(), Probe()], "127.0.0.1", 0, **options) as (host, port),
        aiohttp.ClientSession(
            f"http{'s' if config.tls else ''}://{host}:{port}",
            connector=aiohttp.TCPConnector(force_close=True, **tls),
        ) as session,
    ):
        yield session


async def status(session, user=None, password="", **headers):
    if user is not None:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    async with session.get("/page", headers=headers) as response:
        return response.status


# Users


async def test_users_are_let_in_and_nobody_else(tmp_path):
    async with serving(WebConfig(with_users(tmp_path))) as session:
        for _ in range(2):
            assert await status(session, "zoe", "s3cret") == 200
            assert await status(session, "prometheus", LONG) == 200
            assert await status(session, "zoe", "S3cret") == 401
            assert await status(session, "zoe", "") == 401
            assert await status(session, "zoe", "s3cret\0") == 401
            assert await status(session, "prometheus", "s3cret") == 401
            assert await status(session, "nobody", "s3cret") == 401
            assert await status(session) == 401


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic !", "Basic em9l", "Bearer em9lOnMzY3JldA==", "Basic //86eA=="],
)
async def test_what_is_no_user(tmp_path, header):
    async with serving(WebConfig(with_users(tmp_path))) as session:
        assert await status(session, Authorization=header) == 401


async def test_the_question_and_every_path(tmp_path):
    async with serving(WebConfig(with_users(tmp_path))) as session:
        for path in ("/page", "/nothing", "/change"):
            async with session.get(path) as response:
                assert response.status == 401
                asked = response.headers["WWW-Authenticate"]
                assert asked == 'Basic realm="devserver-watcher"'


async def test_the_token_stands_for_a_user_and_no_user_for_the_token(tmp_path):
    async with serving(WebConfig(with_users(tmp_path))) as session:
        assert await status(session, Authorization="Bearer t0ken") == 200
        assert await status(session, Authorization="Bearer token") == 401
        zoe = aiohttp.encode_basic_auth("zoe", "s3cret")
        for header, expected in [(zoe, 401), ("Bearer t0ken", 200)]:
            headers = {"Authorization": header}
            async with session.post("/change", headers=headers) as response:
                assert response.status == expected


@pytest.mark.parametrize("token", [None, ""])
async def test_no_token_stands_for_nobody(tmp_path, token):
    async with serving(WebConfig(with_users(tmp_path)), token) as session:
        for header in ("Bearer", "Bearer ", "Bearer None"):
            assert await status(session, Authorization=header) == 401


async def test_a_password_is_computed_once(tmp_path, monkeypatch):
    computed = []

    def matches(password, _):
        computed.append(password)
        return password == b"s3cret"

    monkeypatch.setattr(module, "_matches", matches)
    file = with_users(tmp_path)
    async with serving(WebConfig(file)) as session:
        for _ in range(5):
            assert await status(session, "zoe", "s3cret") == 200
        assert len(computed) == 1
        assert await status(session, "zoe", "wrong") == 401
        assert await status(session, "zoe", "s3cret") == 200
        assert await status(session, "nobody", "s3cret") == 401  # no sooner than others
        assert len(computed) == 3
        with_users(tmp_path, {"zoe": USERS["prometheus"]})  # another password
        assert await status(session, "zoe", "s3cret") == 200  # as `matches` has it
        assert len(computed) == 4


async def test_an_unknown_name_takes_as_long_as_the_dearest(tmp_path, monkeypatch):
    computed = []
    monkeypatch.setattr(module, "_matches", lambda _, hashed: computed.append(hashed))
    dear = HASHED.replace("$04$", "$12$")
    config = WebConfig(with_users(tmp_path, {"a": HASHED, "b": dear, "c": OTHER}))
    async with serving(config) as session:
        assert await status(session, "nobody", "x") == 401
    assert computed == [dear]


async def test_the_right_password_of_another_is_none(tmp_path):
    async with serving(WebConfig(with_users(tmp_path, {"zoe": HASHED}))) as session:
        assert await status(session, "nobody", "s3cret") == 401
        assert await status(session, "nobody", "s3cret") == 401
        assert await status(session, "zoe", "s3cret") == 200


class Waits:
    """A password that takes until it is released."""

    def __init__(self):
        self.release, self.computed = threading.Event(), []

    def __call__(self, password, _):
        self.computed.append(password)
        self.release.wait(10)
        return password == b"s3cret"


async def until(condition):
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await anyio.sleep(0.01)


async def test_few_passwords_wait_and_the_others_come_back(tmp_path, monkeypatch):
    matches = Waits()
    monkeypatch.setattr(module, "_matches", matches)
    answers = []

    async def guess(session, number):
        answers.append(await status(session, "zoe", f"wrong{number}"))

    async with serving(WebConfig(with_users(tmp_path))) as session:
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(guess, session, number)
            await until(lambda: len(answers) == 30 - logins.MOST_OF_A_PEER)
            assert set(answers) == {429}
            matches.release.set()
        assert await status(session, "zoe", "s3cret") == 200
    assert len(matches.computed) == logins.MOST_OF_A_PEER + 1
    assert answers.count(401) == logins.MOST_OF_A_PEER


async def test_peers_have_the_queue_together(tmp_path, monkeypatch):
    monkeypatch.setattr(logins, "MOST_WAITING", 2)
    matches = Waits()
    monkeypatch.setattr(module, "_matches", matches)
    async with serving(WebConfig(with_users(tmp_path))) as session:
        async with anyio.create_task_group() as tasks:
            for number in range(2):
                tasks.start_soon(status, session, "zoe", f"wrong{number}")
            await until(lambda: matches.computed)
            await anyio.sleep(0.05)
            assert await status(session, "zoe", "s3cret") == 429
            matches.release.set()
        assert await status(session, "zoe", "s3cret") == 200


async def test_who_has_gone_is_not_computed(tmp_path, monkeypatch):
    matches = Waits()
    monkeypatch.setattr(module, "_matches", matches)
    async with serving(WebConfig(with_users(tmp_path))) as session:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(status, session, "zoe", "first")
            await until(lambda: matches.computed)
            with anyio.move_on_after(0.2):
                await status(session, "zoe", "second")
            await anyio.sleep(0.05)
            matches.release.set()
        assert await status(session, "zoe", "s3cret") == 200
    assert matches.computed == [b"first", b"s3cret"]


async def test_who_fails_too_often_rests(tmp_path, monkeypatch):
    monkeypatch.setattr(logins, "EVERY", 0.05)
    counted = []
    rules = {"login_failed": lambda: counted.append(1)}
    async with serving(WebConfig(with_users(tmp_path)), **rules) as session:
        with structlog.testing.capture_logs() as logs:
            answers = [await status(session, "zoe", f"x{n}") for n in range(40)]
        assert answers[: logins.BURST] == [401] * logins.BURST
        refused = answers.count(429)
        assert refused
        assert len(counted) == 40 - refused
        (line,) = logs  # and not one each
        assert line["event"] == "server.login_failed"
        assert (line["peer"], line["failures"]) == ("127.0.0.1", 1)
        assert "x0" not in str(line)
        await anyio.sleep(0.6)
        assert await status(session, "zoe", "s3cret") == 200
        for number in range(40):
            await status(session, "zoe", f"x{number}")
        assert await status(session, "zoe", "s3cret") == 200  # it was right before


def test_a_throttle_forgets_the_oldest_peers(monkeypatch):
    monkeypatch.setattr(logins, "MOST_PEERS", 2)
    throttle = logins.Throttle()
    for peer in ("a", "b", "c"):
        for _ in range(logins.BURST + 1):
            throttle.fail(peer, 0.0)
    throttle.check("a", 0.0)
    for peer in ("b", "c"):
        with pytest.raises(Refused) as error:
            throttle.check(peer, 0.0)
        assert error.value.headers["Retry-After"] == "2"
        throttle.check(peer, 2.1)


async def test_failures_are_told_once_a_minute(monkeypatch):
    monkeypatch.setattr(logins, "SAID_EVERY", 0.2)
    tried = logins.Logins(lambda: None)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert not await tried.compute("p", lambda: True, lambda: False)
        await anyio.sleep(0.25)
        assert not await tried.compute("p", lambda: True, lambda: False)
    assert [line["failures"] for line in logs] == [1, 3]


async def test_probes_ask_nobody_who_it_is(tmp_path):
    async with serving(WebConfig(with_users(tmp_path))) as session:
        for header in ({}, {"Authorization": "Basic em9lOng="}):
            async with session.get("/healthz", headers=header) as response:
                assert response.status == 200
            async with session.get("/readyz", headers=header) as response:
                assert response.status == 404  # as there is none here


async def test_users_change_while_it_runs(tmp_path):
    config = WebConfig(with_users(tmp_path, {"zoe": HASHED}))
    async with serving(config) as session:
        assert await status(session, "zoe", "s3cret") == 200
        with_users(tmp_path, {"prometheus": OTHER})
        assert await status(session, "zoe", "s3cret") == 401
        assert await status(session, "prometheus", LONG) == 200
        write(tmp_path, "")
        assert await status(session) == 200


async def test_a_change_that_cannot_be_used_is_told_once(tmp_path):
    config = WebConfig(with_users(tmp_path))
    async with serving(config) as session:
        with structlog.testing.capture_logs() as logs:
            write(tmp_path, "basic_auth_users: {zoe: plain}")
            for _ in range(3):
                assert await status(session) == 401
            assert await status(session, "zoe", "s3cret") == 200
            (tmp_path / "web.yml").unlink()
            assert await status(session, "zoe", "s3cret") == 200
            with_users(tmp_path)
            assert await status(session, "zoe", "s3cret") == 200
    told = [line["event"].removeprefix("server.web_config_") for line in logs]
    assert told == ["invalid", "invalid", "reloaded"]


async def test_users_need_bcrypt(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    with pytest.raises(SettingsError, match=r"pip install .*basic-auth"):
        WebConfig(with_users(tmp_path))
    assert WebConfig(write(tmp_path, "tls_server_config: {}")).tls is None


# The file


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("x: 1", "unknown field `x`"),
        ("tls_server_config: {cert: x}", "unknown field `cert` - at `$.tls_serv"),
        ("rate_limit: {burst: 1}", "unknown field `rate_limit`"),
        ("- x", "Expected `object`"),
        ("a: [", "line 1: not YAML"),
        ("\0", "not YAML"),
        pytest.param("[" * 3000 + "]" * 3000, "nested too deeply", id="deep"),
        pytest.param("a: " + "{b: " * 3000, "nested too deeply", id="deep and broken"),
        ("basic_auth_users: {zoe: 1}", "basic_auth_users"),
        ("basic_auth_users: {zoe: plain}", "basic_auth_users.zoe: "),
        pytest.param(
            f"basic_auth_users: {{'z:e': '{HASHED}'}}",
            "basic_auth_users.z:e: ",
            id="colon",
        ),
        ("tls_server_config: {cert_file: a.pem}", "tls_server_config.key_file: is req"),
        ("tls_server_config: {key_file: a.pem}", "tls_server_config.cert_file: is re"),
        ("tls_server_config: {client_auth_type: X}", "cert_file: is required"),
        (
            "tls_server_config: {cert_file: a.pem, key_file: b.pem}",
            "a.pem: No such file",
        ),
        (
            "tls_server_config: {cert_file: web.yml, key_file: web.yml}",
            "web.yml: cannot be used",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, min_version: TLS11}",
            "tls_server_config.min_version: must be one of TLS12, TLS13",
        ),
        (
            "tls_server_config: {cert_file: a, key_file: b, client_auth_type: x}",
            "tls_server_config.client_auth_type: must be one of NoClientCert, Verify",
        ),
    ],
)
def test_what_cannot_be_used(tmp_path, text, finding):
    file = write(tmp_path, text)
    with pytest.raises(SettingsError) as error:
        WebConfig(file)
    (found,) = error.value.findings
    assert found.startswith(f"server.web_config_file: {file}: ")
    assert finding in found
    assert "plain" not in found
    assert "\n" not in found


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match=r"nothing\.yml: No such file"):
        WebConfig(tmp_path / "nothing.yml")
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(SettingsError, match=r"server\.web_config_file"):
        WebConfig(tmp_path / "binary.yml")


# TLS


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)


def certificate(folder, name, subject="127.0.0.1"):
    openssl(
        *("req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
        *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={subject}"),
        *("-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")),
    )


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pems")
    for name in ("one", "two", "zoe", "eve"):
        certificate(folder, name)
    return folder


def take(pems, folder, name, as_name="server"):
    for kind in ("key", "pem"):
        place = folder / f"{as_name}.{kind}"
        place.unlink(missing_ok=True)
        place.write_bytes((pems / f"{name}.{kind}").read_bytes())


TLS = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n"


def trusting(pems, name, as_client=None):
    context = ssl.create_default_context(cafile=pems / f"{name}.pem")
    if as_client:
        context.load_cert_chain(pems / f"{as_client}.pem", pems / f"{as_client}.key")
    return context


REFUSED = (aiohttp.ClientError, ssl.SSLError, ConnectionError)


async def reachable(session, context):
    try:
        async with session.get("/page", ssl=context) as response:
            return response.status == 200
    except REFUSED:
        return False


async def test_tls_and_a_certificate_that_is_renewed(tmp_path, pems):
    take(pems, tmp_path, "one")
    async with serving(WebConfig(write(tmp_path, TLS))) as session:
        assert await reachable(session, trusting(pems, "one"))
        assert not await reachable(session, trusting(pems, "two"))
        take(pems, tmp_path, "two")
        assert await reachable(session, trusting(pems, "two"))
        assert not await reachable(session, trusting(pems, "one"))
        (tmp_path / "server.key").write_text("half a key")
        assert await reachable(session, trusting(pems, "two"))


async def test_clients_need_a_certificate(tmp_path, pems):
    take(pems, tmp_path, "one")
    take(pems, tmp_path, "zoe", "clients")
    text = TLS + "  client_auth_type: {}\n  client_ca_file: clients.pem\n"
    file = write(tmp_path, text.format("RequireAndVerifyClientCert"))
    async with serving(WebConfig(file)) as session:
        assert await reachable(session, trusting(pems, "one", "zoe"))
        assert not await reachable(session, trusting(pems, "one", "eve"))
        assert not await reachable(session, trusting(pems, "one"))
        take(pems, tmp_path, "eve", "clients")  # other authorities
        assert await reachable(session, trusting(pems, "one", "eve"))
        assert not await reachable(session, trusting(pems, "one", "zoe"))
    async with serving(WebConfig(file)) as session:
        write(tmp_path, text.format("VerifyClientCertIfGiven"))
        await reachable(session, trusting(pems, "one"))
        assert await reachable(session, trusting(pems, "one"))
        assert not await reachable(session, trusting(pems, "one", "zoe"))


async def test_rules_that_grow_stricter_hold_at_once(tmp_path, pems):
    take(pems, tmp_path, "one")
    take(pems, tmp_path, "zoe", "clients")
    file = write(tmp_path, TLS)
    async with serving(WebConfig(file)) as session:
        assert await reachable(session, trusting(pems, "one"))
        more = "  client_auth_type: RequireAndVerifyClientCert\n"
        write(tmp_path, TLS + more + "  client_ca_file: clients.pem\n")
        assert not await reachable(session, trusting(pems, "one"))
        assert not await reachable(session, trusting(pems, "one"))
        assert await reachable(session, trusting(pems, "one", "zoe"))


async def test_an_older_version_is_refused_at_once(tmp_path, pems):
    take(pems, tmp_path, "one")
    context = trusting(pems, "one")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(WebConfig(write(tmp_path, TLS))) as session:
        assert await reachable(session, context)
        write(tmp_path, TLS + "  min_version: TLS13\n")
        for _ in range(3):
            assert not await reachable(session, context)
        assert await reachable(session, trusting(pems, "one"))


async def test_tls_comes_or_goes_by_a_restart(tmp_path, pems):
    take(pems, tmp_path, "one")
    async with serving(WebConfig(write(tmp_path, TLS))) as session:
        write(tmp_path, "")
        with structlog.testing.capture_logs() as logs:
            assert await reachable(session, trusting(pems, "one"))
    assert "restart" in str(logs)


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        ("TLS12", ssl.TLSVersion.TLSv1_2, True),
        ("TLS13", ssl.TLSVersion.TLSv1_2, False),
        ("TLS13", ssl.TLSVersion.TLSv1_3, True),
    ],
)
async def test_versions(tmp_path, pems, wanted, offered, expected):
    take(pems, tmp_path, "one")
    file = write(tmp_path, TLS + f"  min_version: {wanted}\n")
    context = trusting(pems, "one")
    context.maximum_version = offered
    async with serving(WebConfig(file)) as session:
        assert await reachable(session, context) is expected


async def test_no_session_is_resumed(tmp_path, pems):
    take(pems, tmp_path, "one")
    config = WebConfig(write(tmp_path, TLS))
    assert config.tls.num_tickets == 0
    assert config.tls.options & ssl.OP_NO_TICKET


@pytest.mark.parametrize(
    ("rule", "authority"),
    [("RequireAndVerifyClientCert", None), ("NoClientCert", "server.pem")],
)
def test_authorities_and_rule_belong_together(tmp_path, pems, rule, authority):
    take(pems, tmp_path, "one")
    more = f"  client_ca_file: {authority}\n" if authority else ""
    with pytest.raises(SettingsError, match="client_auth_type: a client_ca_file"):
        WebConfig(write(tmp_path, TLS + f"  client_auth_type: {rule}\n{more}"))


def test_an_encrypted_key_asks_nobody(tmp_path, pems):
    take(pems, tmp_path, "one")
    key, new = tmp_path / "server.key", tmp_path / "new.key"
    names = ("-in", str(key), "-out", str(new))
    openssl("ec", *names, "-aes128", "-passout", "pass:1234")
    new.replace(key)
    with pytest.raises(SettingsError, match=r"cert_file: .* cannot be used"):
        WebConfig(write(tmp_path, TLS))


async def test_plain_http_on_a_tls_port(tmp_path, pems, caplog):
    take(pems, tmp_path, "one")
    async with serve(
        [Page()],
        "127.0.0.1",
        0,
        rules=Rules(web_config=WebConfig(write(tmp_path, TLS))),
    ) as address:
        with socket.create_connection(address, timeout=5) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert "Traceback" not in caplog.text
