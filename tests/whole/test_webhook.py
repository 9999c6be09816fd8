"""A receiver that fails, hangs and closes at random, of a daemon that is killed."""

import base64
import hashlib
import hmac
import json
import os
import random
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from aiohttp import web

from tests.whole.daemon import target
from tests.whole.lives import (
    check_story,
    end_well,
    journal,
    kill_often,
    nursery,
    summary,
)
from tests.whole.unrest import OPTIONS, Unrest
from watcher.simulator import simulate

KILLS = int(os.environ.get("WATCHER_KILLS", "200")) // 4
KEY = b"a key of the receiver's own: 32."
PAUSE = 1.0
GRACE = 0.3
"""Seconds; what was on its way when the receiver asked for a pause may still arrive."""
FIRST_RETRY = 0.5
POLL = {"interval": "250ms", "requests_per_second": 200, "mode": "detail"}
MOODS = {
    "take": 60,
    "500": 8,
    "404": 4,
    "hang": 4,
    "close": 6,
    "take and close": 6,
    "pause": 3,
}


@dataclass
class Arrival:
    """One POST: what it held, and what the receiver made of it."""

    at: float
    life: int
    mood: str
    headers: dict
    raw: bytes

    @property
    def taken(self):
        return self.mood.startswith("take")

    @property
    def data(self):
        return json.loads(self.raw)["data"]


class Receiver:
    """Does as its mood is; `arrivals` is what came."""

    def __init__(self, draw):
        self.arrivals = []
        self.taken = set()
        self.story = None
        self.moody = True
        self._draw = draw

    async def handle(self, request):
        mood = "take"
        if self.moody:
            (mood,) = self._draw.choices(list(MOODS), list(MOODS.values()))
        raw = await request.read()
        life = len(self.story.lives)
        arrival = Arrival(time.monotonic(), life, mood, dict(request.headers), raw)
        self.arrivals.append(arrival)
        if arrival.taken:
            self.taken.add(arrival.headers["webhook-id"])
        match mood:
            case "500" | "404":
                return web.Response(status=int(mood))
            case "hang":
                await anyio.sleep(5.0)
            case "pause":
                headers = {"Retry-After": f"{PAUSE:.0f}"}
                status = self._draw.choice([429, 503])
                return web.Response(status=status, headers=headers)
            case "close" | "take and close":
                request.transport.abort()
        return web.Response(status=204)


@asynccontextmanager
async def receiving(draw):
    receiver = Receiver(draw)
    runner = web.ServerRunner(
        web.Server(receiver.handle, access_log=None), shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        receiver.url = f"http://{host}:{port}/hook"
        yield receiver
    finally:
        await runner.cleanup()


async def test_each_event_arrives_in_the_order_of_its_job(tmp_path, capsys):
    draw = random.Random(3)
    async with receiving(draw) as receiver, simulate(OPTIONS) as sim:
        prod = target(sim.url, sim.job_ids, credentials={"kind": "none"})
        hook = {
            "kind": "webhook",
            "url": receiver.url,
            "secret": f"whsec_{base64.b64encode(KEY).decode()}",
            "timeout": "1s",
        }
        values = {"targets": {"prod": prod}, "poll": POLL, "sinks": [hook]}
        async with nursery(tmp_path, values, seed=3) as lives:
            receiver.story = lives.story
            unrest = Unrest(sim, lives.story, seed=3)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(unrest.run)
                fell = await kill_often(lives, KILLS, draw)
                receiver.moody = False
                await end_well(lives, unrest, lambda: _all_taken(receiver, tmp_path))
            before = len(receiver.arrivals)
            await end_well(lives)
        events = journal(tmp_path)
        replays = check_story(lives.story, events)
        unrest.check(lives.story.told())
    assert len(receiver.arrivals) == before, "nothing is left for the next life"
    again = check_arrivals(receiver.arrivals, events)
    check_patience(receiver.arrivals)
    moods = {mood: sum(a.mood == mood for a in receiver.arrivals) for mood in MOODS}
    with capsys.disabled():
        print(f"\n{summary(lives.story, replays)}\nkills: {dict(fell)}")
        print(f"{before} posts {moods}, {again} of them of an event taken before")


def _all_taken(receiver, folder):
    return len(receiver.taken) == len(journal(folder))


def check_arrivals(arrivals, events):
    """Hold what came against the journal; return how often it had been taken before."""
    of_job = defaultdict(list)
    for event in events:
        of_job[event.transition.key.job_id].append(event.seq)
    pauses = [arrival for arrival in arrivals if arrival.mood == "pause"]
    taken, first_taken, again = defaultdict(set), {}, 0
    for arrival in arrivals:
        _check_signature(arrival)
        data = arrival.data
        job_id, seq = data["job_id"], data["seq"]
        assert arrival.headers["webhook-id"] == data["event_id"]
        assert {s for s in of_job[job_id] if s < seq} <= taken[job_id]
        again += seq in first_taken
        if first_taken.get(seq, arrival.life) < arrival.life:
            assert data["replayed"] is True
        for pause in pauses:
            if pause.life == arrival.life:
                later = arrival.at - pause.at
                assert not GRACE < later < PAUSE - 0.01, "a pause was asked for"
        if arrival.taken:
            taken[job_id].add(seq)
            first_taken.setdefault(seq, arrival.life)
    assert taken == {job_id: set(seqs) for job_id, seqs in of_job.items()}
    return again


def check_patience(arrivals):
    """A job whose event was refused rests, unless it was the receiver that was down."""
    last, waits = {}, []
    for arrival in arrivals:
        key = arrival.life, arrival.headers["webhook-id"]
        if key in last:
            waits.append(arrival.at - last[key])
        last[key] = arrival.at
    assert sum(wait < FIRST_RETRY for wait in waits) < len(waits) / 5


def _check_signature(arrival):
    head = f"{arrival.headers['webhook-id']}.{arrival.headers['webhook-timestamp']}."
    digest = hmac.digest(KEY, head.encode() + arrival.raw, hashlib.sha256)
    expected = f"v1,{base64.b64encode(digest).decode()}"
    assert arrival.headers["webhook-signature"] == expected
    assert abs(int(arrival.headers["webhook-timestamp"]) - time.time()) < 600
