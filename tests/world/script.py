"""Draws a script from a seed: what world it is, and what happens in it and when."""

import random

from watcher.simulator import REAL_CLOCK, Dialect, SimulatorOptions
from watcher.simulator.simulation import Simulator

PROJECT = "0123456789abcdef0123456789abcdef"
POINTS = (
    "take_in.after",
    "commit.before",
    "commit.after_write",
    "commit.after_commit",
    "deliver.before",
    "deliver.after",
)
ANSWERS = (
    "429",
    "429:retry_after=20",
    "500",
    "502_html",
    "503",
    "504",
    "403",
    "404_html",
    "404_apigw",
    "gone",
    "404_json",
    "302",
    "bad_signature",
    "not_json",
    "html_200",
    "empty_200",
    "wrong_id",
    "duplicate_tasks",
    "missing_tasks",
    "null_tasks",
    "vanish",
    "flip",
    "stale_rows",
    "unknown_words",
    "wrong_types",
    "bad_utf8",
    "hostile_text",
    "truncated",
    "slow_drip",
    "hang",
    "hang:seconds=3",
    "reset",
    "skewed_date",
)
WORDS = ("SUCCESS", "FAILED", "PROCESSING", "SKIPPED", "DELETE", "QUEUED")


def draw_script(seed, *, quiet=False):
    """Return a script; `quiet` ones are long, with many jobs and few faults."""
    draw = random.Random(f"{seed}/script")
    script = _quiet(draw) if quiet else _busy(draw)
    script["seed"] = seed
    script["most_rate"] = script["config"]["poll"]["requests_per_second"]
    script["ops"] = sorted(_ops(draw, script), key=lambda op: op[0])
    script["settle"] = _settle(script["ops"])
    poll = script["config"]["poll"]
    looks = poll["task_interval_max"] if poll["mode"] != "detail" else 30
    script["calm"] = script["settle"] + looks + 20
    return script


def _settle(ops):
    """Return after how much calm no key, gate, job or sink waits any more."""
    text = str([op for op in ops if op[1] != "config"])
    if "cloud_clock" in text:
        return 640  # each of its steps may cost a refusal for each target
    lasting = ("revoke", "clock", "receiver", "stdout", "signature", "skewed")
    return 310 if any(word in text for word in lasting) else 75


def _busy(draw):
    seconds = draw.choice([60, 60, 120, 240])
    cloud = {
        "seed": draw.randrange(10**6),
        "jobs": draw.randint(1, 6),
        "tasks": draw.randint(1, 4),
        "speed": draw.choice([1.0, 0.3, 0.1, 0.05]),
        "failing": draw.random(),
        "arrive_over": draw.choice([0.0, 0.0, 30.0]),
        "page_size": draw.choice([2, 10, 100]),
        "paging": draw.choice(["honoured", "honoured", "ignored", "refused"]),
        "clock_skew": draw.choice([0.0, 0.0, 0.0, 90.0, -400.0]),
        "keys": draw.choice([None, {"AK0": "s0"}, {"AK0": "s0", "AK1": "s1"}]),
        "dialect": {
            "rows": draw.choice(["tasks", "ends"]),
            "job_words": draw.choice(["finished", "finished", "active"]),
            "skipped": draw.choice(["SKIPPED", "DELETE"]),
        },
    }
    poll = {
        "interval": draw.choice([2, 2, 5, 10]),
        "requests_per_second": draw.choice([1, 5, 20]),
        "max_in_flight": draw.choice([2, 16]),
        "mode": draw.choice(["detail", "detail", "list", "auto"]),
        "task_interval": 30,
        "task_interval_max": draw.choice([30, 120]),
        "backoff_max": draw.choice([30, 60]),
    }
    script = {"power": draw.random() < 0.3, "cloud": cloud, "seconds": seconds}
    return _configured(draw, script, poll)


def _quiet(draw):
    hours = draw.choice([2, 6])
    cloud = {
        "seed": draw.randrange(10**6),
        "jobs": draw.choice([500, 1000]),
        "tasks": 1,
        "speed": 1e-3,
        "failing": draw.random(),
        "page_size": 1000,
        "keys": {"AK0": "s0"},
        "dialect": {"rows": "tasks"},
    }
    poll = {
        "interval": 600,
        "requests_per_second": 20,
        "max_in_flight": 16,
        "mode": "list",
        "task_interval": 3600,
        "task_interval_max": 21_600,
        "backoff_max": 600,
    }
    script = {"power": False, "cloud": cloud, "seconds": 3600 * hours}
    return _configured(draw, script, poll)


def _configured(draw, script, poll):
    cloud = script["cloud"]
    ids = Simulator(_options(cloud), REAL_CLOCK).job_ids
    names = ["a", "b", "c"][: draw.choice([1, 1, 2, 3])] if len(ids) < 100 else ["a"]
    targets = {}
    script["key_limit"] = draw.choice([1, 5, 5, 16])
    keys = list(cloud["keys"] or [])
    for place, name in enumerate(names):
        credentials = {"kind": "none"}
        if keys:
            key = keys[place % len(keys)]
            credentials = {
                "kind": "static",
                "access_key": key,
                "secret_key": cloud["keys"][key],
                "max_in_flight": script["key_limit"],
            }
        targets[name] = {
            "endpoint": f"https://{name}.cloud",
            "project_id": PROJECT,
            "credentials": credentials,
            "jobs": [i for i in ids if len(ids) > 100 or draw.random() < 0.7],
            "job_files": [f"@/jobs/{name}-*.txt"],
        }
        if draw.random() < 0.15:
            targets[name]["discover"] = {"status": "PROCESSING"}
    sinks = [{"kind": "webhook", "name": "hook", "url": "https://hook.example/x"}]
    script["config"] = {
        "targets": targets,
        "poll": poll,
        "sinks": sinks if draw.random() < 0.6 else [],
        "finished": {"retention": draw.choice([60, 3600])},
        "store": {"url": "memory:"},
    }
    return script


def _options(cloud):
    given = {k: v for k, v in cloud.items() if k not in {"keys", "dialect"}}
    return SimulatorOptions(dialect=Dialect(**cloud.get("dialect", {})), **given)


def _ops(draw, script):
    seconds = script["seconds"]
    count = draw.choice([0, 3, 8, 15, 25])
    names = draw.sample(list(OPS), draw.randint(3, 9))
    weights = [OPS[name][0] for name in names]
    for _ in range(count):
        name = draw.choices(names, weights)[0]
        op = OPS[name][1](draw, script)
        if op is not None:
            yield [round(draw.random() * seconds, 2), name, op]


def _span(draw):
    return draw.choice([5, 20, 60, 200])


def _fault(draw, _):
    kind = draw.choice(ANSWERS)
    call = draw.choice(["detail", "detail", "list", "any"])
    share = draw.choice([10, 50, 100, 100])
    text = f"{kind}{',' if ':' in kind else ':'}call={call},percent={share}"
    return {"text": text, "seconds": _span(draw)}


def _net(draw, _):
    mood = draw.choice(
        [
            {"latency": [0.2, 2.0]},
            {"latency": [1.0, 9.0]},
            {"lost": 0.1},
            {"lost": 0.5},
            {"late": 0.3},
            {"down": True},
        ]
    )
    return {"seconds": _span(draw), **mood}


def _kill(draw, script):
    op = {
        "steps": draw.choice([1, 2, 5, 20, 100]),
        "down": draw.choice([0.1, 1.0, 20.0, 70.0]),
    }
    if draw.random() < 0.5:
        op |= {"point": draw.choice(POINTS), "steps": draw.randint(1, 4)}
    if script["power"] and draw.random() < 0.5:
        op["power"] = True
    return op


def _revoke(draw, script):
    keys = list(script["cloud"]["keys"] or [])
    if not keys:
        return None
    return {"key": draw.choice(keys), "seconds": draw.choice([5, 60, 400])}


def _job(draw, script):
    return draw.randrange(script["cloud"]["jobs"])


def _patch(draw, script):
    return {
        "job": _job(draw, script),
        "task": draw.randint(-1, 3),
        "status": draw.choice(WORDS),
    }


def _say(draw, script):
    words = ["PROCESSING", "FINISHED", "DELETED", "ACTIVE", "ODD"]
    return {"job": _job(draw, script), "status": draw.choice(words)}


def _config(draw, script):
    config = script["config"]
    if draw.random() < 0.2:
        return {"change": "invalid", "asked": draw.random() < 0.5}
    target = draw.choice(list(config["targets"]))
    given = config["targets"][target]
    jobs = given["jobs"]
    change = draw.choice(
        [
            {f"targets.{target}.jobs": [i for i in jobs if draw.random() < 0.5]},
            {f"targets.{target}.jobs": jobs},
            {"poll.interval": draw.choice([2, 5, 10, 30])},
            {"poll.mode": draw.choice(["detail", "list", "auto"])},
            {f"targets.{target}": given},
            {f"targets.{target}": None} if len(config["targets"]) > 1 else {},
        ]
    )
    return {"change": change, "asked": draw.random() < 0.5}


def _job_file(draw, script):
    target = draw.choice(list(script["config"]["targets"]))
    text = "".join(f"#{_job(draw, script)}#\n" for _ in range(draw.randint(0, 3)))
    text += draw.choice(["", "", "not an id!\n", f"#{_job(draw, script)}#"])
    name = f"{target}-{draw.randint(0, 1)}.txt"
    return {"name": name, "text": draw.choice([text, text, None])}


def _http(draw, script):
    action = draw.choice(["AddJob", "AddJob", "RemoveJob"])
    target = draw.choice(list(script["config"]["targets"]))
    return {"action": action, "target": target, "job": _job(draw, script)}


OPS = {
    "fault": (6, _fault),
    "net": (3, _net),
    "disk": (
        5,
        lambda draw, _: {
            "mood": draw.choice(["slow", "slow", "full", "hangs", "true"]),
            "seconds": _span(draw),
        },
    ),
    "receiver": (
        2,
        lambda draw, _: {
            "mood": draw.choice(
                ["unsure", "500", "404", "410", "429", "hangs", "lost"]
            ),
            "seconds": _span(draw),
        },
    ),
    "stdout": (
        1,
        lambda draw, _: {
            "mood": draw.choice(["stuck", "broken"]),
            "seconds": _span(draw),
        },
    ),
    "kill": (6, _kill),
    "stop": (1, lambda draw, _: {"down": draw.choice([0.1, 5.0, 70.0])}),
    "pause": (1, lambda draw, _: {"seconds": _span(draw)}),
    "sleep": (1, lambda draw, _: {"seconds": draw.choice([60, 3600])}),
    "clock": (1, lambda draw, _: {"seconds": draw.choice([-4000, -70, 70, 400, 4000])}),
    "cloud_clock": (1, lambda draw, _: {"seconds": draw.choice([-1200, 90, 1200])}),
    "revoke": (3, _revoke),
    "patch": (9, _patch),
    "flicker": (
        5,
        lambda draw, script: {
            "job": _job(draw, script),
            "task": draw.randint(0, 3),
            "seconds": _span(draw),
        },
    ),
    "blink": (
        4,
        lambda draw, script: {
            "target": draw.choice(list(script["config"]["targets"])),
            "job": _job(draw, script),
            "gap": draw.choice([0.3, 1.0, 3.0]),
        },
    ),
    "say": (1, _say),
    "delete": (1, lambda draw, script: {"job": _job(draw, script)}),
    "config": (4, _config),
    "job_file": (2, _job_file),
    "http": (4, _http),
    "scrape": (1, lambda *_: {}),
}
"""By name, how often each kind of thing happens, and what draws it."""
