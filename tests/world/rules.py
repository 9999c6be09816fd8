"""What holds at every moment, whatever the world does."""

import json
from collections import defaultdict, deque

import anyio

from tests.world import tale
from tests.world.loop import LIFE
from watcher.client.breaker import WINDOW

LOOK_EVERY = 60.0
LATEST_TURN = 5.0
MOST_CHECKED = 100
"""Jobs; to look at more of them at each commit takes too long."""


class _Key:
    """What a gateway knows of an access key, and what its user should remember."""

    def __init__(self):
        self.accepted = False
        self.refused_at = 0
        self.refusals = []
        self.in_flight = []

    def judge(self, exchange):
        """Take in an answer."""
        verdict = tale.verdict(exchange)
        if verdict == "refused":
            self.accepted, self.refused_at = False, exchange.place
            self.refusals.append(exchange.handed)
        elif verdict == "accepted" and exchange.number > self.refused_at:
            self.accepted = True
            self.refusals.clear()


class Rules:
    """Checks as things happen.

    Attributes:
        job_seconds: Over all watched jobs that were not finished.
    """

    def __init__(self, world):
        self._world = world
        self.job_seconds = 0.0
        self.power_lost_at = []
        self._keys = defaultdict(_Key)
        self._recent = defaultdict(deque)
        self._asked = {}
        self._told = defaultdict(set)
        self._told_by_life = defaultdict(set)
        self._held_until = 0.0
        self._calm = None

    def began(self, daemon):
        self._keys.clear()
        self._recent.clear()
        self._asked.clear()
        daemon.watched = self._world.loop.create_task(self._watch(daemon))

    def held_up(self, seconds):
        self._held_until = max(self._held_until, self._world.loop.now + seconds)

    def power_lost(self):
        self.power_lost_at.append(self._world.place())

    # Requests.

    def sent(self, exchange):
        world = self._world
        settings = world.config["poll"]
        self._check_rate(exchange, settings)
        job = exchange.target, exchange.job_id
        before = self._asked.get(job)
        if exchange.call == "detail":
            if before is not None and not before.over:
                world.find(f"two requests for one job on their way: {exchange}")
            self._asked[job] = exchange
        if exchange.key is not None:
            self._check_key(exchange)

    def _check_rate(self, exchange, settings):
        world, now = self._world, exchange.sent
        recent = self._recent[exchange.target]
        if self._is_sent_again(exchange):
            world.met("sent again")
            return
        recent.append(exchange)
        while recent[0].sent <= now - 1.0 + 1e-6:
            recent.popleft()
        rate = max(settings["requests_per_second"], world.script["most_rate"])
        if len(recent) > rate * 1.1 + 1 + 1e-6:
            world.find(f"{len(recent)} requests in a second at {rate} a second")
        open_ones = sum(
            not each.over
            for each in world.net.exchanges[-300:]
            if each.target == exchange.target and each.life == exchange.life
        )
        if open_ones > settings["max_in_flight"]:
            world.find(f"{open_ones} requests of one target on their way")

    def _is_sent_again(self, exchange):
        """Whether it is the second try of one that was refused: it goes at once."""
        return any(
            each.status == 401
            and (each.target, each.call, each.job_id)
            == (exchange.target, exchange.call, exchange.job_id)
            and exchange.sent - each.handed < 1.0
            for each in self._world.net.exchanges[-20:-1]
            if each.handed is not None
        )

    def _check_key(self, exchange):
        world, key = self._world, self._keys[exchange.key]
        for each in sorted(
            (e for e in key.in_flight if e.over and e.handed is not None),
            key=lambda e: e.place,
        ):
            key.judge(each)
        key.in_flight = [each for each in key.in_flight if not each.over]
        limit = world.script["key_limit"] if key.accepted else 1
        if len(key.in_flight) >= limit:
            world.find(
                f"{len(key.in_flight) + 1} requests of a key on their way, "
                f"accepted: {key.accepted}"
            )
        now = world.loop.now
        recent = [at for at in key.refusals if at > now - WINDOW]
        if not key.accepted and len(recent) >= 3:
            world.find(f"asked with a key that was refused {len(recent)} times")
        key.in_flight.append(exchange)

    # What is told.

    def told(self, sink, event, *, surely):
        world, life = self._world, LIFE.get().number
        event_id = event["event_id"]
        if event_id in self._told_by_life[sink, life]:
            world.find(f"told twice in one life: {sink} {event}")
        if event.get("replayed") and event["seq"] > world.daemon.first_seq:
            world.find(f"called a repetition, of what is new in this life: {event}")
        again = event_id in self._told[sink]
        if again and not event.get("replayed") and not self.power_lost_at:
            world.find(f"told again without saying so: {sink} {event}")
        if surely:
            self._told[sink].add(event_id)
            self._told_by_life[sink, life].add(event_id)
        query = "SELECT seq FROM journal WHERE event_id = ?"
        row = world.reader().execute(query, (event_id,)).fetchone()
        if row is None:
            world.find(f"told before it was committed: {event}")
        elif row[0] != event["seq"]:
            world.find(f"told with another number than committed: {event}")

    # The state.

    async def _watch(self, daemon):
        world = self._world
        while not daemon.over.is_set():
            await anyio.sleep(LOOK_EVERY if daemon.up else 1.0)
            if not daemon.up or daemon is not world.daemon:
                continue
            running = sum(
                target.running for target in daemon.rooms.fleet.targets.values()
            )
            self.job_seconds += running * LOOK_EVERY
            self._check_alive(daemon)
            self.check_shown(daemon)

    def _check_alive(self, daemon):
        world = self._world
        late = world.loop.now - daemon.rooms.poller.turned_at
        if late > LATEST_TURN and world.loop.now > self._held_until + LATEST_TURN:
            world.find(f"the loop that asks has not turned for {late} s")

    def check_shown(self, daemon):
        """Whatever is shown was committed."""
        world = self._world
        if len(daemon.rooms.board.records) > MOST_CHECKED:
            return
        for key, record in daemon.rooms.board.records.items():
            query = "SELECT body FROM records WHERE target = ? AND job_id = ?"
            row = world.reader().execute(query, key).fetchone()
            if row is None:
                if any(n for s, n in record.ordinals.items() if s):
                    world.find(f"shown and not in the store: {key}")
                continue
            kept = json.loads(row[0]).get("ordinals", {})
            for subject, number in record.ordinals.items():
                if number > kept.get(subject, 0):
                    world.find(f"shown before it was committed: {key} {subject}")

    def calm(self):
        """At the end of the calm: nothing waits, nothing has grown."""
        world = self._world
        rooms = world.daemon.rooms
        if rooms.committer.pending:
            world.find(f"{rooms.committer.pending} jobs wait for the store")
        for courier in rooms.couriers:
            if courier._held or courier._unmarked:
                world.find(f"events wait for {courier.name}")
        for record in rooms.board.records.values():
            if len(record.ordinals) > 12 + 3 * len(record.tasks):
                world.find(f"{record.key} remembers {len(record.ordinals)} subjects")
        if len(world.loop._scheduled) > 2000:
            world.find(f"{len(world.loop._scheduled)} timers")
