"""One life of the daemon in the world: its real composition on what the world lends it."""

import asyncio
import contextvars
import json
import math

from tests.world.cloud import CloudDoor, ReceiverDoor
from tests.world.disk import WorldStore
from tests.world.loop import LIFE, Ended, Life
from watcher.core.errors import SettingsError, StoreError
from watcher.daemon.app import _actions
from watcher.daemon.notify import Notifier
from watcher.daemon.rooms import Outside, Rooms
from watcher.daemon.signals import END_WITHIN, Wishes
from watcher.daemon.targets import Targets
from watcher.ports import Request, Retention
from watcher.settings.loading import Origin
from watcher.sinks.kinds import KINDS
from watcher.sinks.log import LogSink
from watcher.sinks.post import Poster

RESTART_SEC = 5.0
"""As a service manager waits."""


class Daemon:
    """A process, from its start to its end.

    Attributes:
        life: What can be ended at any step.
        rooms: The daemon's parts, once it has begun.
        code: How it ended by itself; None: it did not.
        well: Whether it ended as it was asked to, all done.
    """

    def __init__(self, world, number):
        self.world = world
        self.life = Life(number, self._died)
        self.rooms = None
        self.store = None
        self.code = None
        self.well = False
        self.first_seq = 0
        self.points = {}
        self.over = asyncio.Event()
        self._context = contextvars.copy_context()
        self._context.run(LIFE.set, self.life)
        self.wishes = self._context.run(Wishes, self._in_time)
        self.main = self.spawn(self._run())

    def spawn(self, coro):
        """Do something within this life."""
        return self.world.loop.create_task(coro, context=self._context)

    @property
    def up(self):
        return self.rooms is not None and not self.life.ended and self.code is None

    def _in_time(self, _):
        loop = self.world.loop
        loop.call_later(END_WITHIN, self._give_up, context=contextvars.Context())

    def _give_up(self):
        if not self.over.is_set():
            self.life.end()

    def _died(self, _):
        self._leave()
        self.world.tell("ended", self.life.number)
        self.over.set()

    def _leave(self):
        world = self.world
        lossy = not self.well or any(
            line["event"] == "store.failing" and life == self.life.number
            for _, life, line in world.lines
        )
        world.ends.append((world.place(), lossy))
        world.forget_reader()
        if self.store is not None and not self.well:
            self.store.drop()

    def fault_point(self, name):
        """Die here, where the script says so."""
        self.world.met(f"point.{name}")
        if name == "commit.before" and self.up:
            self.world.rules.check_shown(self)
        left = self.points.get(name)
        if left is not None:
            self.points[name] = left - 1
            if left <= 1:
                self.world.met(f"kill.{name}")
                self.life.ended = True
                self.world.loop.call_soon(
                    self.life.on_end, self.life, context=contextvars.Context()
                )
                raise Ended

    async def _run(self):
        world = self.world
        try:
            await self._live()
            self.well = True
        except (StoreError, SettingsError) as exc:
            self.code = 78
            world.tell("cannot begin", str(exc).replace(str(world.folder), ""))
            if self.life.number not in world.disk.failed and not world.config_is_broken:
                world.find(f"the daemon ended by itself: {exc}")
        except Exception as exc:
            self.code = 70
            world.find(f"the daemon crashed: {exc!r}")
            world.crash = exc
        else:
            self.code = 0
        finally:
            if not self.life.ended:
                self.life.ended = not self.well
                self._leave()
                self.over.set()
                if self.code:
                    world.loop.call_later(
                        RESTART_SEC, world.revive, self, context=contextvars.Context()
                    )

    async def _live(self):
        world = self.world
        origin = Origin(world.config_file, environ={})
        settings = origin.load()
        sinks = [LogSink(self._send)]
        for given in settings.sinks:
            poster = Poster(ReceiverDoor(world, given.name), world.wall)
            sinks.append(KINDS[given.kind].make(given, poster, world.wall))
        journal = settings.journal
        self.store = WorldStore(
            world.disk,
            self.fault_point,
            now=world.wall,
            sinks=[sink.name for sink in sinks],
            retention=Retention(journal.max_age, journal.max_events),
        )
        await self.store.open()
        self.first_seq = world.last_seq()
        outside = Outside(
            store=self.store,
            doors=Targets(CloudDoor(world), world.wall, {}),
            sinks=sinks,
            notifier=Notifier(None, "", math.inf),
            wall=world.wall,
            chance=world.chance.random,
            fault_point=self.fault_point,
        )
        rooms = Rooms(outside, origin, settings, self.wishes)
        await rooms.begin()
        self.rooms = rooms
        await rooms.work()
        await self.store.close()

    async def _send(self, lines):
        await self.world.stdout()
        self.world.told("log", lines)

    async def act(self, name, target, job_id):
        """Call an action of the HTTP API; return its status."""
        action = next(a for a in _actions(self.rooms) if type(a).__name__ == name)
        params = {"target": target, "job_id": job_id}
        body = json.dumps(params).encode()
        answer = await action.respond(Request(action.path, params=params, body=body))
        return answer.status

    async def scrape(self):
        """Be Prometheus once; return what was served."""
        answer = await self.rooms.metrics.respond(Request("/metrics"))
        body = answer.body
        chunks = [c async for c in body] if hasattr(body, "__aiter__") else list(body)
        if answer.sent:
            answer.sent()
        return b"".join(chunks).decode()
