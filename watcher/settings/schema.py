"""What the operator may set: each setting is defined here, once, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
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
from watcher.core.address import url_fault
from watcher.core.errors import SettingsError
from watcher.core.listing import Mode
from watcher.core.model import Phase, check_job_id

TARGET_NAME = r"[a-z0-9][a-z0-9-]{0,39}"
LARGEST_PORT = 65535
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def parse_duration(value: object) -> object:
    """Read `500ms`, `10s`, `1h30m` or a number of seconds as float seconds."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"'{text[:40]}' is not a duration such as 500ms, 10s or 1h30m"
        ) from None


def _split(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


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


def _check_listen(text: str) -> str:
    try:
        listen_address(text)
    except SettingsError as exc:
        raise ValueError(str(exc)) from None
    return text


Duration = Annotated[
    float, BeforeValidator(parse_duration), Field(ge=0, allow_inf_nan=False)
]
Interval = Annotated[Duration, Field(gt=0)]
JobId = Annotated[str, AfterValidator(check_job_id)]


class Section(BaseModel):
    """A part of the configuration: closed to unknown keys, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class NoCredentials(Section):
    """No Authorization header at all."""

    kind: Literal["none"]


class StaticCredentials(Section):
    """An access key given in the configuration."""

    kind: Literal["static"]
    access_key: str = Field(min_length=1)
    secret_key: SecretStr = Field(min_length=1)
    security_token: SecretStr | None = None


class ChainCredentials(Section):
    """The environment, then the profile file, then the instance metadata."""

    kind: Literal["chain"] = "chain"


class ProfileCredentials(Section):
    """The profile file of the official SDKs."""

    kind: Literal["profile"]


class MetadataCredentials(Section):
    """Temporary keys of the instance's agency."""

    kind: Literal["metadata"]


class TokenCredentials(Section):
    """An IAM user's password, exchanged for tokens."""

    kind: Literal["token"]
    iam_endpoint: Annotated[str, AfterValidator(check_endpoint)] | None = None
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

    status: str | None = Field("PROCESSING", max_length=64)
    type: str | None = Field(None, max_length=64)
    name: str | None = Field(None, max_length=256)


class Target(Section):
    """One project of one region, and the jobs to watch in it."""

    region: str | None = Field(None, pattern=r"^[a-z0-9-]{1,40}$")
    endpoint: Annotated[str, AfterValidator(check_endpoint)] | None = None
    iam_endpoint: Annotated[str, AfterValidator(check_endpoint)] | None = None
    project_id: str | None = Field(None, pattern=r"^[A-Za-z0-9-]{1,64}$")
    credentials: Credentials = ChainCredentials()
    jobs: Annotated[tuple[JobId, ...], BeforeValidator(_split)] = ()
    job_files: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    discover: Discover | None = None
    ca_file: Path | None = None
    max_tasks: int = Field(20_000, ge=1, le=1_000_000)

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

    interval: Interval = 10.0
    requests_per_second: float = Field(20.0, gt=0, le=1000)
    max_in_flight: int = Field(16, ge=1, le=1000)
    timeout: Interval = 10.0
    backoff_max: Interval = 300.0
    mode: Mode = Mode.AUTO
    task_interval: Interval = 30.0


class Finished(Section):
    """What becomes of finished jobs."""

    retention: Duration = 3600.0
    exit_when_done: bool = False


class Log(Section):
    """Standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Metrics(Section):
    """Which series are exposed."""

    tasks: Literal["all", "failed", "none"] = "all"
    max_task_series: int = Field(100_000, ge=0)


class Server(Section):
    """Where pages are served."""

    listen: str = Field(
        "127.0.0.1:10911", pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s]*):\d{1,5}$"
    )

    web_config_file: Path | None = None
    api_token: SecretStr | None = Field(None, min_length=1)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; an empty host means all interfaces."""
        return listen_address(self.listen)


class Webhook(Section):
    """A receiver of CloudEvents, signed after Standard Webhooks."""

    kind: Literal["webhook"]
    name: str = Field("webhook", pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    url: SecretStr
    secret: SecretStr | None = None
    events: Annotated[tuple[str, ...], BeforeValidator(_split)] | None = None
    phases: Annotated[tuple[Phase, ...], BeforeValidator(_split)] | None = None
    timeout: Interval = 10.0

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if fault := url_fault(self.url.get_secret_value()):
            raise ValueError(f"url {fault}")
        return self


class Store(Section):
    """Where records and journal are kept."""

    url: str = Field("sqlite:///watcher.db", pattern=r"^(sqlite:///.*[^/]|memory:)$")


class Settings(BaseSettings):
    """All settings, checked and frozen."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True
    )

    targets: dict[Annotated[str, Field(pattern=f"^{TARGET_NAME}$")], Target] = Field(
        min_length=1
    )
    poll: Poll = Poll()
    finished: Finished = Finished()
    log: Log = Log()
    metrics: Metrics = Metrics()
    server: Server = Server()
    store: Store = Store()
    sinks: tuple[Webhook, ...] = ()

    @field_validator("sinks")
    @classmethod
    def _named_apart(cls, sinks: tuple[Webhook, ...]) -> tuple[Webhook, ...]:
        names = [sink.name for sink in sinks]
        if len(set(names)) < len(names):
            raise ValueError("several sinks bear the same name; give each its own")
        return sinks
