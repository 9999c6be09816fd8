"""Fifty open pages, two of them in a real Chromium, while many jobs are watched."""

import json
import os
import selectors
import shutil
import socket
import time
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.real.components import asked, cloud, configuration, daemon, require, until

pytestmark = pytest.mark.alone

JOBS = 2000
STREAMS = 48
TABS = 2
PROBES = 150
MOST_MILLISECONDS = 50
MOST_MEGABYTES = 20
FAULT = {"status": "FAILED", "message": "npu-smi info: dcmi initialize failed"}


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A daemon that asks 200 times a second, all of its jobs answered once."""
    require("chromium")
    folder = tmp_path_factory.mktemp("tabs")
    with cloud(folder, jobs=JOBS, tasks=4) as simulated:
        simulated.told("clock", '{"advance": 0.1}', "PUT")  # by then all have tasks
        values = configuration(simulated.url, simulated.job_ids)
        values["poll"] = {"interval": "10s", "requests_per_second": 200}
        values["poll"]["mode"] = "detail"
        with daemon(folder, values) as (listen, process):
            jobs = f"http://{listen}/api/v1/jobs?limit=1"
            until(lambda: asked(jobs)["counts"]["active"] == JOBS)
            yield simulated, listen, process


@contextmanager
def streams(listen, count):
    """Hold so many streams open, as tabs do, and take what comes; yields the bytes."""
    host, _, port = listen.partition(":")
    taken, over = [0], Event()
    chosen = selectors.DefaultSelector()
    for _ in range(count):
        one = socket.create_connection((host, int(port)))
        one.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        chosen.register(one, selectors.EVENT_READ)

    def drain():
        while not over.is_set():
            for key, _ in chosen.select(0.2):
                taken[0] += len(key.fileobj.recv(2**16))

    thread = Thread(target=drain)
    thread.start()
    yield taken
    over.set()
    thread.join()
    for key in list(chosen.get_map().values()):
        key.fileobj.close()
    chosen.close()


@contextmanager
def tabs(listen, count):
    """Open the list in so many tabs, each of a browser context of its own."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        pages = [browser.new_context().new_page() for _ in range(count)]
        for page in pages:
            page.goto(f"http://{listen}/")
            page.wait_for_selector(".job")
        yield pages
        browser.close()


def latencies(listen):
    """Ask for liveness again and again; return the milliseconds, sorted."""
    host, _, port = listen.partition(":")
    connection = HTTPConnection(host, int(port))
    found = []
    for _ in range(PROBES):
        began = time.monotonic()
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        answer.read()
        found.append((time.monotonic() - began) * 1000)
        assert answer.status == 200
        time.sleep(0.01)
    connection.close()
    return sorted(found)


def resident(process):
    """Megabytes that a process holds."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


@contextmanager
def failing(simulated, seconds=0.05):
    """Let a server fail here and there, twenty times a second."""
    over, ids = Event(), iter(simulated.job_ids)

    def fail():
        while not over.wait(seconds):
            job_id = next(ids)
            tasks = asked(f"{simulated.url}/_simulator/jobs/{job_id}")["tasks"]
            simulated.told(f"jobs/{job_id}", json.dumps({"tasks": {min(tasks): FAULT}}))

    thread = Thread(target=fail)
    thread.start()
    yield
    over.set()
    thread.join()


def test_fifty_open_pages_hold_nothing_up(busy):
    """Alone, and with them: so that a machine that is busy judges nobody."""
    simulated, listen, process = busy
    with failing(simulated):
        alone = latencies(listen)
        before = resident(process)
        with streams(listen, STREAMS) as taken, tabs(listen, TABS) as pages:
            among = latencies(listen)
            grown = resident(process) - before
            for page in pages:
                told = page.get_by_text(FAULT["message"]).first
                expect(told).to_be_visible(timeout=30_000)
            heaps = [
                page.evaluate("performance.memory.usedJSHeapSize") for page in pages
            ]
    assert taken[0] > STREAMS * 1000
    place = PROBES * 99 // 100
    p99, p99_alone = among[place], alone[place]
    print(f"p99 {p99_alone:.1f} ms alone, {p99:.1f} ms among them; {grown:.0f} MB more")
    assert p99 <= max(MOST_MILLISECONDS, 4 * p99_alone)
    assert grown <= MOST_MEGABYTES
    assert max(heaps) < 60e6
