"""The log of requests: what a test asks afterwards about what a client did."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Request:
    """One request.

    Attributes:
        number: From 1, in the order of arrival.
        at: Unix seconds on the server's clock.
        monotonic: Seconds on the monotonic clock of this machine.
        elapsed: Real seconds since the simulator's start.
        call: One of the calls of `watcher.simulator.faults`.
        job_id: The job asked for, in the path; None for calls that name none.
        access_key: Named by the request, whether it is good or not.
        request_id: As in the answer's X-Request-Id.
        status: HTTP status of the answer; None where there is none (yet).
        fault: Kind of the fault that happened on it.
    """

    number: int
    at: float
    monotonic: float
    elapsed: float
    call: str
    job_id: str | None
    access_key: str | None
    request_id: str
    status: int | None = None
    fault: str | None = None


class RequestLog:
    """The last requests, and counts of all.

    Attributes:
        calls: Requests by call.
        statuses: Answers by HTTP status.
        faults: Faults that happened, by kind.
        in_flight: Requests that are being answered now.
        most_in_flight: The most there were at once.
    """

    def __init__(self, size: int) -> None:
        """Remember so many requests."""
        self._ring: deque[Request] = deque(maxlen=size)
        self.calls: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0

    def __iter__(self) -> Iterator[Request]:
        """Return the remembered requests in the order of arrival."""
        return iter(tuple(self._ring))

    @property
    def total(self) -> int:
        """How many there were."""
        return self.calls.total()

    def begin(self, request: Request) -> None:
        """Note a request's arrival."""
        self._ring.append(request)
        self.calls[request.call] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def answered(self, request: Request, status: int) -> None:
        """Note what a request is answered with."""
        request.status = status
        self.statuses[status] += 1

    def spoilt(self, request: Request, fault: str) -> None:
        """Note the fault that happened on a request."""
        request.fault = fault
        self.faults[fault] += 1

    def end(self) -> None:
        """Note that a request is done with."""
        self.in_flight -= 1
