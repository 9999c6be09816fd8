"""What a request may change: which jobs are watched, and the configuration in force."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from watcher.core.errors import SettingsError, StoreError
from watcher.core.model import JobKey
from watcher.pages.api.answers import answer, problem
from watcher.pages.api.jobs import JobPage, JobsPage
from watcher.ports import Request, Response


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    target: str
    job_id: str


_WANTED = msgspec.json.Decoder(_Wanted)


class AddJob:
    """Watches one more job."""

    method = "POST"
    path = JobsPage.path

    def __init__(
        self,
        add: Callable[[JobKey], Awaitable[bool]],
        check_job_id: Callable[[str], str],
    ) -> None:
        """Make the action.

        Args:
            add: Watches a job, from now on and after a restart, and says whether it is
                new; raises KeyError for an unknown target.
            check_job_id: Raises ValueError for what cannot be a job id.
        """
        self._add = add
        self._check_job_id = check_job_id

    async def respond(self, request: Request) -> Response:
        """Watch the job: 201, or 200 where it is watched already."""
        try:
            wanted = _WANTED.decode(request.body)
        except ValueError as exc:  # not UTF-8, not JSON, another shape
            return problem(400, f"body: {exc}")
        try:
            key = JobKey(wanted.target, self._check_job_id(wanted.job_id))
        except ValueError as exc:
            return problem(400, f"job_id: {exc}")
        try:
            new = await self._add(key)
        except KeyError:
            return problem(404, f"target: '{key.target[:80]}' is not configured")
        except StoreError as exc:
            return problem(503, f"the store took nothing: {exc}")
        place = JobPage.path.format(**key._asdict())
        return answer(key._asdict(), 201 if new else 200, {"Location": place})


class RemoveJob:
    """Stops watching a job that was added while running."""

    method = "DELETE"
    path = JobPage.path

    def __init__(self, remove: Callable[[JobKey], Awaitable[bool]]) -> None:
        """Make the action.

        Args:
            remove: Stops watching a job and says whether it was watched; raises
                ValueError, with the reason, where it would come back.
        """
        self._remove = remove

    async def respond(self, request: Request) -> Response:
        """Forget the job: 204, 404 where it is not watched, 409 where it must stay."""
        key = JobKey(request.params["target"], request.params["job_id"])
        try:
            known = await self._remove(key)
        except ValueError as exc:
            return problem(409, str(exc))
        except StoreError as exc:
            return problem(503, f"the store took nothing: {exc}")
        return Response([], status=204) if known else problem(404, "not watched")


class Reload:
    """Reads the configuration again."""

    method = "POST"
    path = "/-/reload"

    def __init__(self, reload: Callable[[], Awaitable[None]]) -> None:
        """Make the action; `reload` raises SettingsError and then changes nothing."""
        self._reload = reload

    async def respond(self, _: Request) -> Response:
        """Reload: 200, or 500 with what is wrong."""
        try:
            await self._reload()
        except SettingsError as exc:
            text = "the configuration cannot be used; nothing was changed"
            return answer({"error": text, "findings": exc.findings}, 500)
        return answer({"reloaded": True})
