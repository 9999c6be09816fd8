"""What the operator may set: each setting is defined here, once, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    SettingsConfigDict,
)

from watcher.client.endpoint import check_endpoint, endpoint_of
from watcher.core.errors import SettingsError
from watcher.core.listing import Mode
from watcher.core.model import check_job_id
from watcher.fields import NAME, Duration, Interval, Section, Split
from watcher.ports import Retention
from watcher.sinks.kinds import AnySink

LARGEST_PORT = 65535


def listen_address(text: str) -> tuple[str, int]:
    """Split `host:port`, `[address]:port` or `:port`, which means all interfaces.

    Raises:
        SettingsError: It is none of these.
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    numeric = port.isascii() and port.isdecimal() and int(port) <= LARGEST_PORT
    if not colon or not numeric or (":" in bare and bare == host):
        raise SettingsError(
            [f"'{text[:80]}' is not an address such as 127.0.0.1:10911"]
        )
    return bare, int(port)


def _check_store(url: str) -> str:
    from watcher.store.place import check_url  # noqa: PLC0415 - others start without it

    return check_url(url)


def _check_public_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an address such as https://watcher.example.org")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must have no user, query or fragment")
    return text


HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,253}$")]
JobId = Annotated[str, AfterValidator(check_job_id)]
Pattern = Annotated[str, Field(pattern=r"^[^\x00]+$")]
Url = Annotated[str, AfterValidator(check_endpoint)]


KeyLimit = Annotated[int, Field(ge=1, le=64)]
"""Requests of an accepted key that are on their way at once."""


class NoCredentials(Section):
    """No Authorization header at all."""

    kind: Literal["none"]


class StaticCredentials(Section):
    """An access key given in the configuration."""

    kind: Literal["static"]
    access_key: str = Field(min_length=1)
    secret_key: SecretStr = Field(min_length=1)
    security_token: SecretStr | None = None
    max_in_flight: KeyLimit = 5


class ChainCredentials(Section):
    """The environment, then the profile file, then the instance metadata."""

    kind: Literal["chain"] = "chain"
    max_in_flight: KeyLimit = 5


class ProfileCredentials(Section):
    """The profile file of the official SDKs."""

    kind: Literal["profile"]
    max_in_flight: KeyLimit = 5


class MetadataCredentials(Section):
    """Temporary keys of the instance's agency."""

    kind: Literal["metadata"]
    max_in_flight: KeyLimit = 5


class TokenCredentials(Section):
    """An IAM user's password, exchanged for tokens."""

    kind: Literal["token"]
    iam_endpoint: Url | None = None
    user: str = Field(min_length=1)
    password: SecretStr = Field(min_length=1)
    domain: str = Field(min_length=1)


Credentials = Annotated[
    NoCredentials
    | StaticCredentials
    | ChainCredentials
    | ProfileCredentials
    | MetadataCredentials
    | TokenCredentials,
    Field(discriminator="kind"),
]


class Discover(Section):
    """Filters of the list call; what matches them is watched."""

    status: str | None = Field(
        "PROCESSING",
        max_length=64,
        description="status that the list call is asked for; null: any",
    )
    type: str | None = Field(
        None,
        max_length=64,
        description="job type that it is asked for",
        examples=["ASCEND_SOFTWARE_QUERY"],
    )
    name: str | None = Field(
        None,
        max_length=256,
        description="name, or a part of it, that it is asked for",
        examples=["driver-25.2"],
    )
    max_jobs: int = Field(
        10_000, ge=1, description="no more than these are watched because of the list"
    )

    @property
    def filters(self) -> dict[str, str]:
        """What the list call is asked for."""
        return self.model_dump(include={"status", "type", "name"}, exclude_none=True)


class Target(Section):
    """One project of one region, and the jobs to watch in it."""

    region: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]{1,40}$",
        description="of the endpoint `https://modelarts.<region>.myhuaweicloud.com`",
        examples=["cn-north-4"],
    )
    endpoint: Url | None = Field(
        None,
        description="overrides the region's; http:// is taken for a loopback address "
        "only",
        examples=["https://modelarts.cn-north-4.myhuaweicloud.com"],
    )
    iam_endpoint: Url | None = Field(
        None,
        description="overrides the region's `https://iam.<region>.myhuaweicloud.com`, "
        "which is asked for tokens and for an absent project_id",
        examples=["https://iam.cn-north-4.myhuaweicloud.com"],
    )
    project_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="looked up by the region's name where absent",
        examples=["0123456789abcdef0123456789abcdef"],
    )
    credentials: Credentials = Field(
        ChainCredentials(),
        description="chain: the environment, then what the machine offers; or static "
        "(access_key, secret_key), profile, metadata, token (user, password, domain), "
        "none",
    )
    jobs: Annotated[tuple[JobId, ...], Split] = Field(
        (),
        description="ids of the jobs to watch",
        examples=[["0319470a-7fad-452e-bff0-d3ba3bd83955"]],
    )
    job_files: Annotated[tuple[Pattern, ...], Split] = Field(
        (),
        description="files of ids, one a line, `#` starts a comment; wildcards; read "
        "every 2 s",
        examples=[["/etc/devserver-watcher/jobs.d/*.txt"]],
    )
    discover: Discover | None = Field(
        None,
        description="watch what the list call shows; `{}` takes all of its defaults",
    )
    ca_file: Path | None = Field(
        None,
        description="PEM file of the only authorities to trust; a replaced one is taken "
        "up without a restart",
        examples=["/etc/ssl/private-ca.pem"],
    )
    max_tasks: int = Field(
        20_000,
        ge=1,
        le=1_000_000,
        description="tasks that one job may have; an answer with more is refused as "
        "`malformed`",
    )

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.region is None and self.endpoint is None:
            raise ValueError("needs a region or an endpoint")
        if self.project_id is None and self.credentials.kind == "none":
            raise ValueError("needs a project_id where credentials.kind is none")
        if self.project_id is None and self.region is None:
            raise ValueError("needs a project_id or a region to look it up by")
        no_iam = self.region is None and self.iam_url is None
        if self.credentials.kind == "token" and no_iam:
            raise ValueError("needs a region or an iam_endpoint")
        return self

    @property
    def url(self) -> str:
        """Address of the API, without a slash at its end."""
        return (self.endpoint or endpoint_of(self.region or "")).rstrip("/")

    @property
    def iam_url(self) -> str | None:
        """Address of IAM where one is given; None for the region's own."""
        of_user = getattr(self.credentials, "iam_endpoint", None)
        return of_user or self.iam_endpoint


class Poll(Section):
    """How often, how fast and how patiently the API is asked."""

    interval: Interval = Field(
        10.0,
        description="between two looks at one active job; jitter makes it up to a tenth "
        "shorter",
    )
    requests_per_second: float = Field(
        20.0,
        gt=0,
        le=1000,
        description="ceiling for each target: no second carries more than this, a "
        "tenth of it and one",
    )
    max_in_flight: int = Field(
        16,
        ge=1,
        le=1000,
        description="for each target; signed requests also share those of their key",
    )
    timeout: Interval = Field(10.0, description="of one request")
    backoff_max: Interval = Field(
        300.0,
        description="ceiling of every pause; a longer Retry-After is honoured, up to 1h",
    )
    mode: Mode = Field(
        Mode.AUTO,
        description="detail: ask for each job; list: ask the list call what changed; "
        "auto: list where it saves half of the calls",
    )
    task_interval: Interval = Field(
        30.0,
        description="with the list call: how late a transition of a single task may be "
        "seen",
    )
    task_interval_max: Interval = Field(
        600.0,
        description="how far that may be stretched once the list has shown that its rows "
        "move with the tasks",
    )


class Finished(Section):
    """What becomes of finished jobs."""

    retention: Duration = Field(
        3600.0, description="how long a finished job stays visible, at least"
    )
    exit_when_done: bool = Field(
        False,
        description="end once there are jobs and all are finished",
    )
    linger: Duration = Field(
        60.0,
        description="with exit_when_done, where somebody scrapes: how long the end waits "
        "for a scrape of the final state, at most",
    )


class Log(Section):
    """Standard output."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning, error"
    )
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="json, console, or console on a terminal only"
    )


class Metrics(Section):
    """Which series are exposed."""

    tasks: Literal["all", "failed", "none"] = Field(
        "all",
        description="all, failed, none: which tasks get a series of their own",
    )
    max_task_series: int = Field(
        100_000, ge=0, description="above it, only failed tasks do"
    )
    failure_reasons: bool = Field(
        default=True,
        description="whether the messages of failed tasks are told, folded, at most three "
        "a job: `devserver_job_failure_info`; alerts name the reason by it",
    )
    runbook_url: Annotated[str, AfterValidator(_check_public_url)] | None = Field(
        None,
        description="where the runbooks of alerts are found, one below it named as the "
        "alert; by default the watcher serves its own, at `server.public_url`",
        examples=["https://wiki.example.org/runbooks"],
    )


class Server(Section):
    """Where pages are served."""

    listen: str = Field(
        "127.0.0.1:10911",
        pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]*):\d{1,5}$",
        description="`host:port`, `[address]:port`, or `:port` for all interfaces",
    )
    web_config_file: Path | None = Field(
        None,
        description="TLS and users, in the form of Prometheus's exporter-toolkit; users "
        "need the extra `basic-auth`",
        examples=["/etc/devserver-watcher/web.yaml"],
    )
    api_token: SecretStr | None = Field(
        None,
        min_length=1,
        description="needed by every request that changes something; without it none can",
        examples=["better in a secrets folder: server__api_token"],
    )
    max_connections: int = Field(
        1000,
        ge=16,
        le=100_000,
        description="at once, and never more than half of the files that the process may "
        "open; where all are taken, the one that has been silent longest gives way",
    )
    public_url: Annotated[str, AfterValidator(_check_public_url)] | None = Field(
        None,
        description="how people reach the pages; alerts link to it, and its name may be "
        "asked for",
        examples=["https://watcher.example.org"],
    )
    allowed_hosts: Annotated[tuple[HostName, ...], Split] = Field(
        (),
        description="further names by which the pages may be asked for, without ports; "
        "`localhost`, the name in `server.listen` and every address always may",
        examples=[["watcher.monitoring.svc"]],
    )

    @property
    def names(self) -> frozenset[str]:
        """The names, in lower case, by which the pages may be asked for."""
        public = urlsplit(self.public_url or "").hostname
        named = (*self.allowed_hosts, self.address[0], public)
        return frozenset(name.lower() for name in named if name)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; an empty host means all interfaces."""
        return listen_address(self.listen)


class Store(Section):
    """Where records and journal are kept."""

    url: Annotated[str, AfterValidator(_check_store)] = Field(
        "sqlite:///watcher.db",
        description="relative to `$STATE_DIRECTORY` where set, else the working folder; "
        "`sqlite:////absolute/path.db`; `postgresql://user@host/database`, which several "
        "replicas may share; `memory:`",
    )
    password: SecretStr | None = Field(
        None,
        min_length=1,
        description="of PostgreSQL; without it libpq looks in `$PGPASSWORD` and "
        "`$PGPASSFILE`",
        examples=["better in a secrets folder: store__password"],
    )

    @model_validator(mode="before")
    @classmethod
    def _part_password(cls, given: object) -> object:
        """Keep the password of a URL apart, so that the URL may be shown."""
        if not isinstance(given, Mapping) or "url" not in given:
            return given
        if given.get("password") is not None:
            return given
        from watcher.store.place import parted  # noqa: PLC0415 - others start without it

        url, password = parted(given["url"])
        return (
            given if password is None else {**given, "url": url, "password": password}
        )


class Replica(Section):
    """How several replicas share a store."""

    lease: Annotated[Interval, Field(ge=5, le=300)] = Field(
        15.0,
        description="how long what a replica watches stays its own once it cannot say "
        "so any more, 5s to 5m; another one takes it over then",
    )


class Journal(Section):
    """How much of the journal is kept."""

    max_age: Interval = Field(
        Retention().seconds,
        description="how long events are kept; what a sink has not taken by then is "
        "given up",
    )
    max_events: int = Field(
        Retention().events,
        ge=1,
        le=1_000_000_000,
        description="how many events are kept; those that a sink has not taken yet are "
        "kept beyond it",
    )


class Settings(BaseSettings):
    """All settings, checked and frozen."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True
    )

    targets: dict[Annotated[str, Field(pattern=f"^{NAME}$")], Target] = Field(
        min_length=1
    )
    poll: Poll = Poll()
    finished: Finished = Finished()
    log: Log = Log()
    metrics: Metrics = Metrics()
    server: Server = Server()
    store: Store = Store()
    journal: Journal = Journal()
    replica: Replica = Replica()
    sinks: tuple[AnySink, ...] = Field(
        (),
        description="receivers of events, each of a kind and a name of its own",
        examples=[[{"kind": "webhook", "url": "https://example.com/hook"}]],
    )

    @field_validator("sinks")
    @classmethod
    def _named_apart(cls, sinks: tuple[AnySink, ...]) -> tuple[AnySink, ...]:
        names = ["log", *(sink.name for sink in sinks)]
        if len(set(names)) < len(names):
            raise ValueError(
                "several sinks bear the same name (log is taken); give each its own"
            )
        return sinks


def secrets_in(value: object) -> Iterator[SecretStr]:
    """Yield all secrets in settings, however deep."""
    match value:
        case SecretStr():
            yield value
        case BaseModel():
            yield from secrets_in([each for _, each in value])
        case Mapping():
            yield from secrets_in(list(value.values()))
        case list() | tuple():
            for each in value:
                yield from secrets_in(each)
        case _:
            return
