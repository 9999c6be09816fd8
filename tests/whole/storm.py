"""Attackers of the door, each a process of its own: `python -m tests.whole.storm NAME`.

Each prints one line of JSON with what it saw once its time is over.
"""

import base64
import json
import select
import socket
import ssl
import sys
import threading
import time
import zlib
from contextlib import suppress

PAGES = ("/", "/metrics", "/api/v1/jobs", "/api/v1/events?limit=1000", "STREAM")

FRIEND = "127.0.0.2"
"""Where probes and scrapes come from; the attackers are another peer."""
ANY_SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANY_SERVER.check_hostname, ANY_SERVER.verify_mode = False, ssl.CERT_NONE


def connected(port, tls=False, wait=5.0, source="127.0.0.1"):
    plain = socket.create_connection(("127.0.0.1", port), wait, (source, 0))
    if not tls:
        return plain
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ANY_SERVER.wrap_socket(plain)


def held(port, seconds, count, opening, tls=False):
    """Open connections, say `opening` on each, and take nothing that comes back."""
    until, kept, refused = time.monotonic() + seconds, [], 0
    for first in range(0, count, 500):
        if time.monotonic() > until:
            break
        for number, each in enumerate(many(port, min(500, count - first), tls), first):
            try:
                each.setblocking(True)
                each.settimeout(5)
                each.sendall(opening(number))
                kept.append(each)
            except OSError:
                refused += 1
    took = time.monotonic() + seconds - until
    time.sleep(max(0.0, until - time.monotonic()))
    return {"opened": len(kept), "refused": refused, "within": round(took, 1)}


def many(port, count, tls):
    """Connect all at once: what does not get in within 3 s stays out."""
    if tls:
        return [each for each in (attempt(port) for _ in range(count)) if each]
    poll, waiting, inside = select.poll(), {}, []
    for _ in range(count):
        each = socket.socket()
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", port))
        waiting[each.fileno()] = each
        poll.register(each, select.POLLOUT)
    until = time.monotonic() + 3
    while waiting and time.monotonic() < until:
        for number, _ in poll.poll(100):
            poll.unregister(number)
            inside.append(waiting.pop(number))
    for each in waiting.values():
        each.close()
    return inside


def attempt(port):
    try:
        return connected(port, tls=True)
    except OSError:
        return None


def half_open(port, seconds, count=10_000, tls=False, **_):
    """Half a header each; the server's certificate is not even waited for."""
    opening = b"\x16\x03\x01\x02" if tls else b"GET /metrics HT"
    return held(port, seconds, count, lambda _: opening)


def stalled_handshakes(port, seconds, count=2000, **_):
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ANY_SERVER.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    hello = sent.read()
    return held(port, seconds, count, lambda number: hello[: None if number % 2 else 9])


def slow_readers(port, seconds, count=300, tls=False, token="t", **_):
    def opening(number):
        path = PAGES[number % len(PAGES)]
        accept = b"*/*"
        if path == "STREAM":
            path, accept = "/api/v1/events", b"text/event-stream"
        return (
            b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: %b\r\n"
            b"Accept-Encoding: gzip\r\nAuthorization: Bearer %b\r\n\r\n"
        ) % (path.encode(), accept, token.encode())

    return held(port, seconds, count * len(PAGES), opening, tls)


def bombs(port, count=50, tls=False, token="t", **_):
    """A megabyte each that unpacks to a gigabyte, kept coming while it is taken."""
    packer = zlib.compressobj(9)
    packed = packer.compress(bytes(2**30)) + packer.flush()
    head = (
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Encoding: deflate\r\n"
        b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
    ) % (token.encode(), len(packed))
    statuses = []

    def throw():
        try:
            with connected(port, tls) as each:
                each.settimeout(10)
                each.sendall(head)
                each.sendall(packed)
                statuses.append(each.recv(4096)[9:12].decode())
        except OSError as exc:
            statuses.append(type(exc).__name__)

    threads = [threading.Thread(target=throw) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"statuses": sorted(set(statuses)), "tried": len(statuses)}


def wrong_passwords(port, seconds, count=1500, tls=False, **_):
    def opening(number):
        pair = base64.b64encode(b"zoe:wrong%d" % number)
        head = b"GET /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        return head + b"Authorization: Basic " + pair + b"\r\n\r\n"

    return held(port, seconds, count, opening, tls)


def probe(port, seconds, tls=False, **_):
    """Ask /healthz as a kubelet does: a new connection each, no faster than it comes."""
    until, took, failed = time.monotonic() + seconds, [], 0
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            with connected(port, tls, 10.0, FRIEND) as each:
                each.settimeout(10)
                each.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                good = b" 200 " in each.recv(4096)
        except OSError:
            good = False
        failed += not good
        took.append(time.monotonic() - began)
        time.sleep(0.05)
    took.sort()
    return {
        "asked": len(took),
        "failed": failed,
        "p50": round(took[len(took) // 2], 4),
        "p99": round(took[int(len(took) * 0.99)], 4),
        "max": round(took[-1], 4),
    }


def scrape(port, seconds, tls=False, token="t", **_):
    """Scrape as Prometheus does, on a connection of its own each."""
    until, statuses = time.monotonic() + seconds, []
    while time.monotonic() < until:
        try:
            with connected(port, tls, 10.0, FRIEND) as each:
                each.settimeout(10)
                each.sendall(
                    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                    b"Authorization: Bearer %b\r\n\r\n" % token.encode()
                )
                whole = b"".join(iter(lambda: each.recv(65536), b""))
            cut = b" 200 " in whole[:20] and not whole.endswith(b"0\r\n\r\n")
            statuses.append("cut" if cut else whole[9:12].decode())
        except OSError as exc:
            statuses.append(type(exc).__name__)
        time.sleep(1)
    return {each: statuses.count(each) for each in set(statuses)}


if __name__ == "__main__":
    name, options = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps({name: globals()[name](**options)}))
