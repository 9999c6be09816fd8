"""What the commands send to whoever holds the daemon's port."""

import shutil
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread
import bcrypt
import pytest

from tests.doors.test_web_config import TLS, certificate, write
from watcher.commands import daemon_http
from watcher.core.errors import SettingsError
from watcher.pages.api import ShowConfig
from watcher.ports import Response
from watcher.settings.schema import Server
from watcher.web.server import Rules, serve
from watcher.web.web_config import WebConfig

TOKEN = "t0ken"
USERS = (
    f"basic_auth_users: {{zoe: {bcrypt.hashpw(b'x', bcrypt.gensalt(4)).decode()}}}\n"
)


class Probe:
    path = "/healthz"
    parameters = ()

    def __init__(self):
        self.headers = []

    async def respond(self, request):
        self.headers.append(request.headers)
        return Response([b"ok\n"])


@asynccontextmanager
async def daemon(web_config=None, host="127.0.0.1"):
    probe = Probe()
    rules = Rules(lambda: TOKEN, web_config=web_config)
    show = ShowConfig(lambda: "poll: {}\n")
    async with serve([probe], host, 0, actions=[show], rules=rules) as (_, port):
        yield probe, port


async def call(function, **server):
    return await anyio.to_thread.run_sync(partial(function, Server(**server)))


@pytest.fixture
def secured(tmp_path):
    certificate(tmp_path, "server")
    return write(tmp_path, TLS + USERS)


@pytest.fixture
def stranger(tmp_path):
    """Somebody else on the port: another certificate for the same name."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    certificate(folder, "server")
    return write(folder, TLS)


async def test_health_is_asked_for_without_a_token(secured):
    for web_config in (None, WebConfig(secured)):
        file = secured if web_config else None
        async with daemon(web_config) as (probe, port):
            options = {"web_config_file": file, "api_token": TOKEN}
            listen = f"127.0.0.1:{port}"
            assert await call(daemon_http.check, listen=listen, **options) is None
            (headers,) = probe.headers
            assert "authorization" not in headers


async def test_settings_are_asked_for_with_it(secured):
    for web_config in (None, WebConfig(secured)):
        file = secured if web_config else None
        async with daemon(web_config) as (_, port):
            options = {"web_config_file": file, "api_token": TOKEN}
            listen = f"127.0.0.1:{port}"
            shown = await call(daemon_http.settings_in_force, listen=listen, **options)
            assert shown == "poll: {}\n"


async def test_another_certificate_gets_nothing(secured, stranger):
    async with daemon(WebConfig(stranger)) as (probe, port):
        options = {"web_config_file": secured, "api_token": TOKEN}
        listen = f"127.0.0.1:{port}"
        fault = await call(daemon_http.check, listen=listen, **options)
        assert "not the certificate of server.web_config_file" in fault
        with pytest.raises(SettingsError, match="not the certificate"):
            await call(daemon_http.settings_in_force, listen=listen, **options)
        assert not probe.headers


async def test_the_first_certificate_of_a_file_counts(secured, tmp_path):
    chain = tmp_path / "server.pem"
    own = chain.read_text()
    certificate(tmp_path, "authority")
    authority = (tmp_path / "authority.pem").read_text()
    chain.write_text(f"Subject: 127.0.0.1\n{own}\n{authority}")
    async with daemon(WebConfig(secured)) as (_, port):
        options = {"web_config_file": secured, "listen": f"127.0.0.1:{port}"}
        assert await call(daemon_http.check, **options) is None
        shutil.copy(tmp_path / "authority.pem", chain)
        shutil.copy(tmp_path / "authority.key", tmp_path / "server.key")
        assert await call(daemon_http.check, **options) is None  # renewed: both read it


async def test_the_token_goes_nowhere_in_the_clear(monkeypatch):
    asked = []
    monkeypatch.setattr(daemon_http, "_connect", lambda *_: asked.append(1))
    for listen in ("192.0.2.1:1", "[2001:db8::1]:1", "watcher.example.org:1"):
        with pytest.raises(SettingsError, match="over TLS or to loopback only"):
            await call(daemon_http.settings_in_force, listen=listen, api_token=TOKEN)
    assert not asked


async def test_all_interfaces_are_asked_on_loopback():
    async with daemon(host="") as (_, port):
        options = {"listen": f":{port}", "api_token": TOKEN}
        assert await call(daemon_http.settings_in_force, **options) == "poll: {}\n"


async def test_an_answer_that_drips_is_given_up(monkeypatch):
    monkeypatch.setattr(daemon_http, "WHOLE", 0.05)

    class Dripping:
        path = "/healthz"
        parameters = ()

        async def respond(self, _):
            async def drops():
                for _ in range(300):
                    yield b" "
                    await anyio.sleep(0.01)

            return Response(drops())

    async with serve([Dripping()], "127.0.0.1", 0) as (_, port):
        listen = f"127.0.0.1:{port}"
        with anyio.fail_after(10):
            fault = await call(daemon_http.check, listen=listen)
    assert "no whole answer within 0.05 s" in fault
