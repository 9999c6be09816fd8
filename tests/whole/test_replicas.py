"""Replicas as processes over a real PostgreSQL, each behind a proxy that sees its requests."""

import json
import re
import signal
import time
from collections import defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import groupby
from urllib.parse import urlsplit

import anyio
import anyio.abc
import pytest

from tests.doors.store.postgres import made
from tests.whole.daemon import running, target, until, watcher
from watcher.simulator import SimulatorOptions, simulate

TARGETS, KEYS, JOBS = 12, 4, 20
LEASE = 5.0
KEY = {f"AKREPLICA{number}": f"secret{number}" for number in range(KEYS)}
ASKED = re.compile(rb"GET \S*/jobs/([\w-]+)[/ ?][^\r\n]*\r\n")


class Proxy:
    """Passes connections on, and notes which job was asked for, and when."""

    def __init__(self, cloud):
        parts = urlsplit(cloud)
        self._cloud = parts.hostname, parts.port
        self.asked = []

    async def serve(self, *, task_status):
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        task_status.started(f"http://127.0.0.1:{port}")
        await listener.serve(self._pass)

    async def _pass(self, client):
        async with (
            client,
            await anyio.connect_tcp(*self._cloud) as cloud,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._copy, client, cloud, self._note, tasks)
            tasks.start_soon(self._copy, cloud, client, lambda _: None, tasks)

    async def _copy(self, source, sink, note, tasks):
        try:
            async for chunk in source:
                note(chunk)
                await sink.send(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        tasks.cancel_scope.cancel()

    def _note(self, chunk):
        now = time.monotonic()
        self.asked += [(now, each.decode()) for each in ASKED.findall(chunk)]


@pytest.fixture(scope="module")
def database():
    server = made("-c", "fsync=off")
    yield server.database()
    server.stop()


class Rig:
    def __init__(self, folder, database, cloud, ids):
        self.folder, self.database = folder, database
        self.cloud, self.ids = cloud, ids
        self.target_of = {job: f"t{number % TARGETS}" for number, job in enumerate(ids)}
        self.proxies, self.daemons = {}, {}

    def values(self, address):
        targets = {}
        for number, key in zip(range(TARGETS), list(KEY) * TARGETS, strict=False):
            name = f"t{number}"
            jobs = [job for job in self.ids if self.target_of[job] == name]
            one = target(address, jobs)
            one["credentials"] |= {"access_key": key, "secret_key": KEY[key]}
            targets[name] = one
        return {
            "targets": targets,
            "poll": {"interval": "1s", "mode": "detail"},
            "store": {"url": self.database},
            "replica": {"lease": f"{LEASE:.0f}s"},
        }

    @asynccontextmanager
    async def replica(self, name):
        proxy = self.proxies[name] = Proxy(self.cloud)
        folder = self.folder / name
        folder.mkdir()
        async with anyio.create_task_group() as tasks:
            address = await tasks.start(proxy.serve)
            async with running(folder, self.values(address)) as daemon:
                self.daemons[name] = daemon
                yield daemon
            tasks.cancel_scope.cancel()

    def asked(self, since=0.0):
        """Which target was asked by whom, oldest first."""
        found = [
            (at, name, self.target_of[job])
            for name, proxy in self.proxies.items()
            for at, job in proxy.asked
            if at >= since
        ]
        return sorted(found)

    def targets_of(self, name, within=2.0):
        return {t for _, who, t in self.asked(time.monotonic() - within) if who == name}

    async def taken_over(self, targets, survivors, patience):
        began = time.monotonic()
        await until(
            lambda: (
                targets <= {t for _, who, t in self.asked(began) if who in survivors}
            ),
            patience,
        )
        return time.monotonic() - began

    def lines(self):
        return [
            line
            for daemon in self.daemons.values()
            for line in list(daemon.lines)
            if "event_id" in line
        ]


async def status(daemon):
    """What `watcher status` says of all jobs at a replica, by id."""
    words = ("status", "--json", "--address", daemon.url.removeprefix("http://"))
    done = await anyio.to_thread.run_sync(lambda: watcher(*words))
    assert done.returncode == 0, done.stderr
    jobs = [json.loads(line) for line in done.stdout.splitlines()]
    return {job["job_id"]: job for job in jobs}


async def shown_alike(rig, names, patience):
    """Wait until each replica shows every job, and whose it is, as the others do."""
    with anyio.fail_after(patience):
        while True:
            seen = [await status(rig.daemons[name]) for name in names]
            hands = [{job: one["replica"] for job, one in s.items()} for s in seen]
            whose = set(hands[0].values())
            if all(each == hands[0] for each in hands) and len(whose) == len(names):
                assert hands[0].keys() == set(rig.ids)
                return seen
            await anyio.sleep(0.5)


@pytest.mark.alone
async def test_any_replica_shows_what_all_watch(tmp_path):
    server = made("-c", "fsync=off")
    options = SimulatorOptions(jobs=TARGETS * 2, tasks=1, credentials=KEY, speed=0)
    try:
        async with simulate(options) as cloud, AsyncExitStack() as stack:
            cloud.clock.set(advance=1.0)
            rig = Rig(tmp_path, server.database(), cloud.url, cloud.job_ids)
            for name in "ab":
                await stack.enter_async_context(rig.replica(name))
                await rig.daemons[name].started()
            await shown_alike(rig, "ab", 180.0)
            own = [await rig.daemons[name].metrics() for name in "ab"]
            held = [
                {
                    dict(key[1:])["target"]
                    for key in each
                    if key[0] == "devserver_job_phase"
                }
                for each in own
            ]
            assert all(held)
            assert not held[0] & held[1]
            cloud.clock.set(advance=1e6)
            for name in "ab":
                daemon = rig.daemons[name]

                async def over(daemon=daemon):
                    found = await status(daemon)
                    return all(job["finished_at"] for job in found.values())

                with anyio.fail_after(20.0):
                    while not await over():
                        await anyio.sleep(0.2)
    finally:
        server.stop()


@pytest.mark.alone
async def test_killed_stopped_and_ended_replicas_lose_nothing(tmp_path, database):
    options = SimulatorOptions(jobs=TARGETS * JOBS, tasks=1, credentials=KEY, speed=0.1)
    async with simulate(options) as cloud, AsyncExitStack() as stack:
        rig = Rig(tmp_path, database, cloud.url, cloud.job_ids)
        for name in "abc":
            await stack.enter_async_context(rig.replica(name))
        await until(lambda: all(rig.targets_of(name) for name in "abc"), 150.0)
        assert {t for _, _, t in rig.asked()} == {f"t{n}" for n in range(TARGETS)}

        gone = rig.targets_of("a")
        rig.daemons["a"].process.kill()
        killed = await rig.taken_over(gone, "bc", LEASE + 5.0)

        left = rig.targets_of("b")
        rig.daemons["b"].process.send_signal(signal.SIGSTOP)
        stopped = await rig.taken_over(left, "c", LEASE + 5.0)
        await anyio.sleep(2 * LEASE)
        woken = time.monotonic()
        rig.daemons["b"].process.send_signal(signal.SIGCONT)
        await rig.daemons["b"].until(lambda: rig.daemons["b"].events("lease.lost"))
        await rig.daemons["b"].until(
            lambda: (
                len(rig.daemons["b"].events("lease.taken"))
                > len(rig.daemons["b"].events("lease.lost"))
            )
        )
        await until(lambda: rig.targets_of("b"), LEASE)

        gone = rig.targets_of("c")
        code, _ = await rig.daemons["c"].end()
        ended = await rig.taken_over(gone, "b", 3.0)
        assert code == 0
        print(f"taken over after {killed=:.1f} {stopped=:.1f} {ended=:.1f} s")

        await anyio.sleep(3.0)
        nobody_meets(rig, woken)
        what_was_told(rig)


def nobody_meets(rig, woken):
    """Two that ask a target at once would alternate with every look, for minutes."""
    for name in {t for _, _, t in rig.asked()}:
        hands = [who for who, _ in groupby(w for _, w, t in rig.asked() if t == name)]
        assert len(hands) <= 6, (name, hands)
        late = [at for at, who, t in rig.asked(woken) if (who, t) == ("b", name)]
        others = [at for at, who, t in rig.asked(woken) if (who, t) == ("c", name)]
        assert not late or not others or max(others) < min(late), name


def what_was_told(rig):
    """Each event by one id and one number, in order per job; a repetition says so."""
    told = defaultdict(list)
    for line in rig.lines():
        told[line["event_id"]].append(line)
    assert {each[0]["job_id"] for each in told.values()} == set(rig.ids)
    for each in told.values():
        assert len({line["seq"] for line in each}) == 1
        assert sum(not line.get("replayed", False) for line in each) <= 1, each
    for daemon in rig.daemons.values():
        seqs = defaultdict(list)
        for line in daemon.lines:
            if "event_id" in line and not line.get("replayed", False):
                seqs[line["job_id"]].append(line["seq"])
        assert all(each == sorted(each) for each in seqs.values())
