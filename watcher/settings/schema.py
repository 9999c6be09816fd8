"""What the operator may set: each setting is defined here, once, and nowhere else.

A setting may come from a command-line flag, an environment variable, a file in the
secrets folder or the configuration file, in this order of precedence. All but the file
give text; one function, `nest`, turns such text into the same shape that the file has.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from watcher.client.endpoint import check_endpoint, endpoint_of
from watcher.core.address import url_fault
from watcher.core.errors import SettingsError
from watcher.core.listing import Mode
from watcher.core.model import Phase

PREFIX = "WATCHER_"
DELIMITER = "__"
SECRETS_FOLDERS = (PREFIX + "SECRETS_DIR", "CREDENTIALS_DIRECTORY")
TARGET_NAME = r"[a-z0-9][a-z0-9-]{0,39}"
JOB_ID = r"[A-Za-z0-9_-]{1,64}"
LARGEST_PORT = 65535
NOT_JOB_IDS = frozenset({"templates", "services"})
_NOT_SETTINGS = re.compile(
    # The last two: what Kubernetes sets in every Pod beside a Service named `watcher`.
    r"CONFIG|SECRETS_DIR|SERVICE_(HOST|PORT)(_.*)?|PORT(_.*)?"
)
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


def check_job_id(value: str) -> str:
    """Return a job id, or raise ValueError where the API could not have made it."""
    if not re.fullmatch(JOB_ID, value) or value in NOT_JOB_IDS:
        raise ValueError(f"'{value[:80]}' is not a job id ({JOB_ID})")
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


class _Given(PydanticBaseSettingsSource):
    """A source that was read already."""

    def __init__(self, cls: type[BaseSettings], values: Mapping[str, Any]) -> None:
        super().__init__(cls)
        self._values = dict(values)

    def get_field_value(self, _: object, field_name: str) -> tuple[Any, str, bool]:
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


def load(
    values: Mapping[str, Any],
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Put the settings together from all their places and check them.

    Args:
        values: What the configuration file says, as `read_file` returns it.
        flags: Text by dotted path, such as `poll.interval`.
        environ: The environment.

    Raises:
        SettingsError: One finding a line; nothing was opened or started.
    """
    sources = (
        nest((path.split("."), text) for path, text in (flags or {}).items()),
        nest(_from_environment(environ)),
        nest(_from_secrets(environ)),
        dict(values),
    )

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls, *_: object, **__: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(_Given(cls, values) for values in sources)

    try:
        return Layered()
    except ValidationError as exc:
        raise SettingsError(findings(exc)) from None


def nest(pairs: Iterable[tuple[list[str], str]]) -> dict[str, Any]:
    """Turn (path, text) pairs into the nested shape of the configuration file."""
    tree: dict[str, Any] = {}
    for path, text in pairs:
        *parents, leaf = _spell(path)
        branch = tree
        for name in parents:
            if not isinstance(branch.get(name), dict):
                branch[name] = {}
            branch = branch[name]
        branch[leaf] = _plain(text)
    return tree


def _spell(path: list[str]) -> list[str]:
    if path[0] == "targets" and len(path) > 1:
        return [path[0], path[1].replace("_", "-"), *path[2:]]
    return path


def _plain(text: str) -> object:
    if text.lstrip()[:1] in {"{", "["} or text in {"null", ""}:
        try:
            return json.loads(text or "null")
        except ValueError:
            return text
    return text


def _from_environment(environ: Mapping[str, str]) -> Iterable[tuple[list[str], str]]:
    for name, text in environ.items():
        setting = name.upper().removeprefix(PREFIX)
        if setting != name.upper() and not _NOT_SETTINGS.fullmatch(setting):
            yield setting.lower().split(DELIMITER), text


@dataclass(frozen=True, slots=True)
class Origin:
    """Where settings come from, so that they can be read again.

    Attributes:
        config: The configuration file, or None.
        flags: Text by dotted path.
        values: What stands in for a file where there is none.
    """

    config: Path | None
    flags: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def load(self) -> Settings:
        """Read the settings as they are now.

        Raises:
            SettingsError: One finding a line.
        """
        values = read_file(self.config) if self.config else self.values
        return load(values, self.flags, self.environ)

    def fingerprint(self) -> Hashable:
        """Return what changes when a file that settings come from does."""
        files = [self.config] if self.config else []
        for variable in SECRETS_FOLDERS:
            if self.environ.get(variable):
                with suppress(OSError):
                    files += sorted(Path(self.environ[variable]).iterdir())
        return tuple(_state(file) for file in files)


def _state(file: Path) -> Hashable:
    try:
        found = file.stat()
    except OSError:
        return file, None
    return file, found.st_mtime_ns, found.st_size, found.st_ino


def config_file(
    given: Path | None, environ: Mapping[str, str] = os.environ
) -> Path | None:
    """Return the file to read: the one given, or that of `WATCHER_CONFIG`, or none."""
    named = environ.get(PREFIX + "CONFIG")
    return given or (Path(named) if named else None)


def _from_secrets(environ: Mapping[str, str]) -> Iterable[tuple[list[str], str]]:
    for variable in SECRETS_FOLDERS:
        if not environ.get(variable):
            continue
        try:
            files = sorted(Path(environ[variable]).iterdir())
            for file in files:
                if DELIMITER in file.name and file.is_file():
                    setting = file.name.upper().removeprefix(PREFIX)
                    yield setting.lower().split(DELIMITER), file.read_text().strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError([f"{variable}: {_reading(exc)}"]) from None


def read_file(file: Path | None) -> dict[str, Any]:
    """Read a configuration file without judging it.

    Raises:
        SettingsError: It cannot be read or is not a YAML mapping.
    """
    if file is None:
        return {}
    try:
        values = yaml.safe_load(file.read_text())
    except yaml.MarkedYAMLError as exc:
        line = f":{exc.problem_mark.line + 1}" if exc.problem_mark else ""
        raise SettingsError([f"{file}{line}: not YAML: {exc.problem}"]) from None
    except (OSError, ValueError, yaml.YAMLError) as exc:
        raise SettingsError([f"{file}: {_reading(exc)}"]) from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        raise SettingsError([f"{file}: not a mapping of settings"])
    return values


def _reading(exc: Exception) -> str:
    return exc.strerror or "" if isinstance(exc, OSError) else "not readable as text"


def findings(exc: ValidationError) -> list[str]:
    """Write one line for each finding: the setting's path and what is wrong."""
    return [
        f"{_path(error['loc'])}: {_problem(error)}"
        for error in exc.errors(include_url=False, include_input=False)
    ]


def _path(loc: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in loc if part != "[key]"]
    for place, part in enumerate(parts):
        if part == "credentials":
            del parts[place + 1 : place + 2]  # the kind, by which the union was entered
            break
    return ".".join(parts) or "configuration"


def _problem(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "unknown setting"
        case "missing":
            return "is required"
        case "union_tag_not_found":
            return "needs a kind"
        case _:
            message = str(error["msg"]).removeprefix("Value error, ")
            return message[:1].lower() + message[1:]


def as_yaml(settings: Settings) -> str:
    """Write the effective settings as YAML, secrets masked."""
    values = settings.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def paths(model: type[BaseModel] = Settings) -> Iterable[tuple[str, str]]:
    """Yield each setting's dotted path and its default as text, targets as `NAME`."""
    for name, each in model.model_fields.items():
        inner = Target if name == "targets" else each.annotation
        where = f"{name}.NAME" if name == "targets" else name
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from ((f"{where}.{path}", text) for path, text in paths(inner))
        elif each.is_required():
            yield where, "required"
        else:
            yield where, _as_text(each.get_default(call_default_factory=True))


def _as_text(default: object) -> str:
    match default:
        case None | ():
            return "none"
        case BaseModel():
            return str(default.model_dump())
        case _:
            return str(default)
