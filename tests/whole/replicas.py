"""Several replicas on one database, each behind proxies of its own, in a world that is unkind.

What each of them asked the cloud is known by its proxy; under which owner each event was
written is noted by triggers within the database itself.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import yaml
from aiohttp import web
from anyio.abc import SocketAttribute

from tests.whole.daemon import get, surroundings, until
from tests.whole.lives import unmeasured

LEASE = 5.0
GONE = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    OSError,
)
ASKED = re.compile(rb"GET /v1/[0-9a-f]+/dev-servers/jobs/([0-9a-f-]{36}) HTTP")
KEYS = {f"AK{number:018d}": f"SK{number:038d}" for number in range(4)}
AUDIT = """
CREATE TABLE watcher.audit (
  number bigserial, seq bigint, target text, port int, owner text, epoch bigint,
  until timestamptz, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE watcher.owners (port int, owner text);
CREATE FUNCTION watcher.note_event() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO watcher.audit (seq, target, port, owner, epoch, until)
    SELECT NEW.seq, NEW.target, inet_client_port(), owner, epoch, leased_until
    FROM watcher.leases WHERE NEW.target = ANY (targets);
  RETURN NULL; END $$;
CREATE FUNCTION watcher.note_owner() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO watcher.owners VALUES (inet_client_port(), NEW.owner);
  RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT ON watcher.journal
  FOR EACH ROW EXECUTE FUNCTION watcher.note_event();
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON watcher.replicas
  FOR EACH ROW EXECUTE FUNCTION watcher.note_owner();
"""


class Wire:
    """A way to a server that can be cut, or hold what is sent until it is mended."""

    def __init__(self, port, heard=lambda _: None):
        self.server = port
        self.life = None
        self.lives = defaultdict(set)  # by the port that the server sees
        self._heard = heard
        self._state = "open"
        self._changed = anyio.Event()
        self._ends = set()

    @asynccontextmanager
    async def open(self):
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            self.port = listener.extra(SocketAttribute.local_port)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, self._carry)
                yield self
                tasks.cancel_scope.cancel()

    def cut(self):
        """Reset what there is, refuse what comes."""
        self._set("cut")
        for end in self._ends:
            end.cancel()

    def hold(self):
        """Keep what is sent to the server, to hand it over late, whoever still waits."""
        self._set("held")

    def mend(self):
        self._set("open")

    def _set(self, state):
        self._state = state
        self._changed.set()
        self._changed = anyio.Event()

    async def _carry(self, client):
        async with client:
            if self._state == "cut":
                return
            with suppress(*GONE):
                server = await anyio.connect_tcp("127.0.0.1", self.server)
                async with server:
                    seen = server.extra(SocketAttribute.local_port)
                    self.lives[seen].add(self.life)
                    await self._pump_both(client, server)

    async def _pump_both(self, client, server):
        with anyio.CancelScope() as end:
            self._ends.add(end)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pump_back, server, client, tasks.cancel_scope)
                with suppress(*GONE):
                    async for data in client:
                        self._heard(data)
                        while self._state == "held":
                            await self._changed.wait()
                        await server.send(data)
                tasks.cancel_scope.cancel()
        self._ends.discard(end)

    async def _pump_back(self, server, client, end):
        with suppress(*GONE):
            async for data in server:
                with suppress(*GONE):  # held bytes go on to the server all the same
                    await client.send(data)
        if self._state != "held":
            end.cancel()


@dataclass
class Replica:
    """One place where a watcher runs, one life after another."""

    name: str
    folder: Path
    values: dict
    cloud: Wire
    database: Wire
    story: "Story"
    process: subprocess.Popen = None
    lives: int = 0

    async def live(self, tasks, **environ):
        """Begin a life."""
        self.lives += 1
        life = self.cloud.life = self.database.life = f"{self.name}.{self.lives}"
        file = self.folder / f"{self.name}.yaml"
        file.write_text(yaml.safe_dump(self.values))
        command = [sys.executable, "-m", "watcher", "run", "--config", str(file)]
        environ = surroundings(STATE_DIRECTORY=str(self.folder)) | environ
        with (self.folder / f"{life}.err").open("wb") as errors:
            self.process = await anyio.open_process(
                command, env=unmeasured(environ), stderr=errors
            )
        tasks.start_soon(self._read, self.process, life)

    async def _read(self, process, life):
        rest = b""
        with suppress(*GONE):
            async for chunk in process.stdout:
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    self.story.hear(self.name, life, json.loads(line))

    @property
    def alive(self):
        return self.process.returncode is None

    def last_words(self):
        """Return how it ended, and what it said before."""
        life = self.cloud.life
        errors = (self.folder / f"{life}.err").read_text()
        said = [str(x)[-1500:] for _, _, one, x in self.story.lines if one == life]
        return self.process.returncode, said[-4:], errors[-1000:]

    async def end(self, number):
        """End it by a signal; return when."""
        at = time.monotonic()
        self.process.send_signal(number)
        await self.process.wait()
        return at


@dataclass
class Story:
    """What was asked, said and received, in the order in which it was seen here."""

    lines: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    received: list = field(default_factory=list)
    heard: object = lambda _: None

    def hear(self, replica, life, line):
        self.lines.append((time.monotonic(), replica, life, line))
        if "event_id" in line:
            self.heard(line)

    def asked(self, replica, data):
        at = time.monotonic()
        for job_id in ASKED.findall(data):
            self.requests.append((at, replica, job_id.decode()))

    def events(self, name, replica=None):
        return [
            (at, line)
            for at, who, _, line in self.lines
            if line["event"] == name and replica in {None, who}
        ]


class World:
    """The cloud, the database, the replicas, and who receives their webhooks."""

    def __init__(self, sim, server, story, replicas, targets, tasks):
        self.sim = sim
        self.server = server
        self.story = story
        self.replicas = replicas
        self.targets = targets
        self.target_of = {j: name for name, ids in targets.items() for j in ids}
        self.tasks = tasks

    def address(self):
        """Return where a replica can be asked that is up; None: nowhere."""
        up = {each.cloud.life for each in self.replicas if each.alive}
        started = [x for x in self.story.lines if x[3]["event"] == "watcher.started"]
        return next((x["listen"] for *_, life, x in started if life in up), None)

    async def journal(self):
        """Return all events, asked of one replica page by page."""
        events, after = [], 0
        await until(self.address, 60)
        url = self.address()
        while True:
            path = f"{url}/api/v1/events?after={after}&limit=1000"
            _, text = await anyio.to_thread.run_sync(get, path)
            page = json.loads(text)
            if not page["events"]:
                return events
            events += page["events"]
            after = page["next"]

    def rows(self, select):
        text = f"SELECT coalesce(json_agg(x), '[]') FROM ({select}) AS x"
        return json.loads(self.server.sql(text))


@asynccontextmanager
async def receiving(story):
    async def take(request):
        story.received.append(json.loads(await request.read())["data"])
        return web.Response(status=204)

    runner = web.ServerRunner(web.Server(take, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}/hook"
    finally:
        await runner.cleanup()


def split(job_ids, count):
    each = len(job_ids) // count
    return {f"t{n:02d}": list(job_ids[n * each : (n + 1) * each]) for n in range(count)}


def configured(targets, cloud, database, hook, poll):
    keys = list(KEYS.items())
    made = {}
    for number, (name, ids) in enumerate(targets.items()):
        access, secret = keys[number % len(keys)]
        made[name] = {
            "endpoint": f"http://127.0.0.1:{cloud}",
            "project_id": "0123456789abcdef0123456789abcdef",
            "credentials": {
                "kind": "static",
                "access_key": access,
                "secret_key": secret,
            },
            "jobs": ids,
        }
    return {
        "targets": made,
        "poll": poll,
        "replica": {"lease": LEASE},
        "server": {"listen": "127.0.0.1:0"},
        "store": {"url": f"postgresql://postgres@127.0.0.1:{database}/postgres"},
        "sinks": [{"kind": "webhook", "url": hook, "timeout": "2s"}],
    }


@asynccontextmanager
async def world(folder, sim, server, *, count=3, targets=12, poll):
    """Start replicas, wait until each job was seen, and note what goes into the journal."""
    story = Story()
    shares = split(sim.job_ids, targets)
    cloud_port = int(sim.url.rpartition(":")[2])
    async with receiving(story) as hook, anyio.create_task_group() as tasks:
        replicas = []
        for name in "abcdefgh"[:count]:
            cloud = Wire(cloud_port, lambda data, name=name: story.asked(name, data))
            database = Wire(server.port)
            await tasks.start(_opened, cloud)
            await tasks.start(_opened, database)
            values = configured(shares, cloud.port, database.port, hook, poll)
            replicas.append(Replica(name, folder, values, cloud, database, story))
        it = World(sim, server, story, replicas, shares, tasks)
        await replicas[0].live(tasks)
        await until(lambda: story.events("watcher.started"))
        server.sql(AUDIT)
        for each in replicas[1:]:
            await each.live(tasks)
        try:
            yield it
        finally:
            for each in replicas:
                if each.process and each.alive:
                    each.process.send_signal(signal.SIGCONT)
                    each.process.kill()
            with anyio.CancelScope(shield=True):
                for each in replicas:
                    await each.process.wait()
            tasks.cancel_scope.cancel()


async def _opened(wire, *, task_status):
    async with wire.open():
        task_status.started()
        await anyio.sleep_forever()


class Changes:
    """Changes tasks by hand, each once its last change was told; knows what must be told."""

    def __init__(self, world, draw):
        self.world = world
        self.made = defaultdict(list)
        self.over = False
        self._draw = draw
        self._open = {}
        self._seen = set()
        world.story.heard = self._hear
        for job_id in world.sim.job_ids:
            world.sim.jobs.patch(job_id, "*", "PROCESSING")

    def _hear(self, line):
        if line["event"] == "job.first_seen":
            self._seen.add(line["job_id"])
        elif line["event"] == "task.transition":
            key = line["job_id"], line["task_id"]
            if self._open.get(key) == line["to"]:
                del self._open[key]

    @property
    def all_seen(self):
        return self._seen >= set(self.world.sim.job_ids)

    @property
    def settled(self):
        return not self._open

    async def run(self):
        while not self.over:
            await anyio.sleep(0.05)
            job_id = self._draw.choice(self.world.sim.job_ids)
            _, *others = self.world.sim.jobs.tasks(job_id)  # the first goes on
            task = self._draw.choice(others).id
            if job_id in self._seen and (job_id, task) not in self._open:
                self._change(job_id, task)

    def _change(self, job_id, task):
        made = self.made[job_id, task]
        now = made[-1][1] if made else "PROCESSING"
        words = {"PROCESSING", "SUCCESS", "FAILED"} - {now}
        word = self._draw.choice(sorted(words))
        made.append((now, word))
        self._open[job_id, task] = word
        self.world.sim.jobs.patch(job_id, task, word)


def freeze(process):
    os.kill(process.pid, signal.SIGSTOP)


def thaw(process):
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)
