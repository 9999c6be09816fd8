"""Reads the settings from all their places.

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
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from watcher.core.errors import SettingsError
from watcher.files import file_state
from watcher.settings.schema import Settings, secrets_in
from watcher.settings.showing import findings

PREFIX = "WATCHER_"
DELIMITER = "__"
SECRETS_FOLDERS = (PREFIX + "SECRETS_DIR", "CREDENTIALS_DIRECTORY")
SECRET_VARIABLES = ("HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_SECURITY_TOKEN")
_NOT_SETTINGS = re.compile(
    # The last two: what Kubernetes sets in every Pod beside a Service named `watcher`.
    r"CONFIG|SECRETS_DIR|SERVICE_(HOST|PORT)(_.*)?|PORT(_.*)?"
)


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

    def secrets(self, settings: Settings) -> frozenset[str]:
        """Return what is secret in these settings, or beside them in the environment."""
        texts = {each.get_secret_value() for each in secrets_in(settings)}
        texts |= {self.environ.get(name, "").strip() for name in SECRET_VARIABLES}
        return frozenset(texts - {""})

    def fingerprint(self) -> Hashable:
        """Return what changes when a file that settings come from does."""
        files = [self.config] if self.config else []
        for variable in SECRETS_FOLDERS:
            if self.environ.get(variable):
                with suppress(OSError):
                    files += sorted(Path(self.environ[variable]).iterdir())
        return tuple(file_state(file) for file in files)


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
