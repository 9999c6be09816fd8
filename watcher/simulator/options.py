"""Everything that can be chosen about a simulated cloud, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from watcher.simulator.faults import Fault


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which of the API's contradictory editions is spoken.

    Attributes:
        timestamps: Epoch milliseconds as integers, the same as strings of digits, or
            ISO 8601 text.
        job_words: Whether the detail call tells PROCESSING and FINISHED, or always
            ACTIVE; the list call always tells the former.
        skipped: The word for a task that was not carried out.
        rows: Whether a job's update_at and abnormal_count move with each of its tasks,
            or only when the job itself ends.
    """

    timestamps: Literal["int", "string", "iso"] = "int"
    job_words: Literal["finished", "active"] = "finished"
    skipped: Literal["SKIPPED", "DELETE"] = "SKIPPED"
    rows: Literal["tasks", "ends"] = "tasks"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """A simulated cloud. All durations are seconds.

    Attributes:
        project_id: The only project there is.
        region: Its name, for the IAM project look-up.
        seed: Chooses ids, durations and outcomes; the same seed, the same jobs.
        jobs: How many jobs the scenario has.
        tasks: Servers, and so tasks, of each of them.
        speed: Scenario seconds per real second; 0 is paused.
        failing: Share of jobs on which tasks fail.
        arrive_over: Jobs are created one after another over so many scenario seconds;
            0 means that all exist at the start.
        endless: Whether each job that ends is followed by a new one.
        dialect: Which edition of the API is spoken.
        paging: What the list call does with `limit` and `offset`.
        page_size: Rows of a page where `limit` does not say.
        credentials: Secret key by access key; None checks nothing.
        security_tokens: The token that requests of a temporary access key must carry.
        tokens: Values of X-Auth-Token that are accepted.
        expired_tokens: Values of X-Auth-Token that were once.
        users: Password by user name for the token call; None accepts everybody.
        token_lifetime: How long a token of the token call is good.
        metadata: Which protocol the ECS metadata service speaks.
        temporary_key_lifetime: How long a key of the metadata service is good.
        lock_after: Failed signatures in a row that an access key may have.
        lock_seconds: Real seconds for which one more locks it.
        rate_limit: Requests in one second per API call; None is no limit.
        retry_after: What a throttled answer says in Retry-After; None leaves it out.
        latency: Real seconds that every answer takes.
        clock_skew: How far the server's clock is ahead of this machine's.
        faults: Faults in force from the start.
        control_from_anywhere: Whether `/_simulator/` answers other machines too.
        log_size: Requests that the log remembers.
    """

    project_id: str = "0123456789abcdef0123456789abcdef"
    region: str = "cn-north-4"
    seed: int = 0
    jobs: int = 12
    tasks: int = 16
    speed: float = 1.0
    failing: float = 0.25
    arrive_over: float = 0.0
    endless: bool = False
    dialect: Dialect = field(default_factory=Dialect)
    paging: Literal["honoured", "ignored", "refused"] = "honoured"
    page_size: int = 10
    credentials: Mapping[str, str] | None = field(default=None, repr=False)
    security_tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    tokens: frozenset[str] = field(default=frozenset(), repr=False)
    expired_tokens: frozenset[str] = field(default=frozenset(), repr=False)
    users: Mapping[str, str] | None = field(default=None, repr=False)
    token_lifetime: float = 86_400.0
    metadata: Literal["v2", "v1", "off"] = "v2"
    temporary_key_lifetime: float = 86_400.0
    lock_after: int = 5
    lock_seconds: float = 300.0
    rate_limit: int | None = None
    retry_after: float | None = None
    latency: float = 0.0
    clock_skew: float = 0.0
    faults: tuple[Fault, ...] = ()
    control_from_anywhere: bool = False
    log_size: int = 200_000
