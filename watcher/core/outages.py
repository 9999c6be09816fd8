"""Which requests of a target fail and why, told on the edges only.

A reason that concerns the whole target is told once for the target, any other once for
each job; the list call has an outage of its own. The same holds for the recovery.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from watcher.core.errors import Reason
from watcher.core.model import JobKey, Level, Notice, PollFailed


class Outages:
    """The failing jobs of one target, by reason."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._reasons: dict[JobKey, Reason] = {}
        self._failing: dict[Reason, set[JobKey]] = {reason: set() for reason in Reason}
        self._list: Reason | None = None

    def __iter__(self) -> Iterator[JobKey]:
        """Return the failing jobs."""
        return iter(tuple(self._reasons))

    def of_target(self) -> Iterable[JobKey]:
        """Return the jobs that fail for a reason that concerns the whole target."""
        return [key for key, why in self._reasons.items() if why.concerns_target]

    @property
    def failing(self) -> bool:
        """Whether the list call fails, or any job for a reason of the whole target."""
        return self._list is not None or any(
            self._failing[why] for why in Reason if why.concerns_target
        )

    def failed(self, key: JobKey, failure: PollFailed, jobs: int) -> list[Notice]:
        """Take note of a failed poll.

        Args:
            key: The job that was asked.
            failure: How it failed.
            jobs: How many jobs of the target wait for an answer.
        """
        reason = failure.reason
        if self._reasons.get(key) is reason:
            return []
        notices = self._leave(key)
        first = not self._failing[reason]
        self._reasons[key] = reason
        self._failing[reason].add(key)
        if reason.concerns_target and not first:
            return notices
        fields = {**self._subject(key, reason), **_details(failure)}
        if reason.concerns_target:
            fields["jobs"] = jobs
        return [*notices, Notice("poll.failing", Level.WARNING, fields)]

    def list_failed(self, failure: PollFailed) -> list[Notice]:
        """Take note of a list call without a good answer."""
        if self._list is failure.reason:
            return []
        notices = self.list_succeeded()
        self._list = failure.reason
        fields = {**self._list_subject(failure.reason), **_details(failure)}
        return [*notices, Notice("poll.failing", Level.WARNING, fields)]

    def list_succeeded(self) -> list[Notice]:
        """Take note of a good answer to a list call, or that none is asked any more."""
        reason, self._list = self._list, None
        if reason is None:
            return []
        return [Notice("poll.recovered", Level.INFO, self._list_subject(reason))]

    def succeeded(self, key: JobKey) -> list[Notice]:
        """Take note of a good answer."""
        return self._leave(key)

    def forget(self, key: JobKey) -> None:
        """Drop a job that is no longer asked."""
        self._leave(key)

    def _leave(self, key: JobKey) -> list[Notice]:
        reason = self._reasons.pop(key, None)
        if reason is None:
            return []
        self._failing[reason].discard(key)
        if reason.concerns_target and self._failing[reason]:
            return []
        return [Notice("poll.recovered", Level.INFO, self._subject(key, reason))]

    def _subject(self, key: JobKey, reason: Reason) -> dict[str, object]:
        subject: dict[str, object] = {"target": self._target}
        if not reason.concerns_target:
            subject["job_id"] = key.job_id
        return {**subject, "reason": reason}

    def _list_subject(self, reason: Reason) -> dict[str, object]:
        return {"target": self._target, "call": "list", "reason": reason}


def _details(failure: PollFailed) -> dict[str, object]:
    return {
        "status_code": failure.status_code,
        "error_code": failure.error_code,
        "error_msg": failure.error_msg,
        "request_id": failure.request_id,
    }
