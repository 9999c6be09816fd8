"""What must be told of a job, from nothing but the answers that were handed over.

Written from the contract and sharing nothing with the daemon. Where a life ended at once,
the last of its answers may or may not have been saved: then all ways in which it may have
been are followed, and one of them must explain what was told.
"""

import json
from dataclasses import dataclass, replace

ENDS = {
    "SUCCESS": "succeeded",
    "FAILED": "failed",
    "DELETE": "deleted",
    "DELETED": "deleted",
    "SKIPPED": "skipped",
}
GONE_AFTER, LAG_AFTER = 30.0, 300.0


def document(exchange):
    try:
        found = json.loads(exchange.body.decode("utf-8", "replace"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def verdict(exchange):
    """Say what an answer means for the key: `accepted`, `refused`, or None."""
    if exchange.status == 401:
        return "refused"
    if exchange.call == "detail" and read(exchange) is not None:
        return "accepted"
    found = document(exchange) or {}
    if exchange.status == 200 and isinstance(found.get("data"), list):
        return "accepted"
    return "accepted" if exchange.status == 403 and found.get("error_code") else None


def read(exchange):
    """Return what an answer says of its job: a job, "missing", or None: nothing."""
    found = document(exchange)
    if found is None:
        return None
    if exchange.status in {400, 404}:
        code = str(found.get("error_code"))
        return "missing" if code == "ModelArts.6404" else None
    if exchange.status != 200 or found.get("id") != exchange.job_id:
        return None
    status, abnormal = found.get("status"), found.get("abnormal_count")
    if not isinstance(status, str | None) or not isinstance(abnormal, int | None):
        return None
    rows = found.get("tasks")
    if rows is not None and any(not isinstance(r["status"], str) for r in rows):
        return None
    return status or None, abnormal, None if rows is None else _tasks(rows)


def _tasks(rows):
    tasks = {}
    for row in rows:
        rank = (
            float((str(row["update_at"]).isdecimal() and row["update_at"]) or 0),
            row["status"] != "PROCESSING",
        )
        if row["id"] not in tasks or tasks[row["id"]][0] <= rank:
            tasks[row["id"]] = rank, row["status"]
    return tuple((task, status) for task, (_, status) in tasks.items())


@dataclass(frozen=True)
class Lasting:
    """How long something lasts: within a life by a clock that nobody sets."""

    seconds: float
    wall: float
    life: int
    moment: float

    def seen(self, exchange):
        if exchange.life == self.life:
            gap = exchange.handed - self.moment
        else:
            gap = min(exchange.wall - self.wall, self.seconds)
        return _lasting(self.seconds + max(gap, 0.0), exchange)


def _lasting(seconds, exchange):
    return Lasting(seconds, exchange.wall, exchange.life, exchange.handed)


@dataclass(frozen=True)
class State:
    """What is known of a job; `tasks` are (id, status, lists without it)."""

    known: bool = False
    status: str | None = None
    abnormal: int | None = None
    tasks: tuple = ()
    phase: str = "unknown"
    quiet: int = 0
    lag: Lasting | None = None
    missing: int = 0
    since: Lasting | None = None

    @property
    def finished(self):
        return self.phase not in {"unknown", "active"}


def follow(state, exchange):
    """Return the next state and what it tells, in no order."""
    said = read(exchange)
    if said is None:
        return state, []
    if said == "missing":
        return _missing(state, exchange)
    status, abnormal, rows = said
    abnormal = state.abnormal if abnormal is None else abnormal
    told = []
    if not state.known:
        told.append(("job.first_seen", status))
    elif state.phase == "gone":
        told.append(("job.reappeared",))
    tasks = state.tasks if rows is None else _merged(state, dict(rows), told)
    if state.known and (abnormal or 0) != (state.abnormal or 0):
        told.append(("job.abnormal_count", state.abnormal, abnormal))
    if state.known and status != state.status:
        told.append(("job.transition", state.status, status))
    after = replace(
        state,
        known=True,
        status=status,
        abnormal=abnormal,
        tasks=tasks,
        missing=0,
        since=None,
    )
    after = _concluded(after, rows, exchange)
    if after.finished and after.phase != state.phase:
        told.append(("job.finished", after.phase))
    return after, told


def _merged(state, rows, told):
    tasks = []
    for task, before, absent in state.tasks:
        if task in rows:
            now = rows.pop(task)
            if now != before:
                told.append(("task.transition", task, before, now))
            tasks.append((task, now, 0))
        else:
            if absent + 1 == 2:
                told.append(("task.vanished", task))
            tasks.append((task, before, absent + 1))
    for task, now in rows.items():
        if state.known or now != "PROCESSING":
            told.append(("task.transition", task, None, now))
        tasks.append((task, now, 0))
    return tuple(tasks)


def _concluded(state, rows, exchange):
    listed = [status for _, status, absent in state.tasks if absent < 2]
    is_open = any(status not in ENDS for status in listed)
    telling = state.status in {"PROCESSING", "FINISHED", "DELETED"}
    quiet = state.quiet
    if telling or is_open or rows == ():
        quiet = 0
    elif rows is not None:
        quiet += 1
    lag = None
    if state.status == "FINISHED" and is_open:
        lag = state.lag.seen(exchange) if state.lag else _lasting(0.0, exchange)
    settled = (state.status == "FINISHED" and not is_open) or quiet >= 2
    settled = settled or (lag is not None and lag.seconds >= LAG_AFTER)
    phase = "active"
    if state.status == "DELETED":
        phase = "deleted"
    elif settled:
        phase = _end(listed, state.abnormal or 0)
    return replace(state, quiet=quiet, lag=lag, phase=phase)


def _end(listed, abnormal):
    if listed and all(ENDS.get(status) == "deleted" for status in listed):
        return "deleted"
    failed = abnormal > 0 or "FAILED" in listed
    return "failed" if failed else "succeeded"


def _missing(state, exchange):
    since = state.since.seen(exchange) if state.since else _lasting(0.0, exchange)
    after = replace(state, missing=state.missing + 1, since=since)
    if after.missing >= 3 and since.seconds >= GONE_AFTER and state.phase != "gone":
        return replace(after, phase="gone"), [("job.finished", "gone")]
    return after, []


def projected(event):
    """Return of a told event what the tale tells of it."""
    name = event["event"]
    match name:
        case "job.first_seen":
            return name, event["status"]
        case "task.transition":
            return name, event["task_id"], event["from"], event["to"]
        case "task.vanished":
            return name, event["task_id"]
        case "job.abnormal_count" | "job.transition":
            return name, event["from"], event["to"]
        case "job.finished":
            return name, event["phase"]
    return (name,)


def explain(happened, told):
    """Follow all that happened to a job; return None, or how far that explains it.

    Args:
        happened: In its order, (kind, exchange): `answer`; `end`, of a life that may
            have lost what came last; `afresh`, where it is watched as if new; `maybe`, where it may be.
        told: What was told, in its order, as (place, projection).
    """
    now = {(State(), 0)}
    since, last = set(now), None
    for kind, exchange in happened:
        match kind:
            case "answer":
                now = _after(now, exchange, told)
                since |= now
            case "end":
                now = set(since)
            case "afresh" | "maybe":
                fresh = {(State(), count) for _, count in since}
                now = fresh | (now if kind == "maybe" else set())
                since = set(now) | (since if kind == "maybe" else set())
            case "begin":
                since = set(now)
        last = exchange.number if exchange and now else last
    if any(count == len(told) for _, count in now):
        return None
    if not now:
        said = told[max((count for _, count in since), default=0) :]
        return f"nothing explains, after request {last}, that this was told: {said[:3]}"
    furthest = max(count for _, count in now)
    return f"told without a reason: {told[furthest]}"


def _after(now, exchange, told):
    after = set()
    for state, count in now:
        following, tells = follow(state, exchange)
        end = count + len(tells)
        wanted = [event for _, event in told[count:end]]
        if sorted(wanted, key=repr) == sorted(tells, key=repr) and all(
            place > exchange.place for place, _ in told[count:end]
        ):
            after.add((following, end))
    return after
