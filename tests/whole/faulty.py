"""The daemon with faults in it: for tests alone, as the daemon itself has none.

`python -m tests.whole.faulty run --config FILE` runs it; the environment says what goes
wrong: `KILL=point:n` kills the process at the n-th passing of a point, `HANG=point:n`
says so and stays there for ever, `SLOW=point:s` waits s seconds at each; SIGUSR1 makes it
tell how many tasks it has. `… nursery FD` starts one life after the other for who is at
the other end of that socket: everything is imported once, each life is a process of its
own.
"""

import asyncio
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from watcher.core.errors import SettingsError, StoreError
from watcher.daemon import app
from watcher.settings.loading import Origin

HUNG = b"hung\n"


def faults(environ):
    """Return what is called at each point."""
    rules = [
        (act, *environ[name].split(":"))
        for name, act in (("KILL", kill), ("HANG", hang), ("SLOW", slow))
        if name in environ
    ]
    passed = Counter()

    def fault_point(name):
        passed[name] += 1
        for act, point, number in rules:
            if name == point:
                act(passed[name], number)

    return fault_point


def kill(time_, number):
    if time_ == int(number):
        os.kill(os.getpid(), signal.SIGKILL)


def hang(time_, number):
    if time_ == int(number):
        os.write(2, HUNG)
        threading.Event().wait()


def slow(_, seconds):
    time.sleep(float(seconds))


def run(config):
    origin = Origin(Path(config))
    settings = origin.load()
    fault_point = faults(os.environ)

    async def watched(writer):
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, count_tasks)
        return await app.run(origin, settings, writer, fault_point=fault_point)

    return app.main(settings, watched)


def count_tasks():
    os.write(2, b"%d\n" % len(asyncio.all_tasks()))


def live(order, out, err):
    """Be a life, from the fork to the end."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.update(order["environ"])
    code = 70
    try:
        code = run(order["config"])
    except (SettingsError, StoreError) as exc:
        print(exc, file=sys.stderr, flush=True)
        code = 78
    finally:
        os._exit(code)


def bear(order, out, err, door):
    """Start a life, let it be killed on demand, and tell how it ended."""
    pid = os.fork()
    if pid == 0:
        door.close()
        live(order, out, err)
    os.close(out)
    os.close(err)
    ending = os.pidfd_open(pid)
    while True:
        ready, _, _ = select.select([door, ending], [], [])
        if ending in ready:
            break
        word = door.recv(64)
        os.kill(pid, signal.Signals[word.decode() or "SIGKILL"])
        if not word:
            break
    os.close(ending)
    _, status = os.waitpid(pid, 0)
    door.send(str(os.waitstatus_to_exitcode(status)).encode())


def nursery(descriptor):
    with socket.socket(fileno=descriptor) as door:
        while True:
            order, fds, _, _ = socket.recv_fds(door, 65536, 2)
            if not order:
                return 0
            if fds:  # else a signal that came too late
                bear(json.loads(order), *fds, door)


if __name__ == "__main__":
    if sys.argv[1] == "nursery":
        sys.exit(nursery(int(sys.argv[2])))
    sys.exit(run(sys.argv[3]))
