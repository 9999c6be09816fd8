"""The simulated cloud as one object: the parts, and what one request does to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import NamedTuple

from watcher.simulator.answers import Answer, RawRequest, error, unknown_api
from watcher.simulator.canned import CANNED, Incident
from watcher.simulator.clock import Clock, ScenarioClock
from watcher.simulator.distortions import DISTORTIONS, distort
from watcher.simulator.faultbook import FaultBook, Rule
from watcher.simulator.gateway import Gateway
from watcher.simulator.identity import Identity
from watcher.simulator.jobs import Jobs
from watcher.simulator.options import SimulatorOptions
from watcher.simulator.requests import Request, RequestLog
from watcher.simulator.scenario import Scenario
from watcher.simulator.service import Service
from watcher.simulator.signature import read_claim
from watcher.simulator.timeline import JobTruth

SKEWED_DATE = 3600.0

_NOT_JOB_IDS = {"", "templates", "services"}
_PATHS = {
    ("POST", "/v3/auth/tokens"): "token",
    ("GET", "/v3/projects"): "projects",
    ("PUT", "/meta-data/latest/api/token"): "metadata_token",
    ("GET", "/openstack/latest/securitykey"): "metadata_key",
}
_JOBS_METHODS = {"GET": "list", "POST": "create", "DELETE": "delete"}
_OPEN_CALLS = {"token", "metadata_token", "metadata_key"}


class Route(NamedTuple):
    """What a request asks for."""

    call: str
    project_id: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a request.

    Attributes:
        rule: The fault that happens on it, its delivery included.
    """

    answer: Answer
    headers: Mapping[str, str]
    request: Request
    rule: Rule | None


def route(method: str, path: str) -> Route:
    """Return what a method and path ask for."""
    call = _PATHS.get((method, path))
    if call is not None:
        return Route(call)
    match path.split("/"):
        case ["", "v1", project_id, "dev-servers", "jobs"] if method in _JOBS_METHODS:
            return Route(_JOBS_METHODS[method], project_id)
        case ["", "v1", project_id, "dev-servers", "jobs", job_id] if (
            method == "GET" and job_id not in _NOT_JOB_IDS
        ):
            return Route("detail", project_id, job_id)
        case _:
            return Route("unknown")


class Simulator:
    """A simulated cloud, and what a program asks and tells it.

    Attributes:
        clock: Its time; can be paused, sped up, advanced and skewed.
        jobs: Its jobs; can be created, changed and deleted by hand.
        gateway: What checks credentials.
        faults: The faults in force; can be changed at any time.
        requests: What was asked of it.
        url: Address of the server in front of it, without a slash at its end.
    """

    def __init__(self, options: SimulatorOptions, clock: Clock) -> None:
        """Start at scenario second 0."""
        self.options = options
        self.url = ""
        self.clock = ScenarioClock(clock, speed=options.speed, skew=options.clock_skew)
        scenario = Scenario(
            seed=options.seed,
            jobs=options.jobs,
            tasks=options.tasks,
            failing=options.failing,
            arrive_over=options.arrive_over,
            skipped=options.dialect.skipped,
        )
        self.jobs = Jobs(scenario, self.clock, endless=options.endless)
        self.gateway = Gateway(options, self.clock.wall, self.clock.elapsed)
        self.faults = FaultBook(options.faults, options.seed)
        self.requests = RequestLog(options.log_size)
        self._calls = _calls(
            Service(options, self.jobs, self.clock),
            Identity(options, self.gateway, self.clock.wall),
        )
        self._draw = random.Random(f"{options.seed}/requests")  # noqa: S311

    @property
    def job_ids(self) -> tuple[str, ...]:
        """The ids of all jobs, oldest first, those still to come included."""
        return self.jobs.ids

    def truth(self) -> dict[str, JobTruth]:
        """Tell all that happens to every job, by job id; slow for thousands of jobs."""
        return {job_id: self.jobs.truth(job_id) for job_id in self.jobs.ids}

    def handle(self, raw: RawRequest) -> Outcome:
        """Decide what becomes of a request, and note it in the log."""
        asked = route(raw.method, raw.path)
        request = self._note(raw, asked)
        elapsed, now = self.clock.elapsed(), self.clock.now()
        rule = self.faults.pick(asked.call, asked.job_id, elapsed, now)
        answer = self._answer(raw, asked, request, rule)
        if rule is not None and rule.fault.kind in DISTORTIONS:
            spoilt = distort(rule.fault.kind, answer) if asked.project_id else None
            rule = rule if spoilt else None
            answer = spoilt or answer
        if rule is not None:
            rule.applied += 1
            self.requests.spoilt(request, rule.fault.kind)
        return Outcome(answer, self._headers(answer, request, rule), request, rule)

    def _answer(
        self, raw: RawRequest, asked: Route, request: Request, rule: Rule | None
    ) -> Answer:
        if rule is not None and rule.fault.kind in CANNED:
            key = request.access_key or ""
            secret = self.gateway.secret_of(key)
            incident = Incident(rule.fault, raw, asked.job_id or "", key, secret)
            return CANNED[rule.fault.kind](incident)
        refusal = self._refusal(raw, asked)
        return refusal or self._calls[asked.call](raw, asked.job_id or "")

    def _refusal(self, raw: RawRequest, asked: Route) -> Answer | None:
        if asked.call in _OPEN_CALLS or asked.call == "unknown":
            return None
        refusal = self.gateway.throttle(asked.call) or self.gateway.authenticate(raw)
        if refusal is None and asked.project_id not in {None, self.options.project_id}:
            return error(403, "APIGW.0302", "The project is not the IAM user's own.")
        return refusal

    def _note(self, raw: RawRequest, asked: Route) -> Request:
        claim = read_claim(raw.headers.get("authorization", ""))
        request = Request(
            number=self.requests.total + 1,
            at=self.clock.wall(),
            monotonic=self.clock.monotonic(),
            elapsed=self.clock.elapsed(),
            call=asked.call,
            job_id=asked.job_id,
            access_key=claim.access_key if claim else None,
            request_id=f"{self._draw.getrandbits(128):032x}",
        )
        self.requests.begin(request)
        return request

    def _headers(
        self, answer: Answer, request: Request, rule: Rule | None
    ) -> dict[str, str]:
        wall = self.clock.wall()
        if rule is not None and rule.fault.kind == "skewed_date":
            seconds = rule.fault.seconds
            wall += SKEWED_DATE if seconds is None else seconds
        return {
            "Content-Type": answer.content_type,
            "Date": formatdate(wall, usegmt=True),
            "Server": "api-gateway",
            "X-Request-Id": request.request_id,
            **answer.headers,
        }


def _calls(
    service: Service, identity: Identity
) -> Mapping[str, Callable[[RawRequest, str], Answer]]:
    """Return what answers each call, given the request and its job id."""
    return {
        "detail": lambda _, job_id: service.detail(job_id),
        "list": lambda raw, _: service.page(raw.query),
        "create": lambda raw, _: service.create(raw.body),
        "delete": lambda raw, _: service.delete(raw.body),
        "token": lambda raw, _: identity.token(raw),
        "projects": lambda raw, _: identity.projects(raw),
        "metadata_token": lambda raw, _: identity.metadata_token(raw),
        "metadata_key": lambda raw, _: identity.metadata_key(raw),
        "unknown": lambda _, __: unknown_api(),
    }
