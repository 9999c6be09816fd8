"""A world from one script: cloud, network, disk, receivers, clocks, and who breaks them."""

import hashlib
import itertools
import json
import os
import random
import shutil
import tempfile
from collections import Counter, deque
from contextlib import closing
from pathlib import Path

import anyio
import msgspec
import structlog

from tests.world import oracle
from tests.world.cloud import Net
from tests.world.daemon import Daemon
from tests.world.disk import Disk
from tests.world.loop import LIFE, WorldLoop, no_threads
from tests.world.rules import Rules
from watcher.simulator import Clock, Dialect, SimulatorOptions
from watcher.simulator.gateway import Key
from watcher.simulator.simulation import Simulator
from watcher.store.sqlite.ledger import highest_seq, read_events
from watcher.store.sqlite.schema import connect

START = 1_700_000_000.0
SHARED = Path("/dev/shm")
LAST_STEPS = 60
_ENCODER = msgspec.json.Encoder(enc_hook=str)


class World:
    """Everything around the daemon, and all that happened.

    Attributes:
        findings: What is wrong; empty where all promises were kept.
        lines: Every log line as (place, life, line); `stories`: of each sink, every
            event as (place, seconds, life, event).
    """

    def __init__(self, script, folder):
        self.script = script
        self.folder = Path(folder)
        seed = script["seed"]
        self.loop = WorldLoop(random.Random(f"{seed}/order"))
        self.draw = random.Random(f"{seed}/world")
        self.chance = random.Random(f"{seed}/chance")
        self.findings = []
        self.crash = None
        self.lines = []
        self.stories = {"log": [], "hook": []}
        self.given_up = Counter()
        self.coverage = Counter()
        self.receiver_mood = "taken"
        self.stdout_mood = "well"
        self.wall_step = 0.0
        self.asleep = 0.0
        self.net = Net()
        self.disk = Disk(self, folder, can_lose=script["power"])
        self.rules = Rules(self)
        self.cloud = self._cloud()
        self.config_file = self.folder / "watcher.yaml"
        self.config = json.loads(json.dumps(script["config"]).replace("@", str(folder)))
        self.daemon = None
        self.lives = []
        self.calm_since = self.calm_until = None
        self.final_board = {}
        self.ends = []
        self.added = set()
        self.probe = None
        self.last = deque(maxlen=LAST_STEPS)
        self._hash = hashlib.sha256()
        self._places = 0
        self._reader = None

    def _cloud(self):
        wanted = dict(self.script["cloud"])
        wanted["dialect"] = Dialect(**wanted.pop("dialect", {}))
        keys = wanted.pop("keys")
        clock = Clock(lambda: START + self.true_time, lambda: self.true_time)
        return Simulator(SimulatorOptions(credentials=keys, **wanted), clock)

    # Times.

    @property
    def true_time(self):
        """Seconds that have passed, also while the machine slept."""
        return self.loop.now + self.asleep

    def wall(self):
        """Return what the machine's clock shows."""
        return START + self.true_time + self.wall_step

    # What is noted.

    def place(self):
        self._places += 1
        return self._places

    def tell(self, *words):
        line = f"{self.loop.now:.6f} {' '.join(map(str, words))}"
        line = line.replace(str(self.folder), "@")  # its name is another each time
        self._hash.update(line.encode("utf-8", "replace"))
        self.last.append(line)

    @property
    def trace(self):
        return self._hash.hexdigest()

    def met(self, what):
        self.coverage[what] += 1

    def find(self, what):
        if what not in self.findings:
            self.findings.append(what)
            self.tell("FOUND", what)

    def write(self, line):
        """Take an ordinary log line."""
        life = LIFE.get()
        if life is None or life.ended:
            return
        fields = json.loads(line)
        self.lines.append((self.place(), life.number, fields))
        self.met(f"line.{fields['event']}")
        if fields.get("level") == "error" or fields["event"] == "watcher.crashed":
            self.met(f"error.{fields['event']}")
        shown = {k: v for k, v in fields.items() if k not in {"exception", "error"}}
        self.tell("line", *shown.values())

    def flush(self):
        """Keep nothing back; structlog calls it."""

    async def stdout(self):
        await anyio.sleep(0.0001 + 0.001 * self.draw.random())
        while self.stdout_mood == "stuck":
            await anyio.sleep(0.5)
        if self.stdout_mood == "broken":
            self.met("stdout.broken")
            raise BrokenPipeError

    def told(self, sink, data, *, surely=True):
        """Take events that a sink was told; it may not know that it did, or not surely."""
        life = LIFE.get()
        if life.ended:
            return
        for text in data.splitlines():
            event = json.loads(text)
            event = event.get("data", event)
            self.met(f"told.{event['event']}")
            if event.get("replayed"):
                self.met("replayed")
            self.tell("told", sink, event["event_id"], event["seq"])
            self.rules.told(sink, event, surely=surely)
            entry = self.place(), self.loop.now, life.number, event
            self.stories[sink].append(entry)

    def refused(self, sink, data):
        self.given_up[json.loads(data)["id"]] += 1
        self.tell("refused", sink)

    # What is looked at from outside.

    def reader(self):
        if self._reader is None and self.disk.path.exists():
            self._reader = connect(self.disk.path, read_only=True)
        return self._reader

    def forget_reader(self):
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def last_seq(self):
        with closing(connect(self.disk.path, read_only=True)) as db:
            return highest_seq(db)

    def journal(self):
        if not self.disk.path.exists():
            return []
        with closing(connect(self.disk.path, read_only=True)) as db:
            return read_events(db, 0, 10**9, None)

    # The life of the daemon.

    def begin_life(self):
        self.met("life")
        if self.config_is_broken:
            self.write_config()  # nobody starts it on what is no configuration
        self.daemon = Daemon(self, len(self.lives))
        self.lives.append(self.daemon)
        self.rules.began(self.daemon)
        self.tell("begins", self.daemon.life.number)

    def revive(self, daemon):
        if self.daemon is daemon:
            self.begin_life()

    @property
    def config_is_broken(self):
        return self.config_file.read_text() != json.dumps(self.config)

    def write_config(self):
        self.config_file.write_text(json.dumps(self.config))
        self.date(self.config_file)

    def date(self, file):
        """Give a file the time of this world."""
        moment = int((self.wall() + self.place() * 1e-6) * 1e9)
        os.utime(file, ns=(moment, moment))

    async def main(self):
        self.write_config()
        self.begin_life()
        for at, name, args in self.script["ops"]:
            await anyio.sleep(max(0.0, at - self.loop.now))
            self.met(f"op.{name}")
            self.tell("op", name, *args.values())
            await getattr(self, f"op_{name}")(**args)
        await self.calm_down()

    async def calm_down(self):
        """End all faults, wait until all is over, and end the daemon well."""
        await anyio.sleep(max(0.0, self.script["seconds"] - self.loop.now))
        await anyio.sleep(max(0.0, self.daemon.life.paused_until - self.loop.now))
        await self.heal()
        self.tell("calm")
        self.calm_since = self.loop.now
        await self.op_config({}, asked=True)
        for second in range(int(self.script["calm"])):
            if second == self.script["settle"] + 5:
                self.probe = oracle.probe(self)
            await anyio.sleep(1.0)
        self.rules.calm()
        before = len(self.net.exchanges)
        text = await self.daemon.scrape()
        oracle.check_scrape(self, text, self.net.exchanges[:before])
        self.daemon.wishes.ask_for_end()
        await self.daemon.over.wait()
        await anyio.sleep(0.1)

    async def heal(self):
        self.net.latency, self.net.lost, self.net.late = (0.01, 0.05), 0.0, 0.0
        self.net.down = False
        self.disk.mood, self.disk.hangs_until = "well", 0.0
        self.receiver_mood, self.stdout_mood = "taken", "well"
        self.cloud.faults.clear()
        self.cloud.clock.skew = self.script["cloud"].get("clock_skew", 0.0)
        self.wall_step = 0.0
        self.cloud.gateway.set_keys(self._keys())

    def _keys(self):
        keys = self.script["cloud"]["keys"]
        return None if keys is None else {k: Key(secret) for k, secret in keys.items()}

    # What may happen: each is a line of a script.

    async def op_fault(self, text, seconds):
        self.cloud.faults.add(text)
        rule = list(self.cloud.faults)[-1]
        self.loop.call_later(seconds, self._end_fault, rule)

    def _end_fault(self, rule):
        object.__setattr__(rule.fault, "until", 0.0)

    async def op_net(self, seconds, **moods):
        for name, mood in moods.items():
            setattr(self.net, name, tuple(mood) if isinstance(mood, list) else mood)
        self.loop.call_later(seconds, self._mend_net, list(moods))

    def _mend_net(self, names):
        well = Net()
        for name in names:
            setattr(self.net, name, getattr(well, name))

    async def op_disk(self, mood, seconds):
        if mood == "hangs":
            self.met("disk.hangs")
            self.disk.hangs_until = self.loop.now + seconds
            return
        self.disk.mood = mood
        self.met(f"disk.{mood}")
        self.loop.call_later(seconds, setattr, self.disk, "mood", "well")

    async def op_receiver(self, mood, seconds):
        self.receiver_mood = mood
        self.loop.call_later(seconds, setattr, self, "receiver_mood", "taken")

    async def op_stdout(self, mood, seconds):
        self.stdout_mood = mood
        self.loop.call_later(seconds, setattr, self, "stdout_mood", "well")

    async def op_kill(self, steps=1, down=1.0, point=None, power=False):
        daemon = self.daemon
        if point is not None:
            daemon.points[point] = steps
            with anyio.move_on_after(5.0):
                await daemon.over.wait()
        else:
            daemon.life.end_at = daemon.life.steps + steps
            with anyio.move_on_after(2.0):
                await daemon.over.wait()
        if not daemon.life.ended:
            daemon.life.end()
        if power:
            self.met("power lost")
            self.forget_reader()
            self.disk.lose_power()
            self.rules.power_lost()
        await anyio.sleep(down)
        self.revive(daemon)

    async def op_stop(self, down):
        daemon = self.daemon
        daemon.wishes.ask_for_end()
        await daemon.over.wait()
        await anyio.sleep(down)
        self.revive(daemon)

    async def op_pause(self, seconds):
        """Stop the process, as SIGSTOP does."""
        life = self.daemon.life
        life.paused_until = max(life.paused_until, self.loop.now + seconds)
        self.rules.held_up(seconds)

    async def op_sleep(self, seconds):
        """Suspend the machine: its monotonic clock stands still."""
        self.asleep += seconds
        self.rules.held_up(seconds)

    async def op_clock(self, seconds):
        self.wall_step += seconds

    async def op_cloud_clock(self, seconds):
        self.cloud.clock.skew += seconds

    async def op_revoke(self, key, seconds):
        keys = self.cloud.gateway.keys
        if keys is not None and key in keys:
            secret = keys.pop(key)
            self.loop.call_later(seconds, self._restore, key, secret)

    def _restore(self, key, secret):
        self.cloud.gateway.keys[key] = secret
        self.cloud.gateway._locked_until.pop(key, None)
        self.cloud.gateway._failures.pop(key, None)

    async def op_patch(self, job, task, status):
        if (job_id := self._present(job)) is None:
            return
        tasks = self.cloud.jobs.tasks(job_id)
        which = tasks[task % len(tasks)].id if tasks and task >= 0 else "*"
        self.cloud.jobs.patch(job_id, which, status, f"by hand: {status}")

    async def op_flicker(self, job, task, seconds):
        """Let a task fail and run again, faster than a slow disk can follow."""
        if self._present(job) is not None:
            until = min(self.loop.now + seconds, self.script["seconds"])
            self.loop.create_task(self._flicker(job, task, until))

    async def _flicker(self, job, task, until):
        for status in itertools.cycle(
            ["FAILED", "PROCESSING", "SUCCESS", "PROCESSING"]
        ):
            if self.loop.now >= until:
                return
            await self.op_patch(job, task, status)
            await anyio.sleep(1.0 + 2.0 * self.draw.random())

    async def op_say(self, job, status):
        if (job_id := self._present(job)) is not None:
            self.cloud.jobs.say(job_id, status)

    async def op_delete(self, job):
        if (job_id := self._present(job)) is not None:
            self.cloud.jobs.delete([job_id])

    def _present(self, job):
        ids = self.cloud.job_ids
        job_id = ids[job % len(ids)]
        return job_id if self.cloud.jobs.find(job_id) else None

    async def op_config(self, change, asked):
        """Write the configuration anew; some of it is no configuration."""
        if change == "invalid":
            self.config_file.write_text('{"targets": {"a": {"regoin": 1}}}')
            self.date(self.config_file)
        else:
            for path, value in change.items():
                *parents, name = path.split(".")
                place = self.config
                for parent in parents:
                    place = place.get(parent, {})  # what is not there is not changed
                if value is None:
                    place.pop(name, None)
                else:
                    place[name] = value
            self.write_config()
        if asked:
            self.daemon.wishes.ask_for_reload()

    async def op_blink(self, target, job, gap):
        """Take a job out of the configuration, and put it back soon after."""
        given = self.config["targets"].get(target)
        ids = self.cloud.job_ids
        job_id = ids[job % len(ids)]
        if given is None or job_id not in given["jobs"]:
            return
        jobs = given["jobs"]
        fewer = [each for each in jobs if each != job_id]
        for present in (fewer, jobs):
            await self.op_config({f"targets.{target}.jobs": present}, asked=True)
            await anyio.sleep(gap)

    async def op_job_file(self, name, text):
        file = self.folder / "jobs" / name
        file.parent.mkdir(exist_ok=True)
        if text is None:
            file.unlink(missing_ok=True)
            return
        for number, job_id in enumerate(self.cloud.job_ids):
            text = text.replace(f"#{number}#", job_id)
        file.write_text(text)
        self.date(file)

    async def op_http(self, action, target, job):
        daemon = self.daemon
        if daemon.up and not daemon.wishes.end.is_set():
            ids = self.cloud.job_ids
            daemon.spawn(self._act(daemon, action, target, ids[job % len(ids)]))

    async def _act(self, daemon, action, target, job_id):
        status = await daemon.act(action, target, job_id)
        self.tell("action", action, target, job_id, status)
        self.met(f"action.{action}.{status}")
        if action == "AddJob" and status in {200, 201}:
            self.added.add((target, job_id))
        elif action == "RemoveJob" and status != 409:
            self.added.discard((target, job_id))

    async def op_scrape(self):
        daemon = self.daemon
        if daemon.up:
            daemon.spawn(daemon.scrape())


class Report:
    """What came of a world."""

    def __init__(self, world):
        self.findings = world.findings
        self.crash = world.crash
        self.trace = world.trace
        self.last = list(world.last)
        self.coverage = world.coverage
        self.job_hours = world.rules.job_seconds / 3600
        self.hours = world.loop.now / 3600
        self.asked = len(world.net.exchanges)


def run(script):
    """Let a world run from its beginning to its end, and judge it."""
    base = SHARED if SHARED.is_dir() else None
    folder = tempfile.mkdtemp(prefix="world-", dir=base)
    try:
        world = World(script, folder)
        _hear(world)
        try:
            with no_threads():
                world.loop.run_until_complete(world.main())
            oracle.judge(world)
        except Exception as exc:
            world.crash = exc
            world.find(f"the world itself broke: {exc!r}")
        for context in world.loop.errors:
            if "exception" in context:
                world.find(f"nobody caught {context['exception']!r}")
        report = Report(world)
        _leave(world)
        return report
    finally:
        structlog.reset_defaults()
        shutil.rmtree(folder, ignore_errors=True)


def _hear(world):
    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            structlog.processors.add_log_level,
            lambda _, __, line: _ENCODER.encode(line),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.BytesLoggerFactory(world),
        cache_logger_on_first_use=False,
    )


def _leave(world):
    """Let nothing of the world run any more, whatever is collected."""
    world.forget_reader()
    for daemon in world.lives:
        daemon.life.ended = True
        for task in daemon.life.tasks:
            task._log_destroy_pending = False
    world.loop.set_exception_handler(lambda *_: None)
    world.loop.close()
