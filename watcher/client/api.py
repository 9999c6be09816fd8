"""The jobs API of one target, as the poller sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from watcher.client.breaker import MOST_IN_FLIGHT
from watcher.client.credentials.base import Credentials
from watcher.client.endpoint import iam_endpoint_of
from watcher.client.gateway import Gateway, Question
from watcher.client.shared import OnRequest, RequestKind, SharedClient
from watcher.client.transport import BODY_LIMIT, Route, route_to, trust_in
from watcher.core.errors import Malformed, Refusal, Rejected
from watcher.core.model import ListPage, Snapshot, check_job_id
from watcher.core.wire import MOST_TASKS, decode_job, decode_page

_PROJECT_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class ApiTarget:
    """Where the jobs are.

    Attributes:
        name: What the operator calls it.
        endpoint: Address of ModelArts, https unless it is this machine itself.
        project_id: None to look it up by the region's name.
        region: Needed where the project is looked up.
        iam_endpoint: Address of IAM; None for the region's own.
        timeout: Seconds for one request.
        body_limit: Largest answer that is read, in bytes.
        max_tasks: How many a job may have.
        max_in_flight: Requests on their way at once with one key, over all its targets.
        ca_file: PEM file of the only authorities to trust; None for the system's.
    """

    endpoint: str
    project_id: str | None = None
    region: str | None = None
    iam_endpoint: str | None = None
    timeout: float = 10.0
    body_limit: int = BODY_LIMIT
    ca_file: Path | None = None
    name: str = ""
    max_tasks: int = MOST_TASKS
    max_in_flight: int = MOST_IN_FLIGHT

    def route(self, address: str) -> Route:
        """Return the way to one of its addresses.

        Raises:
            ValueError: Credentials may not be sent to this address.
            OSError: `ca_file` cannot be read.
        """
        tls = trust_in(self.ca_file) if self.ca_file else None
        return route_to(address, self.timeout, self.body_limit, tls)


class DevServerApi:
    """Asks for the jobs of one target.

    Raises:
        ValueError: The target cannot be asked: a bad address, project or region.
        OSError: Its `ca_file` cannot be read.
    """

    def __init__(
        self,
        shared: SharedClient,
        target: ApiTarget,
        credentials: Credentials,
        on_request: OnRequest | None = None,
    ) -> None:
        self._clock = shared.clock
        self._max_tasks = target.max_tasks
        self._gateway = Gateway(
            shared,
            credentials,
            on_request or _count_nothing,
            target.name,
            target.max_in_flight,
        )
        self._route = target.route(target.endpoint)
        self._projects = ProjectLookup(self._gateway, target)

    @property
    def project_id(self) -> str | None:
        """Project that is asked; None until it is known."""
        return self._projects.known

    @property
    def clock_skew(self) -> float:
        """Seconds that this machine's clock is ahead of the server's."""
        return self._clock.skew(self._route.host)

    @property
    def clock_astray(self) -> float:
        """Seconds by which the server's date is off that is not believed, else 0.0."""
        return self._clock.astray(self._route.host)

    @property
    def locked(self) -> bool:
        """Whether requests are held back because the key was refused."""
        return self._gateway.locked

    @property
    def account(self) -> str | None:
        """Whose key signs the requests; None: nobody's, or not known yet."""
        return self._gateway.account

    @property
    def key_limit(self) -> int | None:
        """How many requests the key lets be on their way at once; None: any number."""
        return self._gateway.key_limit

    async def fetch(self, job_id: str, known: Snapshot | None = None) -> Snapshot:
        """Ask for one job.

        Args:
            job_id: The job.
            known: An earlier answer; it is returned itself where the new one repeats it
                byte for byte.

        Raises:
            ApiError: No usable answer; the subclass says why.
        """
        try:
            check_job_id(job_id)
        except ValueError:
            raise Malformed("not the id of a job, so it was not asked for") from None
        project_id = self._projects.known or await self._projects.find()
        answer = _JobAnswer(job_id, self._max_tasks, known)
        return await self._gateway.ask(
            Question(
                kind="detail",
                route=self._route,
                path=f"/v1/{project_id}/dev-servers/jobs/{job_id}",
                decode=answer.decode,
                recall=answer.recall,
                project_id=project_id,
            )
        )

    async def list_jobs(
        self, filters: Mapping[str, str], limit: int, offset: int
    ) -> ListPage:
        """Ask for one page of jobs.

        Args:
            filters: Of `id`, `name`, `type`, `status`, those to match.
            limit: Rows wanted; undocumented, so the page may have fewer.
            offset: Rows to pass over; undocumented, so it may be ignored.

        Raises:
            ApiError: No usable answer; the subclass says why.
        """
        project_id = await self._projects.find()
        return await self._gateway.ask(
            Question(
                kind="list",
                route=self._route,
                path=f"/v1/{project_id}/dev-servers/jobs",
                decode=decode_page,
                query=[*filters.items(), ("limit", limit), ("offset", offset)],
                project_id=project_id,
            )
        )


class _JobAnswer:
    """Reads the answer for one job, unless it is the known one.

    The hash of bytes is keyed anew in each process, so that no server can make two
    answers that look alike.
    """

    __slots__ = ("_digest", "_job_id", "_known", "_max_tasks")

    def __init__(self, job_id: str, max_tasks: int, known: Snapshot | None) -> None:
        self._job_id = job_id
        self._max_tasks = max_tasks
        self._known = known
        self._digest: tuple[int, int] | None = None

    def recall(self, body: bytes) -> Snapshot | None:
        self._digest = len(body), hash(body)
        known = self._known
        return known if known is not None and known.digest == self._digest else None

    def decode(self, body: bytes) -> Snapshot:
        snapshot = decode_job(body, self._job_id, self._max_tasks)
        return replace(snapshot, digest=self._digest)


class ProjectLookup:
    """Knows a target's project, or asks IAM for it once.

    Raises:
        ValueError: Not a project's id, or neither a project nor a region is given.
    """

    def __init__(self, gateway: Gateway, target: ApiTarget) -> None:
        self.known = target.project_id
        self._gateway = gateway
        self._finding = anyio.Lock()
        if target.project_id is None:
            if target.region is None:
                raise ValueError("a project or a region must be given")
            address = target.iam_endpoint or iam_endpoint_of(target.region)
            self._question = Question(
                kind="token",
                route=target.route(address),
                path="/v3/projects",
                decode=decode_projects,
                query=[("name", target.region)],
            )
        elif not _PROJECT_ID.fullmatch(target.project_id):
            raise ValueError("a project's id has 1 to 64 letters, digits or hyphens")

    async def find(self) -> str:
        """Return the project's id.

        Raises:
            ApiError: IAM does not name exactly one project.
        """
        if self.known is None:
            async with self._finding:
                if self.known is None:
                    self.known = await self._gateway.ask(self._question)
        return self.known


def decode_projects(body: bytes) -> str:
    """Read IAM's list of projects, which must hold exactly one.

    Raises:
        Malformed: Not a list of projects.
        Rejected: None, or several, are visible to these credentials.
    """
    try:
        ids = [project["id"] for project in json.loads(body)["projects"]]
    except (ValueError, RecursionError, TypeError, KeyError) as exc:
        raise Malformed("the answer of IAM is not a list of projects") from exc
    if len(ids) != 1:
        raise Rejected(
            f"{len(ids)} projects bear the region's name, so set the project's id",
            refusal=Refusal.REQUEST,
        )
    if not isinstance(ids[0], str) or not _PROJECT_ID.fullmatch(ids[0]):
        raise Malformed("IAM names a project whose id cannot be one")
    return ids[0]


def _count_nothing(_kind: RequestKind) -> None:
    """Count nothing."""
