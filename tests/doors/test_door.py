"""Who crowds the door: silent, slow and many, over real sockets."""

import asyncio
import errno
import resource
import socket
import ssl
import tracemalloc
from contextlib import asynccontextmanager

import anyio
import pytest
import structlog.testing

from tests.doors.test_web_config import TLS, certificate, write
from watcher.ports import Response
from watcher.web import door, lobby, sending
from watcher.web.server import Rules, serve
from watcher.web.web_config import WebConfig

ASK = b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
HALF = b"GET /healthz HT"


BIG = b"x" * 2**23


class Probe:
    path = "/healthz"
    parameters = ()

    def __init__(self):
        self.before = []

    async def respond(self, _):
        return Response([b"ok\n"])


class Page:
    """Answers with what it was given, and notes who has all of it."""

    parameters = ()

    def __init__(self, path, body, kind="text/plain"):
        self.path, self.body, self.kind = path, body, kind
        self.asked = self.whole = 0

    async def respond(self, _):
        self.asked += 1
        body = self.body() if callable(self.body) else self.body
        return Response(body, self.kind, sent=self._note)

    def _note(self):
        self.whole += 1


class House:
    """A server and those who stand before it."""

    def __init__(self, address, tls=None):
        self.address, self.tls, self.writers = address, tls, []

    async def come(self, text=b"", peer="127.0.0.1", **options):
        """Connect, say something, and read nothing until asked to."""
        reader, writer = await asyncio.open_connection(
            *self.address, local_addr=(peer, 0), limit=2**10, ssl=self.tls, **options
        )
        self.writers.append(writer)
        writer.write(text)
        await writer.drain()
        return reader, writer

    async def ask(self, path=b"/healthz", peer="127.0.0.1", more=b""):
        reader, _ = await self.come(ASK % (path, more + b"Connection: close\r\n"), peer)
        with anyio.fail_after(10):
            return await reader.read()


@asynccontextmanager
async def house(*pages, tls=None, **rules):
    async with serve(
        [Probe(), *pages], "127.0.0.1", 0, rules=Rules(**rules)
    ) as address:
        opened = House(address, tls)
        try:
            yield opened
        finally:
            for writer in opened.writers:
                writer.transport.abort()
            await anyio.sleep(0.01)


async def ended(reader, within=5.0):
    """Whether a connection ends in time."""
    try:
        with anyio.fail_after(within):
            return await reader.read(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def until(condition):
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await anyio.sleep(0.01)


# Silence


@pytest.mark.parametrize("text", [b"", HALF])
async def test_the_longest_silent_gives_way(text):
    async with house(max_connections=4) as it:
        silent = [(await it.come(text))[0] for _ in range(6)]
        assert b" 200 " in await it.ask()
        assert [await ended(reader, 0.2) for reader in silent] == [True] * 3 + [
            False
        ] * 3


async def test_no_more_connections_than_half_of_the_files(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    async with house() as it:
        silent = [(await it.come(HALF))[0] for _ in range(6)]
        assert [await ended(reader, 0.2) for reader in silent] == [True] * 2 + [
            False
        ] * 4


@pytest.mark.parametrize("drips", [0, 100])
async def test_a_header_is_whole_in_time(monkeypatch, drips):
    monkeypatch.setattr(door, "HEADER_WITHIN", 0.3)
    monkeypatch.setattr(lobby, "HEADER_WITHIN", 0.3)
    async with house() as it:
        reader, writer = await it.come(HALF)
        for _ in range(drips):
            writer.write(b"x")
            await anyio.sleep(0.01)
        assert await ended(reader, 2)


async def test_the_next_request_begins_in_time(monkeypatch):
    monkeypatch.setattr(door, "KEPT_ALIVE", 0.4)
    async with house() as it:
        reader, writer = await it.come(ASK % (b"/healthz", b""))
        assert await reader.readuntil(b"ok\n")
        writer.write(ASK % (b"/healthz", b""))
        assert await reader.readuntil(b"ok\n")
        assert await ended(reader, 2)


async def test_the_next_header_is_whole_in_time(monkeypatch):
    monkeypatch.setattr(door, "HEADER_WITHIN", 0.3)
    monkeypatch.setattr(lobby, "HEADER_WITHIN", 0.3)
    async with house() as it:
        reader, writer = await it.come(ASK % (b"/healthz", b""))
        assert await reader.readuntil(b"ok\n")
        await anyio.sleep(0.5)  # no header yet: it may rest
        writer.write(HALF)
        assert await ended(reader, 2)


async def test_a_header_without_end_in_the_lobby():
    async with house() as it:
        reader, _ = await it.come(b"GET /" + b"x" * lobby.LARGEST_HEADER)
        assert await ended(reader)


async def test_a_header_in_pieces():
    async with house() as it:
        reader, writer = await it.come()
        for byte in ASK % (b"/healthz", b""):
            writer.write(bytes([byte]))
            await anyio.sleep(0.001)
        with anyio.fail_after(5):
            assert b" 200 " in await reader.readline()


async def test_a_crowd_in_the_lobby_costs_nothing_but_files():
    async with house() as it:
        tracemalloc.start()
        try:
            for _ in range(100):
                await it.come(HALF)
            before = tracemalloc.get_traced_memory()[0]
            assert before < 100 * 16_000  # both sides
        finally:
            tracemalloc.stop()


async def test_a_header_without_end():
    async with house() as it:
        reader, writer = await it.come(ASK % (b"/healthz", b"") + b"GET / HTTP/1.1\r\n")
        assert await reader.readuntil(b"ok\n")
        for number in range(30):
            writer.write(b"X-%d: %b\r\n" % (number, b"y" * 2000))
            await anyio.sleep(0.005)
        assert await ended(reader)


async def test_a_body_may_be_longer_than_a_header():
    async with house() as it:
        head = b"Content-Length: 60000\r\n"
        reader, writer = await it.come(ASK % (b"/healthz", head) + b"x" * 100)
        await anyio.sleep(0.1)
        writer.write(b"x" * 59_900)
        await anyio.sleep(0.1)
        writer.write(ASK % (b"/healthz", b""))
        for _ in range(2):
            with anyio.fail_after(5):
                assert await reader.readuntil(b"ok\n")


async def test_who_is_served_does_not_give_way():
    release = anyio.Event()

    async def body():
        yield b"begin "
        await release.wait()
        yield b"the end"

    async with house(Page("/slow", body), max_connections=4) as it:
        served, _ = await it.come(ASK % (b"/slow", b""))
        assert b" 200 " in await served.readline()
        for _ in range(5):
            await it.come(HALF)
        assert b" 200 " in await it.ask()
        release.set()
        with anyio.fail_after(5):
            assert await served.readuntil(b"the end")


async def test_who_rests_gives_way_to_who_comes():
    async with house(max_connections=3) as it:
        resting = []
        for _ in range(2):
            resting.append((await it.come(ASK % (b"/healthz", b"")))[0])
            assert await resting[-1].readuntil(b"ok\n")
        fresh = []
        for _ in range(2):
            fresh.append((await it.come(HALF))[0])
            await anyio.sleep(0.05)
        over = [await ended(reader, 0.2) for reader in (*resting, *fresh)]
        assert over == [True, False, False, False]


async def test_where_all_are_served_the_next_is_turned_away(monkeypatch):
    monkeypatch.setattr(sending, "SHARE", 1)
    monkeypatch.setattr(sending, "GRACE", 1000)

    async def body():
        yield b"a"
        await anyio.sleep_forever()

    async with house(Page("/slow", body), max_connections=1) as it:
        served, _ = await it.come(ASK % (b"/slow", b""))
        assert b" 200 " in await served.readline()
        reader, _ = await it.come(HALF)
        assert await ended(reader)


async def test_who_takes_no_short_answers_gives_way():
    page = Page("/page", [b"x" * 60_000])
    async with house(page, max_connections=2) as it:
        for _ in range(2):
            await it.come(ASK % (b"/page", b"") * 2000)
        before = -1
        while before != page.asked:
            before = page.asked
            await anyio.sleep(0.2)
        assert page.asked < 1000
        assert page.whole == page.asked - 2
        assert b" 200 " in await it.ask()


async def test_no_file_left_is_said_once(monkeypatch):
    accept, failures = socket.socket.accept, [*range(5)]

    def failing(listener):
        if failures:
            failures.pop()
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", failing)
    monkeypatch.setattr(door, "_PAUSE", 0.01)
    with structlog.testing.capture_logs() as logs:
        async with house() as it:
            assert b" 200 " in await it.ask()
    (line,) = logs
    assert (line["event"], line["error"]) == (
        "server.accept_failed",
        "Too many open files",
    )


# TLS


@pytest.fixture
def secured(tmp_path):
    certificate(tmp_path, "server")
    trusting = ssl.create_default_context(cafile=tmp_path / "server.pem")
    return {"web_config": WebConfig(write(tmp_path, TLS)), "tls": trusting}


def hello():
    """Return what a handshake begins with."""
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(
            ssl.MemoryBIO(), sent, server_hostname="localhost"
        ).do_handshake()
    return sent.read()


def knock(address, length=None):
    """Begin a handshake that goes no further."""
    plain = socket.create_connection(address)
    plain.setblocking(False)
    plain.sendall(hello()[:length])
    return plain


async def closed(plain, within):
    try:
        with anyio.fail_after(within):
            while await asyncio.get_running_loop().sock_recv(plain, 1000):
                pass
            return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    finally:
        plain.close()


@pytest.mark.parametrize("length", [None, 50, 3])
async def test_a_handshake_ends_in_time(secured, monkeypatch, length):
    monkeypatch.setattr(door, "HANDSHAKE_WITHIN", 0.2)
    monkeypatch.setattr(lobby, "HEADER_WITHIN", 0.2)
    async with house(**secured) as it:
        assert await closed(knock(it.address, length), 3)


async def test_of_many_handshakes_the_oldest_give_way(secured):
    async with house(max_connections=16, **secured) as it:
        knocking = [knock(it.address) for _ in range(6)]
        await anyio.sleep(0.1)
        assert b" 200 " in await it.ask()
        gone = [await closed(each, 0.1) for each in knocking]
        assert gone == [True] * 3 + [False] * 3


async def test_a_handshake_that_fails_leaves_nothing_behind(secured):
    async with house(**secured) as it:
        tracemalloc.start()
        try:
            for _ in range(50):
                knock(it.address).close()
            await anyio.sleep(0.3)
            assert tracemalloc.get_traced_memory()[0] < 50 * 16_000
        finally:
            tracemalloc.stop()


async def test_a_connection_over_tls_takes_little(secured):
    async with house(**secured) as it:
        tracemalloc.start()
        try:
            knocking = [knock(it.address) for _ in range(20)]
            await anyio.sleep(0.2)
            assert tracemalloc.get_traced_memory()[0] < 20 * 100_000
        finally:
            tracemalloc.stop()
            for each in knocking:
                each.close()


async def test_long_answers_over_tls(secured):
    page = Page("/big", [BIG])
    async with house(page, **secured) as it:
        for times in (1, 2):
            assert BIG[:1000] in await it.ask(b"/big")
            assert page.whole == times


# Slow readers


async def test_what_is_shared_is_not_copied(monkeypatch):
    monkeypatch.setattr(sending, "MOST_ANSWERS", 80)
    page = Page("/big", [BIG])
    async with house(page) as it:
        tracemalloc.start()
        try:
            for _ in range(20):
                await it.come(ASK % (b"/big", b""))
            await until(lambda: page.asked == 20)
            await anyio.sleep(0.3)
            assert tracemalloc.get_traced_memory()[1] < 20 * 400_000
        finally:
            tracemalloc.stop()


async def test_of_the_slow_readers_of_a_peer_the_slowest_gives_way(monkeypatch):
    monkeypatch.setattr(sending, "MOST_ANSWERS", 8)
    monkeypatch.setattr(sending, "GRACE", 0.05)
    page = Page("/big", [BIG])
    async with house(page) as it:
        other, _ = await it.come(ASK % (b"/big", b""), "127.0.0.2")
        slow = []
        for _ in range(4):
            slow.append((await it.come(ASK % (b"/big", b"")))[0])
            await until(lambda: page.asked == len(slow) + 1)
            await anyio.sleep(0.1)
        assert [await whole(reader) for reader in slow] == [False, False, True, True]
        assert await whole(other)
        await until(lambda: page.whole == 3)


async def whole(reader):
    size = 0
    try:
        with anyio.fail_after(10):
            while not (chunk := await reader.read(2**20)).endswith(b"\r\n0\r\n\r\n"):
                size += len(chunk)
                if not chunk:
                    return False
    except ConnectionError:
        return False
    return size > len(BIG) - 2**20


async def test_over_all_peers_too(monkeypatch):
    monkeypatch.setattr(sending, "MOST_ANSWERS", 4)
    monkeypatch.setattr(sending, "GRACE", 0.05)
    page = Page("/big", [BIG])
    async with house(page) as it:
        readers = []
        for number in range(5):
            peer = f"127.0.0.{number + 2}"
            readers.append((await it.come(ASK % (b"/big", b""), peer))[0])
            await until(lambda: page.asked == len(readers))
            await anyio.sleep(0.1)
        assert [await whole(reader) for reader in readers] == [False] + [True] * 4


async def test_who_is_not_late_keeps_its_place(monkeypatch):
    monkeypatch.setattr(sending, "MOST_ANSWERS", 4)
    release = anyio.Event()

    async def body():
        yield b"a"
        await release.wait()
        yield b"b"

    async with house(Page("/slow", body)) as it:
        first, _ = await it.come(ASK % (b"/slow", b""))
        assert b" 200 " in await first.readline()
        answer = await it.ask(b"/slow")
        assert b" 503 " in answer
        assert b"Retry-After: 1\r\n" in answer
        assert b"nosniff" in answer
        release.set()
        with anyio.fail_after(5):
            assert await first.readuntil(b"b")
        assert b" 200 " in await it.ask(b"/slow")


async def test_an_answer_is_taken_in_time(monkeypatch):
    monkeypatch.setattr(sending, "LONGEST_ANSWER", 0.3)
    page = Page("/big", [BIG])
    async with house(page) as it:
        reader, _ = await it.come(ASK % (b"/big", b""))
        await anyio.sleep(0.6)
        assert not await whole(reader)
        assert not page.whole


async def test_who_leaves_has_not_the_whole():
    page = Page("/big", [BIG])
    async with house(page) as it:
        _, writer = await it.come(ASK % (b"/big", b""))
        await until(lambda: page.asked)
        writer.transport.abort()
        await it.ask(b"/big", more=b"Accept-Encoding: gzip\r\n")
        await it.ask(b"/nothing")
    assert page.whole == 1


@pytest.mark.parametrize("body", [[b"short"], [BIG]])
async def test_head_sends_nothing_and_get_all(body):
    page = Page("/page", body)
    async with house(page) as it:
        reader, _ = await it.come(b"HEAD /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in await reader.readline()
        await anyio.sleep(0.05)
        assert (page.asked, page.whole) == (1, 0)
        await it.ask(b"/page")
        assert page.whole == 1


async def test_probes_get_in_between():
    """A hundred pages are asked for at once, and made one a turn."""
    made = []

    class Costly(Page):
        async def respond(self, request):
            made.append(request)
            return await super().respond(request)

    class Noting(Probe):
        path = "/readyz"

        async def respond(self, request):
            self.before.append(len(made))
            return await super().respond(request)

    probe = Noting()
    async with house(Costly("/page", [b"x"]), probe) as it:
        visits = [await it.come() for _ in range(101)]
        for _, writer in visits[:100]:
            writer.write(ASK % (b"/page", b""))
        visits[100][1].write(ASK % (b"/readyz", b""))
        await until(lambda: len(made) == 100)
    assert probe.before[0] < 50


# Streams


async def messages():
    yield b"retry: 2000\n\n"
    while True:
        yield b""
        await anyio.sleep(0.01)


def stream():
    return Page("/stream", messages, "text/event-stream")


async def test_of_the_streams_of_a_peer_the_oldest_gives_way(monkeypatch):
    monkeypatch.setattr(sending, "MOST_STREAMS", 8)
    async with house(stream()) as it:
        streams = []
        for peer in ("127.0.0.2", *["127.0.0.1"] * 3):
            reader, _ = await it.come(ASK % (b"/stream", b""), peer)
            await reader.readuntil(b"retry: 2000\n\n")
            streams.append(reader)
        over = [await over_soon(reader) for reader in streams]
        assert over == [False, True, False, False]


async def over_soon(reader):
    try:
        with anyio.move_on_after(0.2):
            while await reader.read(100):
                pass
            return True
    except ConnectionError:
        return True
    return False


async def test_a_stream_ends_one_day(monkeypatch):
    monkeypatch.setattr(sending, "LONGEST_STREAM", 0.2)
    async with house(stream()) as it:
        reader, _ = await it.come(ASK % (b"/stream", b""))
        with anyio.fail_after(5):
            await reader.readuntil(b"\r\n0\r\n\r\n")


# Errors inside come out as they are


async def test_what_fails_inside_is_not_wrapped():
    with pytest.raises(ValueError, match="inside"):
        async with house():
            raise ValueError("inside")
