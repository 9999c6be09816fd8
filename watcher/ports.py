"""The doors of the watcher as Protocols: what the inside needs of the outside."""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from watcher.core.errors import LeaseLost, Reason, SinkError
from watcher.core.model import (
    JobKey,
    JobRecord,
    JournalEvent,
    ListPage,
    Snapshot,
    Step,
    Transition,
)


class JobApi(Protocol):
    """The cloud API of one target."""

    @property
    def project_id(self) -> str | None:
        """Project that is asked; None until it is known."""

    @property
    def clock_skew(self) -> float:
        """Seconds that this machine's clock is ahead of the server's."""

    @property
    def locked(self) -> bool:
        """Whether requests are held back because the access key was refused."""

    @property
    def account(self) -> str | None:
        """Whose key signs the requests; None: nobody's, or not known yet."""

    @property
    def key_limit(self) -> int | None:
        """How many requests the key lets be on their way at once; None: any number."""

    async def fetch(self, job_id: str, known: Snapshot | None = None) -> Snapshot:
        """Ask for one job.

        Args:
            job_id: The job.
            known: An earlier answer; it is returned itself where the new one repeats it
                byte for byte.

        Raises:
            ApiError: No usable answer; the subclass says why.
        """

    async def list_jobs(
        self, filters: Mapping[str, str], limit: int, offset: int
    ) -> ListPage:
        """Ask for one page of jobs.

        Raises:
            ApiError: No usable answer; the subclass says why.
        """


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source of jobs said.

    Attributes:
        keys: The jobs to watch, in the order in which they are first asked; those of
            its unreadable parts as they last were.
        problems: One line for each part that could not be read.
    """

    keys: Collection[JobKey]
    problems: tuple[str, ...] = ()


class JobSource(Protocol):
    """Where job ids come from."""

    async def read(self) -> Reading:
        """Say which jobs are to be watched now."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the journal is kept.

    Attributes:
        seconds: Age of the oldest event; what a sink has not taken by then is given up.
        events: Length; undelivered events are kept beyond it.
    """

    seconds: float = 30 * 86_400.0
    events: int = 200_000


@dataclass(frozen=True, slots=True)
class Pruned:
    """What retention dropped.

    Attributes:
        events: Journal entries.
        dead_letters: Events that a sink never took, by sink.
    """

    events: int = 0
    dead_letters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fence:
    """The leases under which something is committed.

    Attributes:
        owner: Which replica holds them; nobody, where there are no leases.
        epochs: By unit of lease, how often it had changed hands when it was taken.
        units: The unit of each target.
    """

    owner: str
    epochs: Mapping[str, int] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)

    def units_of(self, targets: Collection[str]) -> frozenset[str]:
        """Return the units under whose leases a commit of these targets is made.

        Raises:
            LeaseLost: One of them is not among those held.
        """
        units = frozenset(self.units.get(name, name) for name in targets)
        if not_held := units - self.epochs.keys():
            raise LeaseLost(not_held)
        return units

    def epoch_of(self, target: str) -> int | None:
        """Return under which epoch a target is held; None: it is not.

        Where there are no leases everything is held, under 0.
        """
        if not self.owner:
            return 0
        return self.epochs.get(self.units.get(target, target))


ALWAYS_HELD = Fence(owner="")
"""The fence of a store that only one daemon can open."""


class Records(Protocol):
    """What is known of the watched jobs."""

    async def load(self, keys: Collection[JobKey]) -> Mapping[JobKey, JobRecord]:
        """Return the records known of these jobs."""

    async def known(self) -> frozenset[JobKey]:
        """Return the jobs of which there are records, watched now or not.

        Raises:
            StoreError: They cannot be read.
        """

    async def commit(
        self, steps: Sequence[Step], fence: Fence
    ) -> Sequence[JournalEvent]:
        """Write records and transitions in one transaction, durably.

        Returns:
            The transitions with their place in the journal, in order; one whose event
            id is in the journal already is left out.

        Raises:
            LeaseLost: A lease of the fence is another's, or past. Nothing was written.
            StoreError: Nothing of it was written, or it is not known whether all of it
                was: the same commit may be made again.
        """

    async def forget(self, keys: Collection[JobKey]) -> None:
        """Forget jobs that are no longer watched; the journal stays.

        What keeps their event ids apart from later ones stays as long as it does.

        Raises:
            StoreError: They are still known.
        """


class JournalReader(Protocol):
    """The committed events, for who only reads them."""

    async def read(
        self, after: int, limit: int, job_id: str | None = None
    ) -> Sequence[JournalEvent]:
        """Return events with `seq > after`, oldest first; fewer than `limit` are all.

        Raises:
            StoreError: They cannot be read.
        """

    async def grown(self, after: int) -> int:
        """Wait until the highest number given is another than `after`; return it.

        It is 0 before the first event. One below `after` tells that this is another
        journal than the one that was read. A store that cannot be read is waited for.
        """


class Journal(JournalReader, Protocol):
    """The committed events."""

    async def prune(self, now: float) -> Pruned:
        """Drop what is past retention, given in Unix seconds what time it is.

        Raises:
            StoreError: Nothing was dropped.
        """


class Outbox(Protocol):
    """Which events each sink is owed."""

    async def undelivered(
        self,
        sink: str,
        limit: int,
        held: Collection[JobKey] = (),
        targets: Collection[str] | None = None,
    ) -> Sequence[JournalEvent]:
        """Return the oldest events that a sink has not taken yet.

        Events of the jobs in `held` are left out; of other targets than `targets` too,
        unless it is None.

        Raises:
            StoreError: They cannot be read.
        """

    async def delivered(self, sink: str, seqs: Collection[int]) -> None:
        """Remember that a sink took these events.

        Raises:
            StoreError: They are still owed.
        """

    async def backlog(self, sink: str, targets: Collection[str] | None = None) -> int:
        """Count the events of these targets, or of all, that a sink has not taken yet.

        Raises:
            StoreError: They cannot be counted.
        """


class WatchList(Protocol):
    """The jobs added while running, which no configuration names."""

    async def watched(self) -> frozenset[JobKey]:
        """Return them, those of earlier lives too.

        Raises:
            StoreError: They cannot be read.
        """

    async def add(self, keys: Collection[JobKey]) -> None:
        """Remember these too.

        Raises:
            StoreError: None of them was added.
        """

    async def remove(self, keys: Collection[JobKey]) -> None:
        """Remember these no longer.

        Raises:
            StoreError: All of them are still remembered.
        """


class Notes(Protocol):
    """Small texts that outlive a restart; losing one costs time, nothing else."""

    async def note(self, name: str, text: str) -> None:
        """Keep a text in the place of an earlier one of that name.

        Raises:
            StoreError: The earlier one is still kept.
        """

    async def notes(self) -> Mapping[str, str]:
        """Return the kept texts by name.

        Raises:
            StoreError: They cannot be read.
        """


@dataclass(frozen=True, slots=True)
class LeaseTable:
    """Who holds what, as the store had it a moment ago.

    Attributes:
        holders: By unit that was ever held, its owner; None: it is free.
        replicas: How many are alive, this one included once it has renewed.
    """

    holders: Mapping[str, str | None]
    replicas: int


class Leases(Protocol):
    """Which units of work are this replica's own, among replicas that share a store.

    Any call raises StoreError where the store cannot be asked; what was asked for has
    happened or has not.
    """

    @property
    def owner(self) -> str:
        """Name of this replica, another one at each start."""

    async def renew(self) -> Mapping[str, int]:
        """Extend all that this replica holds, and be counted among those alive.

        Returns:
            By unit its epoch. What is in it is held for a whole lease from when it was
            asked for, even where it had run out and nobody came; nothing else is held.
        """

    async def take(
        self, units: Mapping[str, Collection[str]], most: int
    ) -> Mapping[str, int]:
        """Take up to `most` of these units that are free; waits for nobody.

        One with a target that is part of another unit, which somebody holds, is not.

        Args:
            units: By name of a unit its targets.
            most: How many to take at most.

        Returns:
            By unit that was free and is held now, its new epoch.
        """

    async def release(self, units: Collection[str]) -> None:
        """Let go of what is held of these, for anybody to take at once."""

    async def leave(self) -> None:
        """Let go of everything, and be counted no more."""

    async def owners(self) -> LeaseTable:
        """Return who holds what."""


class Store(Records, Journal, Outbox, WatchList, Notes, Protocol):
    """All that is kept over restarts, for who puts the daemon together."""

    @property
    def leases(self) -> Leases | None:
        """Where several replicas share the store; None: every lease is one's own."""


class Postponed(SinkError):  # noqa: N818
    """A sink took nothing and said when to come back.

    Attributes:
        retry_after: Seconds to wait at least.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Mendable(SinkError):  # noqa: N818
    """A sink refused, until somebody mends an address or a permission.

    It says nothing of other jobs: these are offered as if nothing had happened.
    """


class Undeliverable(SinkError):  # noqa: N818
    """A sink refused for ever; what it was offered is given up.

    Attributes:
        status_code: HTTP status, where there is one.
    """

    def __init__(self, message: str, *, status_code: int | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code


class Sink(Protocol):
    """A receiver that is told of each transition."""

    @property
    def name(self) -> str:
        """Name of the sink; its delivery state is kept under it."""

    @property
    def per_job(self) -> bool:
        """Whether it takes one event at a time, so that one job can fail alone.

        Otherwise it takes whole batches, over all jobs, in journal order.
        """

    async def deliver(self, events: Sequence[JournalEvent]) -> None:
        """Hand over events, in order.

        Raises:
            SinkError: Not taken; the same events are offered again.
            Undeliverable: Never to be taken; they are not.
        """


class SinkState(Protocol):
    """How the delivery to one sink goes."""

    @property
    def name(self) -> str:
        """Name of the sink."""

    @property
    def backlog(self) -> int:
        """Events that it has not taken yet."""

    @property
    def undeliverable(self) -> int:
        """Events that it refused for ever."""

    delivered: int
    failed: int
    dead_lettered: int


class Whose(StrEnum):
    """Who watches a unit, as this replica last saw it."""

    HELD = "held"
    ELSEWHERE = "elsewhere"
    FREE = "free"


class LeaseState(Protocol):
    """Which units of lease there are, and whose they are."""

    @property
    def units(self) -> Mapping[str, Whose]:
        """Every unit of the settings in force."""

    losses: int


class Observer(Protocol):
    """What is told how the work goes."""

    def polled(
        self, target: str, seconds: float, lag: float, failure: Reason | None
    ) -> None:
        """Count one poll: its duration, how late it was sent, and how it ended."""

    def listed(self, target: str, failure: Reason | None) -> None:
        """Count one page of the list call, and how it ended."""

    def committed(self, seconds: float) -> None:
        """Count one commit, and how long it took."""

    def told(self, transitions: Sequence[Transition]) -> None:
        """Count what was committed, and so is told."""


class Board(Protocol):
    """The present state, for those who read it."""

    @property
    def version(self) -> int:
        """Rises with each change."""

    @property
    def records(self) -> Mapping[JobKey, JobRecord]:
        """Every job that is shown, committed state only."""

    def version_of(self, key: JobKey) -> int:
        """Return the version at which a job last changed; 0 where it never did."""

    def changed_since(self, version: int) -> Collection[JobKey] | None:
        """Return the jobs that changed or went after a version, oldest change first.

        None means that it is not known any more: begin afresh with `records`.
        """

    async def changed(self, version: int) -> None:
        """Wait until the board is newer than a version."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a page is asked.

    Attributes:
        headers: By lower-case name.
        query: First value of each parameter.
        params: What stands in the path for each `{name}` of the page's; any text.
        body: JSON that an action was sent, or nothing.
    """

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What a page answers; the body in chunks so that a large one can be streamed.

    An empty chunk sends nothing; a body without end yields one now and then, so that
    it is noticed when the reader has left. A chunk of any size is sent without a copy of
    it: one that several answers share costs what one costs.

    Attributes:
        sent: Called once the system has taken the last byte of the body; not where the
            reader left before, nor for HEAD.
    """

    body: Iterable[bytes] | AsyncIterator[bytes]
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: Callable[[], None] | None = None


class Page(Protocol):
    """A pure view of the board at one path."""

    @property
    def parameters(self) -> Collection[str]:
        """What may stand in the query; a request with anything else is refused."""

    @property
    def path(self) -> str:
        """Path that it answers; `{name}` stands for one segment."""

    async def respond(self, request: Request) -> Response:
        """Render the present state."""


class Action(Protocol):
    """What a request changes, or may not be shown to all: it needs the API's token."""

    @property
    def method(self) -> str:
        """POST, DELETE, or GET of what is not for everybody."""

    @property
    def path(self) -> str:
        """Path that it answers; `{name}` stands for one segment."""

    async def respond(self, request: Request) -> Response:
        """Carry it out."""
