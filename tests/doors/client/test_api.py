"""Fetching and listing jobs over real connections, and every way it can go wrong."""

import asyncio
import gzip
import json
import ssl
import subprocess
import tracemalloc
from contextlib import asynccontextmanager, suppress
from urllib.parse import quote

import anyio
import pytest
import structlog
from aiohttp import web
from pydantic import SecretStr

from tests.doors.client.servers import (
    JOB,
    KEY,
    NONE,
    NOW,
    PROJECT,
    api,
    cloud,
    http_date,
    ok,
    raw_server,
    refuse,
    shared,
    signed_by,
)
from watcher import __version__
from watcher.client.credentials.static import StaticCredentials
from watcher.client.signing import Key
from watcher.core.errors import (
    ApiError,
    JobNotFound,
    Malformed,
    Refusal,
    Rejected,
    ServerError,
    Throttled,
    Unreachable,
)


async def failure(asking):
    with pytest.raises(ApiError) as caught:
        await asking
    return caught.value


async def test_fetch_returns_the_job():
    async with shared() as on, cloud() as server:
        snapshot = await api(on, server).fetch(JOB)
    assert (snapshot.job.id, snapshot.job.status) == (JOB, "PROCESSING")
    assert snapshot.tasks == ()


class TestAnswersThatAreKnown:
    async def test_the_same_bytes_are_not_read_again(self):
        async with shared() as on, cloud() as server:
            target = api(on, server)
            known = await target.fetch(JOB)
            assert await target.fetch(JOB, known) is known
            assert await target.fetch(JOB) is not known

    async def test_other_bytes_are(self):
        statuses = iter(["PROCESSING", "FINISHED", "FINISHED"])

        def answer(_):
            return ok({"id": JOB, "status": next(statuses), "tasks": []})

        async with shared() as on, cloud(answer) as server:
            target = api(on, server)
            known = await target.fetch(JOB)
            later = await target.fetch(JOB, known)
            assert later.job.status == "FINISHED"
            assert await target.fetch(JOB, later) is later

    async def test_under_another_status_they_mean_something_else(self):
        statuses = iter([200, 503])
        body = {"id": JOB, "status": "PROCESSING", "tasks": []}

        def answer(_):
            return web.json_response(body, status=next(statuses))

        async with shared() as on, cloud(answer) as server:
            target = api(on, server)
            known = await target.fetch(JOB)
            assert isinstance(await failure(target.fetch(JOB, known)), ServerError)


async def test_what_is_sent():
    counted = []
    async with shared() as on, cloud() as server:
        await api(on, server, on_request=counted.append).fetch(JOB)
    (request,) = server.seen
    assert request.method == "GET"
    assert request.path == f"/v1/{PROJECT}/dev-servers/jobs/{JOB}"
    assert not request.can_read_body
    assert signed_by(request, KEY, NOW)
    assert (
        "SignedHeaders=host;x-project-id;x-sdk-date,"
        in (request.headers["Authorization"])
    )
    assert request.headers["User-Agent"] == f"devserver-watcher/{__version__}"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers.getall("Host") == [server.origin.removeprefix("http://")]
    assert "Content-Type" not in request.headers
    assert counted == ["detail"]


async def test_a_security_token_is_sent_and_signed():
    key = Key("AK", SecretStr("s" * 20), SecretStr("token-of-a-temporary-key"))
    async with shared() as on, cloud() as server:
        await api(on, server, StaticCredentials(key)).fetch(JOB)
    assert signed_by(server.seen[0], key, NOW)
    assert "x-sdk-date;x-security-token," in server.seen[0].headers["Authorization"]


async def test_without_credentials_nothing_is_signed():
    async with shared() as on, cloud() as server:
        target = api(on, server, NONE)
        await target.fetch(JOB)
    assert "Authorization" not in server.seen[0].headers
    assert "X-Sdk-Date" not in server.seen[0].headers
    assert server.seen[0].headers["X-Project-Id"] == PROJECT
    assert not target.locked


async def test_list_returns_a_page():
    page = {"data": [{"id": "a"}, {"id": "b"}], "total": 7, "size": 2, "current": 1}
    counted = []
    async with shared() as on, cloud(lambda _r: ok(page)) as server:
        target = api(on, server, on_request=counted.append)
        answer = await target.list_jobs({"status": "A &/b+阿"}, limit=100, offset=20)
    (request,) = server.seen
    assert [job.id for job in answer.rows] == ["a", "b"]
    assert answer.total == 7
    assert dict(request.query) == {
        "status": "A &/b+阿",
        "limit": "100",
        "offset": "20",
    }
    assert signed_by(request, KEY, NOW)
    assert counted == ["list"]


@pytest.mark.parametrize(
    "job_id", ["templates", "services", "", "a/b", "a%2Fb", "..", "a" * 65, "ä", "a\n"]
)
async def test_what_is_no_job_id_is_not_asked_for(job_id):
    async with shared() as on, cloud() as server:
        assert isinstance(await failure(api(on, server).fetch(job_id)), Malformed)
    assert not server.seen


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ({"endpoint": "http://example.com"}, "https"),
        ({"project_id": "a/b"}, "project"),
        ({"project_id": ""}, "project"),
        ({"project_id": None}, "project or a region"),
        ({"project_id": None, "region": "r", "iam_endpoint": "http://x.y"}, "https"),
        ({"project_id": None, "region": "../"}, "region"),
    ],
)
async def test_a_target_that_cannot_be_asked_is_refused(target, match):
    async with shared() as on, cloud() as server:
        with pytest.raises(ValueError, match=match):
            api(on, server, **target)


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (lambda: refuse(429, "APIGW.0308", "slow down", Retry_After="9"), Throttled),
        (lambda: refuse(400, "ModelArts.6404", "no such job"), JobNotFound),
        (lambda: refuse(404, "ModelArts.6404", "no such job"), JobNotFound),
        (lambda: refuse(404, "APIGW.0101"), Rejected),
        (lambda: refuse(502, "APIGW.0201"), ServerError),
        (lambda: web.Response(text="<html>", status=404), Malformed),
        (lambda: web.Response(text="<html>"), Malformed),
        (web.Response, Malformed),
        (lambda: ok({"id": "another"}), Malformed),
    ],
)
async def test_a_bad_answer_becomes_its_failure(response, kind):
    async with shared() as on, cloud(lambda _r: response()) as server:
        error = await failure(api(on, server).fetch(JOB))
    assert type(error) is kind


async def test_a_failure_says_what_the_api_said():
    def answer(_request):
        return refuse(
            429, "APIGW.0308", "slow down", Retry_After="9", X_Request_Id="r-1"
        )

    async with shared() as on, cloud(answer) as server:
        error = await failure(api(on, server).fetch(JOB))
    assert (error.message, error.status_code) == ("slow down", 429)
    assert (error.error_code, error.request_id) == ("APIGW.0308", "r-1")
    assert error.retry_after == 9.0


async def test_a_malformed_answer_keeps_status_and_request_id():
    answer = web.Response
    async with (
        shared() as on,
        cloud(lambda _r: answer(text="x", headers={"X-Request-Id": "r"})) as server,
    ):
        error = await failure(api(on, server).fetch(JOB))
    assert (error.status_code, error.request_id) == (200, "r")


async def test_not_found_of_a_list_is_no_missing_job():
    async with shared() as on, cloud(lambda _r: refuse(404, "X.1", "?")) as server:
        error = await failure(api(on, server).list_jobs({}, 10, 0))
    assert type(error) is Rejected
    assert error.refusal is Refusal.REQUEST


async def test_a_redirect_is_not_followed():
    async with cloud() as other:

        def redirect(_request):
            return web.Response(status=302, headers={"Location": other.origin})

        async with shared() as on, cloud(redirect) as server:
            error = await failure(api(on, server).fetch(JOB))
    assert isinstance(error, Malformed)
    assert not other.seen


async def test_cookies_are_not_kept():
    async with shared() as on, cloud(lambda _r: ok(Set_Cookie="a=b; Path=/")) as server:
        # Cookies of an address in digits would not be kept anyway.
        target = api(on, server.origin.replace("127.0.0.1", "localhost"))
        await target.fetch(JOB)
        await target.fetch(JOB)
    assert "Cookie" not in server.seen[1].headers


async def test_connections_are_kept():
    async with shared() as on, cloud() as server:
        target = api(on, server)
        await target.fetch(JOB)
        await target.fetch(JOB)
    first, second = (request.transport for request in server.seen)
    assert first is second


async def test_a_refused_connection_is_unreachable():
    async with cloud() as gone:
        origin = gone.origin
    async with shared() as on:
        error = await failure(api(on, origin).fetch(JOB))
    assert isinstance(error, Unreachable)
    assert error.message.startswith("cannot connect to 127.0.0.1:")


async def test_an_unknown_name_is_unreachable():
    async with shared() as on:
        error = await failure(api(on, "https://no-such-host.invalid").fetch(JOB))
    assert isinstance(error, Unreachable)
    assert error.message == "the name of no-such-host.invalid cannot be resolved"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "closed the connection"),
        (HEAD + b"Content-Length: 100\r\n\r\n{", "broke off"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", "broke off"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{", "answer in HTTP"),
        (HEAD[:30], "closed the connection"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not answer in HTTP"),
    ],
)
async def test_half_an_answer_is_unreachable(data, words):
    async with raw_server(data) as origin, shared() as on:
        error = await failure(api(on, origin).fetch(JOB))
    assert isinstance(error, Unreachable)
    assert words in error.message
    assert error.status_code is None


@pytest.mark.parametrize("data", [b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\n{"])
async def test_silence_is_unreachable_in_time(data):
    async with raw_server(data, linger=30) as origin, shared() as on:
        with anyio.fail_after(5):
            error = await failure(api(on, origin, timeout=0.2).fetch(JOB))
    assert isinstance(error, Unreachable)
    assert error.message.endswith("within 0.2 s")


async def test_drops_do_not_outlast_the_deadline():
    async def drip(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" ")
            await anyio.sleep(0.05)

    async with shared() as on, cloud(drip) as server:
        with anyio.fail_after(2):
            error = await failure(api(on, server, timeout=0.3).fetch(JOB))
    assert isinstance(error, Unreachable)


async def test_a_compressed_answer_is_not_unpacked():
    body = gzip.compress(json.dumps({"id": JOB}).encode())
    headers = {"Content-Encoding": "gzip"}

    def answer(_request):
        return web.Response(body=body, headers=headers)

    async with shared() as on, cloud(answer) as server:
        assert isinstance(await failure(api(on, server).fetch(JOB)), Malformed)


@pytest.mark.parametrize("announced", [True, False])
async def test_an_oversized_answer_is_not_read(announced):
    async def flood(request):
        response = web.StreamResponse()
        if announced:
            response.content_length = 400 * 2**20
        await response.prepare(request)
        chunk = b" " * 2**20
        for _ in range(400):
            await response.write(chunk)
        return response

    async with shared() as on, cloud(flood) as server:
        target = api(on, server, body_limit=2**20)
        tracemalloc.start()
        error = await failure(target.fetch(JOB))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert isinstance(error, Malformed)
    assert "larger than 1048576 bytes" in error.message
    assert peak < 16 * 2**20


async def test_an_answer_of_just_the_limit_is_read():
    body = json.dumps({"id": JOB, "name": "n" * 5000}).encode()
    async with shared() as on, cloud(lambda _r: web.Response(body=body)) as server:
        await api(on, server, body_limit=len(body)).fetch(JOB)
        error = await failure(api(on, server, body_limit=len(body) - 1).fetch(JOB))
    assert isinstance(error, Malformed)


TOKEN = 'tok"en/with+odd=chars%and\\more'


def echoes(secret):
    """A secret in each of the forms in which a server may write it back."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret)[1:-1].replace("/", "\\/")
    yield json.dumps(secret)[1:-1].replace("=", "\\u003d").replace("+", "\\u002B")
    yield quote(secret, safe="")
    yield quote(secret, safe="/")
    yield quote(secret, safe="").lower()


@pytest.mark.parametrize("status", [200, 401, 500])
async def test_echoed_secrets_are_masked(status):
    key = Key("AK", SecretStr("se/cret+key=0123"), SecretStr(TOKEN.replace('"', "'")))
    for secret in key.secrets:
        for form in echoes(secret.get_secret_value()):
            body = (
                f'{{"id":"{JOB}","name":"<{form}>",'
                f'"error_code":"X","error_msg":"<{form}>"}}'
            )

            def answer(_request, body=body, form=form):
                headers = {"X-Request-Id": form}
                return web.Response(body=body.encode(), status=status, headers=headers)

            async with shared() as on, cloud(answer) as server:
                target = api(on, server, StaticCredentials(key))
                if status == 200:
                    assert (await target.fetch(JOB)).job.name == "<***>", form
                else:
                    error = await failure(target.fetch(JOB))
                    assert (error.message, error.request_id) == ("<***>", "***"), form


async def test_no_failure_holds_a_header_or_a_secret():
    """Not in its text, not in its repr, not in what caused it."""
    answers = [b"", b"nonsense\r\n\r\n", HEAD + b"Content-Length: 9\r\n\r\n{", HEAD]
    for data in answers:
        async with raw_server(data) as origin, shared() as on:
            error = await failure(api(on, origin, timeout=0.5).fetch(JOB))
        chain = []
        while error is not None:
            chain.append(error)
            error = error.__cause__ or error.__context__
        shown = repr(chain) + str([e.args for e in chain])
        assert "SDK-HMAC" not in shown
        assert "X-Sdk-Date" not in shown


def certificate(tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return cert, context


async def test_tls_is_checked_and_a_target_may_trust_a_file(tmp_path):
    cert, context = certificate(tmp_path)
    async with shared() as on, cloud(ssl=context) as server:
        error = await failure(api(on, server).fetch(JOB))
        assert isinstance(error, Unreachable)
        assert "is not trusted" in error.message
        assert not server.seen
        await api(on, server, ca_file=cert).fetch(JOB)
    async with shared() as on, raw_server(b"nonsense") as origin:
        error = await failure(api(on, origin.replace("http:", "https:")).fetch(JOB))
    assert "the TLS handshake with 127.0.0.1" in error.message


@asynccontextmanager
async def proxy(status=b"200 Connection established"):
    """A proxy that knows CONNECT; what it was asked is yielded with its address."""
    asked = []

    async def pump(source, sink):
        while data := await source.read(65536):
            sink.write(data)

    async def serve(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        if status.startswith(b"200"):
            host, port = asked[-1].split()[1].decode().split(":")
            inside, outside = await asyncio.open_connection(host, int(port))
            with suppress(asyncio.CancelledError, OSError):
                await asyncio.gather(pump(reader, outside), pump(inside, writer))
            outside.close()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_a_proxy_in_the_environment_is_used(tmp_path, monkeypatch):
    cert, context = certificate(tmp_path)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with cloud(ssl=context) as server, proxy() as (address, asked):
        async with shared() as on:
            monkeypatch.setenv("https_proxy", f"http://me:sesame@{address}")
            await api(on, server, ca_file=cert).fetch(JOB)
        assert b"Proxy-Authorization: Basic " in asked[0]
        assert "Proxy-Authorization" not in server.seen[0].headers
        async with shared() as on:
            monkeypatch.setenv("no_proxy", "127.0.0.1")
            await api(on, server, ca_file=cert).fetch(JOB)
        assert len(asked) == 1


async def test_a_proxy_that_does_not_help_is_unreachable(tmp_path, monkeypatch):
    cert, context = certificate(tmp_path)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://me:sesame@127.0.0.1:1")
    async with cloud(ssl=context) as server:
        async with shared() as on:
            error = await failure(api(on, server, ca_file=cert).fetch(JOB))
            assert "cannot connect to the proxy on the way to" in error.message
            assert "sesame" not in error.message
        async with proxy(b"407 Nope") as (address, _), shared() as on:
            monkeypatch.setenv("https_proxy", address)
            error = await failure(api(on, server, ca_file=cert).fetch(JOB))
            assert "refused to connect" in error.message
            assert isinstance(error, Unreachable)


async def test_a_proxy_is_for_https_and_speaks_http(monkeypatch):
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    async with shared() as on, cloud() as plain:
        await api(on, plain).fetch(JOB)  # http is for this machine: no proxy
        with pytest.raises(ValueError, match="HTTPS_PROXY"):
            api(on, "https://example.com")


async def test_a_ca_file_that_is_none_is_told(tmp_path):
    (tmp_path / "empty.pem").write_text("")
    async with shared() as on, cloud() as server:
        for name in ("missing.pem", "empty.pem"):
            with pytest.raises(OSError):
                api(on, server, ca_file=tmp_path / name)


async def test_clock_skew_is_seen():
    async with shared() as on, cloud(lambda _r: ok(Date=http_date(NOW - 90))) as server:
        target = api(on, server)
        assert target.clock_skew == 0.0
        await target.fetch(JOB)
        assert target.clock_skew == pytest.approx(90, abs=1)


async def test_a_machine_20_minutes_off_is_corrected_at_once():
    theirs = NOW - 1200

    def answer(request):
        fresh = signed_by(request, KEY, theirs - 0.5) or signed_by(request, KEY, theirs)
        text = "calc ak sk signature fail:signature expired"
        return ok(Date=http_date(theirs)) if fresh else refuse(text=text, Date=theirs_)

    theirs_ = http_date(theirs)
    counted = []
    async with shared() as on, cloud(answer) as server:
        await api(on, server, on_request=counted.append).fetch(JOB)
        await api(on, server, on_request=counted.append).fetch(JOB)
    assert len(server.seen) == 3
    assert counted == ["detail"] * 3


async def test_a_date_that_is_an_hour_wrong_costs_one_refusal():
    def answer(request):
        fresh = signed_by(request, KEY, NOW)
        date = http_date(NOW + 3600)
        return ok(Date=date) if fresh else refuse(text="signature expired", Date=date)

    async with shared() as on, cloud(answer) as server:
        target = api(on, server)
        for _ in range(5):
            await target.fetch(JOB)
        assert target.clock_skew == pytest.approx(-3600, abs=1)
        assert not target.locked
    assert len(server.seen) == 6


async def test_expired_with_a_right_clock_is_not_sent_again():
    def answer(_request):
        return refuse(text="signature expired", Date=http_date(NOW - 30))

    async with shared() as on, cloud(answer) as server:
        error = await failure(api(on, server).fetch(JOB))
    assert error.refusal is Refusal.EXPIRED
    assert len(server.seen) == 1


async def test_an_unmendable_clock_is_tried_once():
    def answer(_request):
        return refuse(text="signature expired", Date=http_date(NOW - 4000))

    async with shared() as on, cloud(answer) as server:
        await failure(api(on, server).fetch(JOB))
    assert len(server.seen) == 2


async def test_a_replaced_key_is_used_for_the_refused_request():
    new = Key("AKNEW", SecretStr("another-secret"))
    credentials = StaticCredentials(KEY)

    def answer(request):
        credentials.replace(new)
        return ok() if "Access=AKNEW," in request.headers["Authorization"] else refuse()

    async with shared() as on, cloud(answer) as server:
        await api(on, server, credentials).fetch(JOB)
    assert len(server.seen) == 2


def projects(*ids):
    return ok({"projects": [{"id": i, "name": "cn-north-4"} for i in ids]})


async def test_a_project_is_looked_up_once():
    counted = []

    async def answer(request):
        if request.path == "/v3/projects":
            await anyio.sleep(0.05)
            return projects(PROJECT)
        return ok()

    async with shared() as on, cloud(answer) as server:
        target = api(
            on,
            server,
            on_request=counted.append,
            project_id=None,
            region="cn-north-4",
            iam_endpoint=server.origin,
        )
        assert target.project_id is None
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(target.fetch, JOB)
        assert target.project_id == PROJECT
    lookup, *fetches = server.seen
    assert dict(lookup.query) == {"name": "cn-north-4"}
    assert signed_by(lookup, KEY, NOW)
    assert "X-Project-Id" not in lookup.headers
    assert [r.path.split("/")[2] for r in fetches] == [PROJECT] * 5
    assert counted == ["token", *["detail"] * 5]


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (projects, Rejected),
        (lambda: projects("a", "b"), Rejected),
        (lambda: projects("a/../b"), Malformed),
        (lambda: projects(7), Malformed),
        (lambda: ok([]), Malformed),
        (lambda: ok({"projects": None}), Malformed),
        (lambda: ok({"projects": [7]}), Malformed),
        (lambda: refuse(404, "IAM.0004"), Rejected),
    ],
)
async def test_a_project_that_cannot_be_told_is_a_failure(response, kind):
    async with shared() as on, cloud(lambda _r: response()) as server:
        target = api(
            on,
            server,
            project_id=None,
            region="cn-north-4",
            iam_endpoint=server.origin,
        )
        assert type(await failure(target.fetch(JOB))) is kind
    assert [r.path for r in server.seen] == ["/v3/projects"]


async def test_a_cancelled_request_frees_its_place():
    async def never(_request):
        await anyio.sleep(60)

    async with shared() as on, cloud(never) as server:
        target = api(on, server)
        with anyio.move_on_after(0.1):
            await target.fetch(JOB)
        server.answer = lambda _r: ok()
        with anyio.fail_after(2):
            await target.fetch(JOB)


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 GMT", http_date(0), "0"])
async def test_a_lying_date_does_not_date_what_is_signed(date):
    async with shared() as on, cloud(lambda _r: ok(Date=date)) as server:
        target = api(on, server)
        for _ in range(3):
            await target.fetch(JOB)
    assert all(signed_by(request, KEY, NOW) for request in server.seen)


async def test_what_is_unexpected_in_a_request_is_a_failure_told_once(monkeypatch):
    """Whatever it is, it is no reason to end the process."""

    def decode(_body, _job_id, *_):
        raise ZeroDivisionError(KEY.secret_key.get_secret_value())

    monkeypatch.setattr("watcher.client.api.decode_job", decode)
    async with shared() as on, cloud() as server:
        target = api(on, server, name="prod")
        with structlog.testing.capture_logs() as lines:
            errors = [await failure(target.fetch(JOB)) for _ in range(3)]
            await failure(target.list_jobs({}, 1, 0))
        monkeypatch.undo()
        assert (await target.fetch(JOB)).job.id == JOB
    assert {type(error) for error in errors} == {Malformed}
    (line,) = lines
    assert (line["event"], line["target"]) == ("api.unexpected", "prod")
    assert (line["request"], line["error"]) == ("detail", "ZeroDivisionError")
    assert "in decode" in line["exception"]
    assert KEY.secret_key.get_secret_value() not in str(lines) + str(errors)


async def test_connections_are_limited_by_the_target_alone():
    """A limit of the session's own would be that of the start, after a reload too."""
    together = anyio.Event()

    async def answer(_request):
        if server.in_flight == 150:
            together.set()
        await together.wait()
        return ok()

    async with shared() as on, cloud(answer) as server:
        target = api(on, server, NONE)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for _ in range(150):
                    group.start_soon(target.fetch, JOB)


async def test_a_replaced_ca_file_is_taken_up(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, context_one = certificate(tmp_path / "one")
    two, context_two = certificate(tmp_path / "two")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(one.read_bytes())

    async def trusts(target):
        try:
            return await target.fetch(JOB) is not None
        except Unreachable:
            return False

    async with (
        shared() as on,
        cloud(ssl=context_one) as server_one,
        cloud(ssl=context_two) as server_two,
    ):
        targets = [api(on, each, ca_file=ca_file) for each in (server_one, server_two)]
        assert [await trusts(target) for target in targets] == [True, False]
        with structlog.testing.capture_logs() as lines:
            ca_file.write_text("half a certif")
            assert [await trusts(target) for target in targets] == [True, False]
            (tmp_path / "new.pem").write_bytes(two.read_bytes())
            (tmp_path / "new.pem").rename(ca_file)
            assert [await trusts(target) for target in targets] == [False, True]
            ca_file.touch()
            ca_file.unlink()
            assert [await trusts(target) for target in targets] == [False, True]
    assert [line["event"] for line in lines] == [
        "config.ca_file_invalid",
        "config.ca_file_reloaded",
        "config.ca_file_invalid",
    ]
