"""The API as it really behaves: each kind of fault for a while, then none.

One daemon watches many targets; each has a simulator of its own, and that one fault.
"""

from collections import Counter, defaultdict
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import anyio

from tests.whole.daemon import running, target
from watcher.core.errors import Reason
from watcher.simulator import KINDS, SimulatorOptions, simulate
from watcher.simulator.distortions import HOSTILE
from watcher.simulator.gateway import Key

HELD = 3.0
SECRET, NEW_SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCY", "zq8Hk2mVtR5xNc7LpWd3BfYs9GjA"
SECRETS = (SECRET, NEW_SECRET)


@dataclass(frozen=True)
class Case:
    """A fault, and what the daemon has to make of it.

    Attributes:
        reason: Of the failed polls; None where every answer is usable.
        rekey: Whether the access key is held back until the operator gives another.
        odd: A status word that is truly told and has to be announced.
        secret: The setting that holds the secret.
        slow: Whether it shows only when a request has timed out.
    """

    fault: str
    reason: Reason | None = None
    rekey: bool = False
    odd: str | None = None
    secret: str = "secret_key"
    slow: bool = False

    @property
    def kind(self):
        return self.fault.partition(":")[0]

    @property
    def name(self):
        words = self.fault.partition(",")[0].replace("_", "-")
        tail = "-token" if self.secret == "password" else ""
        return words.replace(":", "-").replace("=", "-") + tail


CASES = (
    Case("429", Reason.THROTTLED),
    Case("429:retry_after=2", Reason.THROTTLED),
    Case("500", Reason.SERVER_ERROR),
    Case("502_html", Reason.SERVER_ERROR),
    Case("503", Reason.SERVER_ERROR),
    Case("504", Reason.SERVER_ERROR),
    Case("403", Reason.REJECTED),
    Case("404_html", Reason.MALFORMED),
    Case("404_apigw", Reason.REJECTED),
    Case("404_json", Reason.NOT_FOUND),
    Case("gone", Reason.NOT_FOUND),
    Case("302", Reason.MALFORMED),
    Case("bad_signature", Reason.REJECTED, rekey=True),
    Case("unknown_key", Reason.REJECTED, rekey=True),
    Case("expired", Reason.REJECTED, rekey=True),
    Case("locked", Reason.REJECTED, rekey=True),
    Case("token_expired", Reason.REJECTED, rekey=True),
    Case("token_expired:count=1", secret="password"),
    Case("token_expired:call=detail", Reason.REJECTED, rekey=True, secret="password"),
    Case("echo_secret", Reason.SERVER_ERROR),
    Case("echo_secret:status=401", Reason.REJECTED, rekey=True),
    Case("not_json", Reason.MALFORMED),
    Case("html_200", Reason.MALFORMED),
    Case("empty_200", Reason.MALFORMED),
    Case("wrong_id", Reason.MALFORMED),
    Case("duplicate_tasks"),
    Case("missing_tasks"),
    Case("null_tasks"),
    Case("vanish"),
    Case("flip", odd="PROCESSING"),
    Case("unknown_words", odd="QUEUED"),
    Case("wrong_types", Reason.MALFORMED),
    Case("bad_utf8"),
    Case("hostile_text"),
    Case("big_body:size=40000000", Reason.MALFORMED),
    Case("deep_nesting", Reason.MALFORMED),
    Case("truncated", Reason.UNREACHABLE),
    Case("reset", Reason.UNREACHABLE),
    Case("skewed_date"),
    Case("slow_drip", Reason.UNREACHABLE, slow=True),
    Case("hang", Reason.UNREACHABLE, slow=True),
)


OF_THE_LIST = {"stale_rows"}
"""Faults that only a list call meets; tests/polling/test_trust.py has them."""


def test_every_kind_of_fault_is_tried():
    assert {case.kind for case in CASES} == set(KINDS) - OF_THE_LIST


class Trial:
    """One case: a simulated cloud, and what the daemon says of it."""

    def __init__(self, case, folder):
        self.case = case
        self.folder = folder
        self.problem = None
        self.users = {"operator": SECRET}
        self.access_key = f"AK{case.name.upper()}"

    def options(self):
        by_password = self.case.secret == "password"
        return SimulatorOptions(
            jobs=2,
            tasks=3,
            speed=0,
            credentials=None if by_password else {self.access_key: SECRET},
            users=self.users if by_password else None,
        )

    def settings(self):
        if self.case.secret == "password":
            credentials = {
                "kind": "token",
                "iam_endpoint": self.sim.url,
                "user": "operator",
                "domain": self.case.name,
            }
        else:
            credentials = {"kind": "static", "access_key": self.access_key}
        return target(self.sim.url, self.sim.job_ids, credentials=credentials)

    def give(self, secret):
        """Put a secret where the daemon looks for it."""
        name = f"targets__{self.case.name}__credentials__{self.case.secret}"
        (self.folder / name).write_text(secret)

    def said(self, event):
        return [
            line
            for line in self.daemon.events(event)
            if line["target"] == self.case.name
        ]

    def applied(self):
        return sum(rule.applied for rule in self.sim.faults)

    def patch(self, place, status):
        self.sim.clock.set(advance=1)
        for job_id in self.sim.job_ids:
            task = self.sim.jobs.tasks(job_id)[place]
            self.sim.jobs.patch(job_id, task.id, status, f"{status} by hand")

    async def until(self, what, condition):
        try:
            await self.daemon.until(condition)
        except TimeoutError:
            raise TimeoutError(f"{self.case.fault}: {what}") from None

    async def run(self):
        """Go through it all; what is waited for in vain is noted."""
        try:
            await self._run()
        except TimeoutError as error:
            self.problem = str(error)

    async def _run(self):
        """Let tasks end before, during and after the fault."""
        case, jobs = self.case, len(self.sim.job_ids)
        await self.until("seen", lambda: len(self.said("job.first_seen")) == jobs)
        self.patch(0, "SUCCESS")
        await self.until("first", lambda: len(self.said("task.transition")) == jobs)
        self.sim.faults.replace(case.fault)
        began = anyio.current_time()
        self.patch(1, "FAILED")
        await self.until("fault", self.suffered)
        await anyio.sleep(max(0.0, began + HELD - anyio.current_time()))
        self.sim.faults.clear()
        if case.rekey:
            self.users["operator"] = NEW_SECRET
            if self.sim.gateway.keys:
                self.sim.gateway.set_keys({self.access_key: Key(NEW_SECRET)})
            self.give(NEW_SECRET)
        await self.until("recovery", self.recovered)
        self.patch(2, "SUCCESS")
        self.sim.clock.set(advance=1)
        await self.until("end", lambda: len(self.said("job.finished")) == jobs)

    @property
    def edges(self):
        """How often a failure has to be told."""
        reason = self.case.reason
        if reason is None:
            return 0
        return 1 if reason.concerns_target else len(self.sim.job_ids)

    def suffered(self):
        locked = {
            line["access_key"] for line in self.daemon.events("credentials.locked")
        }
        held = not self.case.rekey or locked & {
            self.access_key,
            f"{self.case.name}/operator",
        }
        if self.case.reason is None:
            return self.applied() >= (1 if "count" in self.case.fault else 4)
        return held and len(self.said("poll.failing")) == self.edges

    def recovered(self):
        return len(self.said("poll.recovered")) == self.edges

    def check(self, metrics):
        failures = {
            dict(name[1:])["reason"]: value
            for name, value in metrics.items()
            if name[0] == "watcher_poll_failures_total"
            and dict(name[1:])["target"] == self.case.name
            and value
        }
        assert set(failures) == ({self.case.reason} if self.case.reason else set())
        edges = [line["reason"] for line in self.said("poll.failing")]
        assert edges == [self.case.reason] * self.edges
        assert len(self.said("poll.recovered")) == self.edges
        self.check_transitions()
        skews = self.said("clock.skewed"), self.said("clock.agreed")
        assert [len(said) for said in skews] == [self.case.kind == "skewed_date"] * 2

    def check_transitions(self):
        truth = self.sim.truth()
        told = defaultdict(list)
        for line in self.said("task.transition"):
            told[line["job_id"], line["task_id"]].append((line["from"], line["to"]))
        for (job_id, task_id), steps in told.items():
            before = [step[0] for step in steps]
            after = [step[1] for step in steps]
            assert before == ["PROCESSING", *after[:-1]], "one leads to the next"
            assert after[-1] == truth[job_id].tasks[task_id]
        assert {line["phase"] for line in self.said("job.finished")} == {"failed"}
        words = Counter(
            (job_id, task_id, to)
            for (job_id, task_id), steps in told.items()
            for _, to in steps
        )
        true = Counter(
            (each.job_id, step.task_id, step.to_status)
            for each in truth.values()
            for step in each.transitions
        )
        if self.case.odd is None:
            assert words == true
        else:
            assert words > true
            assert {word for _, _, word in words - true} <= {
                self.case.odd,
                "PROCESSING",
                "SUCCESS",
            }


@asynccontextmanager
async def watched(folder, trials, timeout):
    """Run one daemon over some trials."""
    secrets = folder / "secrets"
    values = {
        "targets": {trial.case.name: trial.settings() for trial in trials},
        "poll": {"interval": "500ms", "backoff_max": "2s", "timeout": timeout},
    }
    environ = {"WATCHER_SECRETS_DIR": str(secrets)}
    async with running(folder, values, environ=environ) as daemon:
        for trial in trials:
            trial.daemon = daemon
        yield await daemon.started()


async def test_each_fault_for_a_while(tmp_path):
    folders = {True: tmp_path / "slow", False: tmp_path / "quick"}
    for folder in folders.values():
        (folder / "secrets").mkdir(parents=True)
    trials = [Trial(case, folders[case.slow] / "secrets") for case in CASES]
    async with AsyncExitStack() as stack:
        for trial in trials:
            trial.give(SECRET)
            trial.sim = await stack.enter_async_context(simulate(trial.options()))
            for job_id in trial.sim.job_ids:
                trial.sim.jobs.patch(job_id, "*", "PROCESSING")
        daemons = [
            await stack.enter_async_context(
                watched(
                    folder,
                    [trial for trial in trials if trial.case.slow is slow],
                    "2s" if slow else "10s",
                )
            )
            for slow, folder in folders.items()
        ]
        pages = await _live_through(daemons, trials)
        metrics = [await daemon.metrics() for daemon in daemons]
        for daemon in daemons:
            assert (await daemon.end())[0] == 0
    assert not [trial.problem for trial in trials if trial.problem]
    for trial in trials:
        trial.check(metrics[not trial.case.slow])
    for text in [*pages, *(daemon.output for daemon in daemons)]:
        assert not [secret for secret in SECRETS if secret in text]
    assert not any(daemon.errors for daemon in daemons)
    for daemon in daemons:
        ids = [line["event_id"] for line in daemon.lines if "event_id" in line]
        assert len(set(ids)) == len(ids)
    hostile = next(trial for trial in trials if trial.case.kind == "hostile_text")
    assert HOSTILE in {line["message"] for line in hostile.said("task.transition")}


async def _live_through(daemons, trials):
    """Run all trials; return every page that was looked at meanwhile."""
    pages = []
    async with anyio.create_task_group() as looking:
        for daemon in daemons:
            looking.start_soon(_look, daemon, pages)
        async with anyio.create_task_group() as tasks:
            for trial in trials:
                tasks.start_soon(trial.run)
        looking.cancel_scope.cancel()
    return pages


async def _look(daemon, pages):
    while True:
        status, text = await daemon.get("/healthz")
        assert status == 200, text
        pages += [(await daemon.get(path))[1] for path in ("/metrics", "/")]
        await anyio.sleep(0.5)
