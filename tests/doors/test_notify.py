"""Messages to the service manager over real datagram sockets."""

import os
import socket
import uuid
from contextlib import contextmanager

import pytest

from watcher.daemon.notify import open_notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """What systemd listens on, and the name that it hands to the service."""
    name = str(tmp_path / "notify")
    if request.param == "abstract":
        name = f"@watcher-{uuid.uuid4()}"
    with listening(name) as box:
        yield box, name


@contextmanager
def listening(name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as box:
        box.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        box.setblocking(False)
        yield box


def received(box):
    """Everything that has come, one text a datagram."""
    texts = []
    while True:
        try:
            texts.append(box.recv(4096).decode())
        except BlockingIOError:
            return texts


def test_what_a_life_says(manager):
    box, name = manager
    with open_notifier({"NOTIFY_SOCKET": name}) as notifier:
        notifier.ready()
        notifier.status("3 jobs\nactive")
        notifier.reloading(12.5)
        notifier.ready()
        notifier.stopping()
    assert received(box) == [
        "READY=1",
        "STATUS=3 jobs active",
        "RELOADING=1\nMONOTONIC_USEC=12500000",
        "READY=1",
        "STOPPING=1",
    ]


def test_the_same_status_is_said_once(manager):
    box, name = manager
    with open_notifier({"NOTIFY_SOCKET": name}) as notifier:
        for text in ("a", "a", "b", "b", "a"):
            notifier.status(text)
    assert received(box) == ["STATUS=a", "STATUS=b", "STATUS=a"]


def test_turns_feed_the_watchdog_well_before_half_its_time(manager):
    box, name = manager
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"}
    fed = []
    with open_notifier(environ) as notifier:
        for now in range(100, 161):
            notifier.turned(float(now))
            fed += [now for _ in received(box)]
    assert fed == [100, 110, 120, 130, 140, 150, 160]


def test_a_loop_that_does_not_turn_feeds_nothing(manager):
    box, name = manager
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"}
    with open_notifier(environ) as notifier:
        notifier.turned(100.0)
        notifier.status("still talking")
        assert received(box) == ["WATCHDOG=1", "STATUS=still talking"]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
    ],
)
def test_no_watchdog_is_fed_where_none_waits(manager, more):
    box, name = manager
    with open_notifier({"NOTIFY_SOCKET": name, **more}) as notifier:
        notifier.turned(100.0)
        notifier.turned(1000.0)
    assert received(box) == []


def test_a_watchdog_for_this_very_process(manager):
    box, name = manager
    environ = {
        "NOTIFY_SOCKET": name,
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    with open_notifier(environ) as notifier:
        notifier.turned(0.0)
    assert received(box) == ["WATCHDOG=1"]


@pytest.mark.parametrize("name", ["", "vsock:2:1", "relative"])
def test_without_a_manager_nothing_happens(name):
    with open_notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1"}) as notifier:
        notifier.ready()
        notifier.status("x")
        notifier.reloading(1.0)
        notifier.turned(1.0)
        notifier.stopping()


def test_a_manager_that_comes_back_is_told_again(tmp_path):
    name = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"}
    with open_notifier(environ) as notifier:
        notifier.turned(100.0)
        notifier.status("a")
        with listening(name) as box:
            notifier.turned(101.0)
            notifier.status("a")
            assert received(box) == ["WATCHDOG=1", "STATUS=a"]


def test_a_full_socket_holds_nobody_up(tmp_path):
    name = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"}
    with listening(name) as box, open_notifier(environ) as notifier:
        for number in range(10_000):
            notifier.status(str(number))
        assert len(received(box)) < 10_000
        notifier.turned(100.0)
        assert received(box) == ["WATCHDOG=1"]
