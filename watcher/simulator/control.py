"""The door under `/_simulator/`: see the truth, change anything while it runs."""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

from watcher.simulator.answers import Answer, Document, RawRequest, good
from watcher.simulator.faults import describe
from watcher.simulator.gateway import Key
from watcher.simulator.simulation import Simulator
from watcher.simulator.timeline import JobScript, latest, phase, visible

PREFIX = "/_simulator/"
DEFAULT_LIMIT = 1000


class Control:
    """Answers the requests under `/_simulator/`."""

    def __init__(self, simulator: Simulator) -> None:
        """Control this simulator."""
        self._simulator = simulator
        self._paths: Mapping[tuple[str, str], Callable[[RawRequest], Document]] = {
            ("GET", "jobs"): self._jobs,
            ("GET", "requests"): self._requests,
            ("GET", "faults"): self._faults,
            ("PUT", "faults"): self._replace_faults,
            ("POST", "faults"): self._add_faults,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "clock"): self._clock,
            ("PUT", "clock"): self._set_clock,
            ("PUT", "credentials"): self._set_credentials,
        }

    def handle(self, request: RawRequest, remote: str) -> Answer:
        """Answer a request that comes from this address."""
        anywhere = self._simulator.options.control_from_anywhere
        if not anywhere and not _is_loopback(remote):
            return good({"error": "only this machine may ask"}, 403)
        name = request.path.removeprefix(PREFIX)
        try:
            if name.startswith("jobs/"):
                return good(self._one_job(request, name.removeprefix("jobs/")))
            answer = self._paths.get((request.method, name))
            return good(answer(request)) if answer else self._unknown()
        except KeyError as exc:
            return good({"error": f"there is no {exc.args[0]}"}, 404)
        except (ValueError, TypeError, AttributeError) as exc:
            return good({"error": str(exc)}, 400)

    def _unknown(self) -> Answer:
        paths = [f"{method} {PREFIX}{name}" for method, name in self._paths]
        jobs = [f"{method} {PREFIX}jobs/{{id}}" for method in ("GET", "POST")]
        return good({"error": "unknown", "known": [*paths, *jobs]}, 404)

    def _jobs(self, _: RawRequest) -> Document:
        jobs = self._simulator.jobs.present()
        return {"jobs": [self._state(job) for job in jobs]}

    def _one_job(self, request: RawRequest, job_id: str) -> Document:
        if request.method == "POST":
            self._patch(job_id, _read_object(request))
        jobs = self._simulator.jobs
        job = jobs.find(job_id)
        if job is None:
            raise KeyError(job_id)
        return self._state(job) | {"truth": _finite(asdict(jobs.truth(job_id)))}

    def _state(self, job: JobScript) -> Document:
        """Return what is true of a job now."""
        now = self._simulator.clock.now()
        states = visible(self._simulator.jobs.tasks(job.id), now)
        word = latest(job.changes, now)
        status = word.status if word else ""
        abnormal_count = sum(state.status == "FAILED" for _, state in states)
        return {
            "id": job.id,
            "name": job.name,
            "type": job.type,
            "status": status,
            "phase": phase(status, abnormal_count),
            "abnormal_count": abnormal_count,
            "tasks": {task.id: state.status for task, state in states},
        }

    def _patch(self, job_id: str, wanted: Document) -> None:
        jobs = self._simulator.jobs
        for task_id, change in dict(wanted.get("tasks") or {}).items():
            jobs.patch(job_id, task_id, change["status"], change.get("message"))
        if wanted.get("finish"):
            jobs.finish(job_id)
        if "status" in wanted:
            jobs.say(job_id, str(wanted["status"]))

    def _requests(self, request: RawRequest) -> Document:
        """Return counts and the newest requests, narrowed by the query."""
        query = dict(parse_qsl(request.query))
        log = self._simulator.requests
        after = int(query.get("after", 0))
        limit = int(query.get("limit", DEFAULT_LIMIT))
        chosen = [
            asdict(entry)
            for entry in log
            if entry.number > after
            and query.get("call") in {None, entry.call}
            and query.get("job_id") in {None, entry.job_id}
        ]
        return {
            "total": log.total,
            "calls": log.calls,
            "statuses": log.statuses,
            "faults": log.faults,
            "in_flight": log.in_flight,
            "most_in_flight": log.most_in_flight,
            "requests": chosen[-limit:] if limit > 0 else [],
        }

    def _faults(self, _: RawRequest) -> Document:
        rules = [
            describe(rule.fault) | {"seen": rule.seen, "applied": rule.applied}
            for rule in self._simulator.faults
        ]
        return {"faults": rules}

    def _replace_faults(self, request: RawRequest) -> Document:
        self._simulator.faults.replace(request.body.decode())
        return self._faults(request)

    def _add_faults(self, request: RawRequest) -> Document:
        self._simulator.faults.add(request.body.decode())
        return self._faults(request)

    def _clear_faults(self, request: RawRequest) -> Document:
        self._simulator.faults.clear()
        return self._faults(request)

    def _clock(self, _: RawRequest) -> Document:
        clock = self._simulator.clock
        return {
            "scenario": clock.now(),
            "speed": clock.speed,
            "skew": clock.skew,
            "wall": clock.wall(),
        }

    def _set_clock(self, request: RawRequest) -> Document:
        wanted = _read_object(request)
        clock = self._simulator.clock
        speed = wanted.get("speed")
        clock.set(
            speed=None if speed is None else float(speed),
            advance=float(wanted.get("advance", 0.0)),
        )
        clock.skew = float(wanted.get("skew", clock.skew))
        return self._clock(request)

    def _set_credentials(self, request: RawRequest) -> Document:
        wanted = _read_object(request)
        gateway = self._simulator.gateway
        if "credentials" in wanted:
            gateway.set_keys(_keys(wanted))
        if "tokens" in wanted:
            gateway.tokens = dict.fromkeys(map(str, wanted["tokens"]), math.inf)
        gateway.tokens |= dict.fromkeys(wanted.get("expired_tokens", ()), 0.0)
        return {
            "checked": gateway.keys is not None,
            "access_keys": sorted(gateway.keys or ()),
            "tokens": len(gateway.tokens),
        }


def _keys(wanted: Document) -> dict[str, Key] | None:
    if wanted["credentials"] is None:
        return None
    security_tokens = wanted.get("security_tokens", {})
    return {
        access: Key(str(secret), security_tokens.get(access))
        for access, secret in wanted["credentials"].items()
    }


def _read_object(request: RawRequest) -> Document:
    document = json.loads(request.body or b"{}")
    if not isinstance(document, dict):
        raise TypeError("the body is not a JSON object")
    return document


def _finite(value: Any) -> Any:
    """Return the value with null for what never comes."""
    match value:
        case float() if math.isinf(value):
            return None
        case dict():
            return {key: _finite(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_finite(entry) for entry in value]
        case _:
            return value


def _is_loopback(remote: str) -> bool:
    try:
        return ipaddress.ip_address(remote).is_loopback
    except ValueError:
        return False
