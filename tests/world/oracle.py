"""Judges a world once it is over: what should have been told against what was."""

import itertools
import re
from collections import defaultdict

from tests.world import tale
from watcher.core.model import JobKey

SOON = 3.0
"""Seconds for a request, a commit and a line, where all is calm."""


def judge(world):
    """Find what is wrong."""
    events = world.journal()
    _told_is_the_journal(world, events)
    _tales_hold(world, events)
    _all_are_watched(world)
    _added_are_kept(world)
    _probe_was_told(world)
    _ended_well(world)


def _told_is_the_journal(world, events):
    """Each event of the journal was told to each sink, in the journal's order."""
    committed = {event.transition.event_id: event.seq for event in events}
    if len(committed) != len(events):
        world.find("two journal entries have one id")
    for sink, story in world.stories.items():
        if sink == "log" or world.config["sinks"]:
            first = {}
            for _, _, _, event in story:
                first.setdefault(event["event_id"], event)
            _all_and_in_order(world, sink, committed, first)
            _same_each_time(world, story)


def _all_and_in_order(world, sink, committed, first):
    missing = [i for i in committed if i not in first and not world.given_up[i]]
    if missing:
        world.find(f"{len(missing)} events were never told to {sink}")
    if unknown := first.keys() - committed:
        world.find(f"told and not in the journal: {sorted(unknown)}")
    by = defaultdict(list)
    for event in first.values():
        by[event["job_id"], event["target"]].append(event["seq"])
    if any(seqs != sorted(seqs) for seqs in by.values()):
        world.find(f"{sink} was told of a job out of order")


def _same_each_time(world, story):
    known = {}
    for _, _, _, event in story:
        shown = {
            k: v
            for k, v in event.items()
            if k not in {"replayed", "timestamp", "level"}
        }
        if known.setdefault(event["event_id"], shown) != shown:
            world.find(f"told differently the second time: {event}")


def _tales_hold(world, events):
    places = {}
    for place, _, _, event in world.stories["log"]:
        places.setdefault(event["event_id"], place)
    told = defaultdict(list)
    for event in events:
        one = event.transition
        fields = {**one.fields, "event": one.event}
        place = places.get(one.event_id, world.place())
        told[one.key].append((place, tale.projected(fields)))
    happened = _happened(world)
    world.tales = {}
    for key in sorted(happened.keys() | told.keys()):
        if reason := tale.explain(happened[key], told[key]):
            world.find(f"{key.target}/{key.job_id}: {reason}")


def _watches(world, by_key, marks):
    """Add where the watching of a job began or ended; return where it ended."""
    cuts = defaultdict(list)
    taken_away = {}
    for place, life, line in world.lines:
        if line["event"] == "jobs.changed":
            for name in line["added_jobs"]:
                key = JobKey(*name.split("/"))
                # Taken away while nothing ran: forgotten by now, or not yet.
                if taken_away.get(key) != life:
                    by_key.setdefault(key, list(marks)).append((place, "maybe", None))
            for name in line["removed_jobs"]:
                key = JobKey(*name.split("/"))
                by_key.setdefault(key, list(marks)).append((place, "afresh", None))
                cuts[key].append(place)
                taken_away[key] = life
    return cuts


def _happened(world):
    """Return what happened to each job, in order."""
    answers = [e for e in world.net.exchanges if e.place and e.call == "detail"]
    keys = {JobKey(e.target, e.job_id) for e in answers}
    marks = [(place, "end" if lossy else "begin", None) for place, lossy in world.ends]
    by_key = {key: list(marks) for key in sorted(keys)}
    cuts = _watches(world, by_key, marks)
    for each in answers:
        key = JobKey(each.target, each.job_id)
        # One that left before the job was taken away says nothing after.
        if not any(each.number < cut < each.place for cut in cuts[key]):
            by_key[key].append((each.place, "answer", each))
    found = defaultdict(list)
    for key, entries in by_key.items():
        entries.sort(key=lambda entry: entry[0])
        found[key] = [(kind, exchange) for _, kind, exchange in entries]
    return found


def _all_are_watched(world):
    """In the calm each configured job that goes on is asked as often as it should be."""
    if world.calm_since is None:
        return
    poll = world.config["poll"]
    bound = poll["task_interval_max"] if poll["mode"] != "detail" else 0.0
    bound = (
        max(bound, poll["interval"], poll["task_interval"] * (poll["mode"] != "detail"))
        + SOON
    )
    for target, given in world.config["targets"].items():
        for job_id in given["jobs"]:
            _is_asked(world, target, job_id, bound)


def _added_are_kept(world):
    """What was added over HTTP and goes on is watched, whatever happened since."""
    for target, job_id in sorted(world.added):
        job = world.cloud.jobs.find(job_id)
        goes_on = job and job.changes[-1].status == "PROCESSING"
        known = world.daemon.rooms.board.watched
        there = target in world.config["targets"]
        if goes_on and there and (target, job_id) not in known:
            world.find(f"{target}/{job_id} was added and is not watched")


def _is_asked(world, target, job_id, bound):
    settled = world.calm_since + world.script["settle"]
    calm = world.calm_until - settled
    asked = [
        e.sent
        for e in world.net.exchanges
        if (e.target, e.job_id) == (target, job_id) and e.sent > settled - bound
    ]
    record = world.final_board.get((target, job_id))
    if (target, job_id) in world.daemon.rooms.board.retired:
        return
    if record is None:
        world.find(f"{target}/{job_id} is configured and not shown")
    elif any(
        event["event"] == "job.finished" and event["job_id"] == job_id
        for _, _, _, event in world.stories["log"]
    ):
        return  # it is asked again once a list shows that it runs
    elif not record.phase.finished and calm > bound and record.phase != "unknown":
        times = [settled - bound, *asked, world.calm_until]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        if max(gaps[1:], default=bound + 1) > bound:
            world.find(f"{target}/{job_id} is not asked: gaps {gaps[-5:]}, {bound} s")


def probe(world):
    """Let something happen in the calm, to see how soon it is told."""
    daemon = world.daemon
    if not daemon.up:
        world.find("not up though all is calm")
        return None
    now = world.cloud.clock.now()
    for key, record in sorted(daemon.rooms.board.records.items()):
        if record.phase != "active" or world.cloud.jobs.find(key.job_id) is None:
            continue
        for task in world.cloud.jobs.tasks(key.job_id):
            past = [change for change in task.changes if change.at <= now]
            if past and past[-1].status == "PROCESSING":
                world.cloud.jobs.patch(key.job_id, task.id, "FAILED", "probed")
                world.tell("probe", key.job_id, task.id)
                return world.loop.now, key.job_id, task.id
    return None


def _probe_was_told(world):
    if world.probe is None:
        return
    world.met("probe")
    at, job_id, task_id = world.probe
    poll = world.config["poll"]
    bound = poll["interval"] + SOON
    if poll["mode"] != "detail":
        rows = world.script["cloud"].get("dialect", {}).get("rows", "tasks")
        bound = (
            2 * poll["interval"] + SOON
            if rows == "tasks"
            else poll["task_interval_max"]
        )
        bound = max(bound, poll["task_interval"]) + SOON
    if world.calm_until - at < bound:
        return
    told = [
        moment
        for _, moment, _, event in world.stories["log"]
        if event.get("task_id") == task_id
        and event.get("to") == "FAILED"
        and event["job_id"] == job_id
        and moment >= at
    ]
    if not told or told[0] - at > bound:
        late = told[0] - at if told else "never"
        world.find(f"told late in a calm world: {late}, {bound} s are allowed")


def _ended_well(world):
    last = world.lives[-1]
    if not last.well:
        world.find("the last life did not end well")
    elif last.life.open_tasks:
        world.find(f"tasks are left: {last.life.open_tasks}")
    if any(not e.over for e in world.net.exchanges if e.life == last.life.number):
        world.find("requests are left open")


_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def check_scrape(world, text, before):
    """Hold what is served against what was seen from outside, before and since."""
    world.final_board = dict(world.daemon.rooms.board.records)
    world.calm_until = world.loop.now
    life = world.daemon.life.number
    values = {
        (name, labels): float(value) for name, labels, value in _SAMPLE.findall(text)
    }
    for target in world.config["targets"]:
        for call in ("detail", "list"):
            least, most = (
                sum((e.life, e.target, e.call) == (life, target, call) for e in some)
                for some in (before, world.net.exchanges)
            )
            name = "watcher_api_requests_total", f'target="{target}",call="{call}"'
            shown = values.get(
                name, values.get((name[0], f'call="{call}",target="{target}"'))
            )
            if shown is None or not least <= shown <= most:
                world.find(f"metrics count {shown} requests, there were {most}: {name}")
    told = sum(
        e.transition.event == "task.transition" and e.seq > world.daemon.first_seq
        for e in world.journal()
    )
    shown = sum(
        v for (name, _), v in values.items() if name == "watcher_transitions_total"
    )
    if shown != told:
        world.find(f"metrics count {shown} transitions, the journal has {told}")
