"""Temporary keys from a metadata service of our own."""

import anyio
import pytest
from aiohttp import web
from pydantic import SecretStr

from tests.doors.client.servers import (
    JOB,
    NOW,
    api,
    cloud,
    http_date,
    ok,
    refuse,
    shared,
)
from watcher.client.credentials.metadata import ADDRESS, MetadataCredentials
from watcher.client.signing import Key
from watcher.client.transport import open_session
from watcher.core.errors import Refusal, Rejected, SettingsError
from watcher.daemon.targets import Targets
from watcher.settings.schema import Target

TOKEN_PATH, KEY_PATH = "/meta-data/latest/api/token", "/openstack/latest/securitykey"
NO_AGENCY = '{"error":"Please configure Cloud Service Agency first"}'


class Metadata:
    """Hands out numbered tokens and keys; what it does not is set by the test."""

    def __init__(self):
        self.tokens = 0
        self.keys = 0
        self.token_status = 200
        self.key_status = 200
        self.key_text = None
        self.expires_at = "2025-06-16T12:00:00.000000Z"
        self.void = set()

    def __call__(self, request):
        if request.path == TOKEN_PATH:
            assert request.method == "PUT"
            assert request.headers["X-Metadata-Token-Ttl-Seconds"] == "21600"
            self.tokens += 1
            text = f"token-{self.tokens}" if self.token_status == 200 else "no\n"
            return web.Response(text=text, status=self.token_status)
        assert (request.method, request.path) == ("GET", KEY_PATH)
        token = request.headers.get("X-Metadata-Token")
        if token in self.void or (token is None) == (self.token_status == 200):
            return web.Response(text="Unauthorized", status=401)
        if self.key_status != 200 or self.key_text is not None:
            return web.Response(text=self.key_text, status=self.key_status)
        self.keys += 1
        return ok(
            {
                "credential": {
                    "access": f"AK{self.keys}",
                    "secret": "secret-of-the-agency",
                    "securitytoken": "token-of-the-agency",
                    "expires_at": self.expires_at,
                }
            }
        )


async def failure(credentials):
    with pytest.raises(Rejected) as caught:
        await credentials.current()
    assert caught.value.refusal is Refusal.CREDENTIALS
    return str(caught.value)


def credentials(on, server, **options):
    address = server if isinstance(server, str) else server.origin
    return MetadataCredentials(on.session, on.clock.server_time, address, **options)


async def test_a_key_is_had_with_a_token():
    service = Metadata()
    async with shared() as on, cloud(service) as server:
        source = credentials(on, server)
        key = await source.current()
        assert await source.current() is key
    assert key == Key(
        "AK1",
        SecretStr("secret-of-the-agency"),
        SecretStr("token-of-the-agency"),
        1750075200.0,
    )
    assert (service.tokens, service.keys) == (1, 1)


async def test_the_address_is_the_documented_one():
    assert ADDRESS == "http://169.254.169.254"


@pytest.mark.parametrize("status", [404, 405, 503])
async def test_an_old_service_has_no_tokens_and_is_asked_again_later(status):
    service = Metadata()
    service.token_status = status
    async with shared() as on, cloud(service) as server:
        source = credentials(on, server)
        first = await source.current()
        second = await source.renew(first)
        assert (first.access_key, second.access_key) == ("AK1", "AK2")
        assert service.tokens == 1
        assert source._pass.until > anyio.current_time() + 23 * 3600
        service.token_status = 200  # it was brought up to date: it wants tokens now
        source._renewal._forced_at = None
        assert (await source.renew(second)).access_key == "AK3"
    assert service.tokens == 2


async def test_a_token_that_is_void_is_renewed_once():
    service = Metadata()
    async with shared() as on, cloud(service) as server:
        source = credentials(on, server)
        first = await source.current()
        service.void = {"token-1"}
        assert (await source.renew(first)).access_key == "AK2"
        assert service.tokens == 2
        service.void = {f"token-{n}" for n in range(9)}
        assert "HTTP 401" in await failure(credentials(on, server))
    assert service.tokens == 4


async def test_a_server_without_an_agency_is_told_so():
    service = Metadata()
    service.key_status, service.key_text = 401, NO_AGENCY
    async with shared() as on, cloud(service) as server:
        said = await failure(credentials(on, server))
    assert said == (
        "metadata service: this server has no agency: configure one for it first"
    )
    assert service.tokens == 1


@pytest.mark.parametrize(
    ("token_status", "key_status", "text", "words"),
    [
        (500, 200, None, "HTTP 500"),
        (403, 200, None, "HTTP 403"),
        (200, 404, "<html>\n", "HTTP 404"),
        (200, 500, "echo token-1", "HTTP 500"),
        (200, 200, "<html>", "the answer holds no credential"),
        (200, 200, '{"credential":{"access":"A"}}', "the secret key is empty"),
        (200, 302, "", "HTTP 302"),
    ],
)
async def test_a_service_that_gives_no_key(token_status, key_status, text, words):
    service = Metadata()
    service.token_status, service.key_status = token_status, key_status
    service.key_text = text
    async with shared() as on, cloud(service) as server:
        said = await failure(credentials(on, server))
    assert said.startswith(f"metadata service: {words}")
    assert "html" not in said
    assert "echo" not in said


async def test_no_service_is_told_in_time():
    async with cloud() as gone:
        origin = gone.origin
    async with shared() as on:
        assert "cannot connect" in await failure(credentials(on, origin))

    async def never(_request):
        await anyio.sleep(60)

    async with shared() as on, cloud(never) as server:
        with anyio.fail_after(2):
            said = await failure(credentials(on, server, timeout=0.2))
    assert said.endswith("within 0.2 s")


async def test_an_expired_key_is_exchanged_and_the_request_sent_again():
    service = Metadata()

    def gateway(request):
        if "Access=AK1," in request.headers["Authorization"]:
            text = "calc ak sk signature fail:signature expired"
            return refuse(text=text, Date=http_date(NOW))
        return ok(Date=http_date(NOW))

    async with shared() as on, cloud(service) as metadata, cloud(gateway) as server:
        target = api(on, server, credentials(on, metadata))
        await target.fetch(JOB)
        assert not target.locked
    assert len(server.seen) == 2
    assert server.seen[1].headers["X-Security-Token"] == "token-of-the-agency"


@pytest.mark.parametrize(
    "address", ["http://[::1", "169.254.169.254", "http://h:x", ""]
)
@pytest.mark.parametrize("kind", ["metadata", "chain"])
async def test_an_address_that_is_none_is_a_finding(address, kind):
    target = Target(
        endpoint="http://127.0.0.1:9", project_id="p", credentials={"kind": kind}
    )
    environ = {"HUAWEICLOUD_SDK_METADATA_ENDPOINT": address}
    async with open_session() as session:
        targets = Targets(session, lambda: NOW, environ)
        if not address:
            assert targets.open("prod", target, 1.0)
            return
        with pytest.raises(SettingsError) as caught:
            targets.open("prod", target, 1.0)
    (finding,) = caught.value.findings
    assert finding.startswith("targets.prod: HUAWEICLOUD_SDK_METADATA_ENDPOINT must be")
