"""Examines one target: each step once, in order, none that an earlier one made moot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import anyio
from pydantic import SecretStr

from watcher.core.errors import (
    ApiError,
    JobNotFound,
    Rejected,
    SettingsError,
    Unreachable,
)
from watcher.doctor.advice import advise, fault_of, is_about_permission, said
from watcher.doctor.asking import CarefulTargets, Case
from watcher.doctor.findings import Fault, Finding, fail, ok, skipped, warn
from watcher.doctor.proofs import advise_lack, describe, given_by, given_with
from watcher.doctor.reach import (
    Hop,
    connect,
    first_hop,
    resolve,
    silent,
    unconnected,
    unresolved,
)
from watcher.settings import schema as given

LONGEST_LOOKUP = 4.0
LONGEST_CONNECT = 4.0
LONGEST_GREETING = 4.0
LONGEST_CREDENTIALS = 7.0
LONGEST_REQUEST = 8.0
"""Seconds for each step; together less than 30."""

WARN_SKEW = 60.0
MOST_SKEW = 900.0
"""Seconds; the gateway refuses signatures that are further off.

Source: API request signing guide, "Signing".
"""


class Examination:
    """Examines a target.

    Args:
        targets: Opens it.
        name: The target's.
        target: Its settings.
        timeout: Of one request, seconds.
        environ: Where keys of the kind `chain` are looked for.

    Attributes:
        findings: What was found so far.
    """

    def __init__(
        self,
        targets: CarefulTargets,
        name: str,
        target: given.Target,
        timeout: float,
        environ: Mapping[str, str],
    ) -> None:
        self.findings: list[Finding] = []
        self._targets = targets
        self._target = target
        self._where = f"targets.{name}"
        self._environ = environ
        self._about = given_by(self._where, target.credentials.kind)
        self._dated = False
        self._asked = False
        self._outcome: ApiError | None = None
        self._answer = ""
        self._case: Case
        self._hop: Hop
        self._open(name, timeout)

    @property
    def secrets(self) -> tuple[SecretStr, ...]:
        """What must not be shown."""
        passed = self.findings[0].passed
        proof = self._case.witness.proof if passed else None
        return () if proof is None else proof.secrets

    async def run(self) -> None:
        """Take all steps."""
        reached: tuple[str, ...] = ("connection", "credentials")
        await self._step("dns", ("configuration",), self._resolve)
        await self._step("connection", ("dns",), self._connect)
        await self._step("credentials", ("configuration",), self._find_credentials)
        if self._target.project_id is None:
            await self._step("project", reached, self._find_project)
            reached = ("project",)
        await self._step("request", reached, self._judge_request)
        await self._step("clock", ("connection",), self._judge_clock)
        await self._step("permission", ("request",), self._judge_permission)

    async def _step(
        self,
        step: str,
        needs: tuple[str, ...],
        look: Callable[[], Awaitable[Finding]],
    ) -> None:
        passed = {finding.step for finding in self.findings if finding.passed}
        lacking = next((need for need in needs if need not in passed), None)
        if lacking is None:
            self.findings.append(await look())
        else:
            text = f"not looked at, because {lacking} did not pass"
            self.findings.append(skipped(step, text))

    def _open(self, name: str, timeout: float) -> None:
        try:
            self._case = self._targets.take(name, self._target, timeout)
        except SettingsError as exc:
            hint = "correct the setting; the daemon does not start with it"
            self.findings += [
                fail("configuration", each, hint, Fault.SETTINGS)
                for each in exc.findings
            ]
            return
        self._hop = first_hop(self._case.route, self._where)
        project = self._target.project_id or "to be looked up"
        text = f"{self._target.url}, project {project}"
        self.findings.append(ok("configuration", text))

    async def _resolve(self) -> Finding:
        with anyio.move_on_after(LONGEST_LOOKUP):
            return await resolve(self._hop)
        return unresolved(self._hop, f"no answer within {LONGEST_LOOKUP:g} s")

    async def _connect(self) -> Finding:
        found = silent(self._hop, LONGEST_CONNECT)
        with anyio.move_on_after(LONGEST_CONNECT):
            found = await connect(self._hop)
        return await self._greet(found) if found.passed else found

    async def _greet(self, found: Finding) -> Finding:
        error = Unreachable(
            f"{found.text}, but no answer in HTTP within {LONGEST_GREETING:g} s"
        )
        try:
            with anyio.move_on_after(LONGEST_GREETING):
                self._dated = await self._targets.greet(self._case.route)
                proxy = ", a proxy" if self._case.route.proxy else ""
                return ok("connection", f"{found.text}{proxy}; answers in HTTP")
        except Unreachable as exc:
            error = exc
        hint = f"check {self._hop.setting}, and whether a firewall cuts in"
        if self._case.route.proxy:
            hint = (
                "let the proxy in HTTPS_PROXY pass this host on; if it opens TLS, name "
                f"its authority's PEM file in {self._hop.ca_setting}"
            )
        return unconnected(error.message, hint)

    async def _find_credentials(self) -> Finding:
        error: ApiError = Unreachable(f"not had within {LONGEST_CREDENTIALS:g} s")
        try:
            with anyio.move_on_after(LONGEST_CREDENTIALS):
                proof = await self._case.witness.current()
                self._about = await given_with(proof, self._about, self._environ)
                return ok("credentials", describe(proof, self._about))
        except ApiError as exc:
            error = exc
        fault = fault_of(error)
        refused = Fault.REFUSED if fault is Fault.REFUSED else Fault.OTHER
        return fail(
            "credentials", said(error), advise_lack(error, self._about), refused
        )

    async def _ask(self) -> None:
        """Ask for something real, once."""
        if self._asked:
            return
        self._asked = True
        self._case.sent.clear()
        api, target = self._case.api, self._target
        self._outcome = Unreachable(f"no answer within {LONGEST_REQUEST:g} s")
        try:
            with anyio.move_on_after(LONGEST_REQUEST):
                if target.jobs:
                    snapshot = await api.fetch(target.jobs[0])
                    tasks = len(snapshot.tasks or ())
                    self._answer = f"job {target.jobs[0]} answers with {tasks} tasks"
                else:
                    page = await api.list_jobs({}, limit=1, offset=0)
                    known = "" if page.total is None else f" {page.total} jobs in all"
                    self._answer = f"the list call answers:{known}"
                self._outcome = None
        except ApiError as exc:
            self._outcome = exc

    async def _find_project(self) -> Finding:
        await self._ask()
        found = self._case.api.project_id
        if found is not None:
            return ok("project", f"IAM names project {found}")
        return self._failed("project", self._outcome or Unreachable("no answer"))

    async def _judge_request(self) -> Finding:
        await self._ask()
        error = self._outcome
        if error is None:
            return ok("request", self._answer)
        if isinstance(error, JobNotFound):
            text = f"the first job is not there, which proves the rest: {said(error)}"
            hint = (
                f"take {self._target.jobs[0]} out of {self._where}.jobs if it is gone"
            )
            return warn("request", text, hint)
        if is_about_permission(error):
            return ok("request", "the API answers, and knows who asks")
        if self._is_list_alone(error):
            text = f"the API answers, but not to the list call: {said(error)}"
            return warn("request", text, "set poll.mode to detail, and do not discover")
        return self._failed("request", error)

    def _is_list_alone(self, error: ApiError) -> bool:
        """Whether the service itself, past the gateway, refused to list."""
        code = error.error_code or ""
        return (
            not self._target.jobs
            and isinstance(error, Rejected)
            and error.status_code == HTTPStatus.BAD_REQUEST
            and code.startswith("ModelArts.")
        )

    def _failed(self, step: str, error: ApiError) -> Finding:
        text = said(error)
        if not self._case.sent:
            if isinstance(error, Unreachable):
                return skipped(
                    step, "not asked: another target still waits with the same key"
                )
            text = f"refused with another target, so not asked again: {text}"
        return fail(step, text, advise(error, self._about), fault_of(error))

    async def _judge_clock(self) -> Finding:
        api = self._case.api
        skew = api.clock_astray or api.clock_skew
        if not self._dated and not skew:
            return skipped("clock", "the server's answers carry no date")
        if not skew:
            return ok("clock", "this machine's clock agrees with the server's")
        side = "ahead of" if skew > 0 else "behind"
        text = f"this machine's clock is {abs(skew):.0f} s {side} the server's"
        hint = "let NTP set this machine's clock (`timedatectl`)"
        if api.clock_astray:
            text += ", which is too much to be believed"
            return fail("clock", text, hint)
        if abs(skew) > MOST_SKEW:
            text += ", which the API refuses; the daemon dates requests by the server's"
            return fail(
                "clock", text, f"{hint}; logs and durations are wrong till then"
            )
        if abs(skew) > WARN_SKEW:
            text += "; the daemon dates requests by the server's"
            return warn("clock", text, hint)
        return ok("clock", text)

    async def _judge_permission(self) -> Finding:
        error = self._outcome
        if error is None or isinstance(error, JobNotFound):
            return ok("permission", "these credentials may read jobs of this project")
        if not is_about_permission(error):
            return skipped("permission", "the refused list call says nothing about it")
        return fail("permission", said(error), advise(error, self._about))
