"""Reads the settings from all their places.

A setting may come from a command-line flag, an environment variable, a file in the
secrets folder or the configuration file, in this order of precedence. All but the file
give text; one function, `nest`, turns such text into the same shape that the file has.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from watcher.core.errors import SettingsError
from watcher.files import file_state
from watcher.settings.document import Document, Place
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

_Named = tuple[str, list[str], str]
"""Under which name a text is given, for which setting, and the text."""


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
        if self.config is None:
            try:
                return load(self.values, self.flags, self.environ)
            except SettingsError as exc:
                raise SettingsError([_hinted(each) for each in exc.findings]) from None
        document = Document(self.config)
        return load(document.values, self.flags, self.environ, document.place)

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


def _hinted(finding: str) -> str:
    """Say how to name a configuration, where it is missing that there is none."""
    how = "no configuration is named: give --config FILE, or set WATCHER_CONFIG"
    return f"{finding}; {how}" if finding == "targets: is required" else finding


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
    place: Callable[[Sequence[str]], Place | None] = lambda _: None,
) -> Settings:
    """Put the settings together from all their places and check them.

    Args:
        values: What the configuration file says.
        flags: Text by dotted path, such as `poll.interval`.
        environ: The environment.
        place: Where in that file a setting stands.

    Raises:
        SettingsError: One finding a line; nothing was opened or started.
    """
    texts = [
        _Texts((f"--{path}", path.split("."), t) for path, t in (flags or {}).items()),
        _Texts(_from_environment(environ)),
        _Texts(_from_secrets(environ)),
    ]
    sources = [*(each.values for each in texts), dict(values)]

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls, *_: object, **__: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(_Given(cls, values) for values in sources)

    def where(path: Sequence[str]) -> str:
        """Return the place that gives the most of a setting; of several the first."""
        found = [
            each for each in (*(t.place(path) for t in texts), place(path)) if each
        ]
        return max(found, key=itemgetter(0), default=(0, ""))[1]

    try:
        return Layered()
    except ValidationError as exc:
        raise SettingsError(findings(exc, where)) from None


class _Texts:
    """Settings that are given as text, each under a name.

    Attributes:
        values: What they say, in the shape of the file.
    """

    def __init__(self, given: Iterable[_Named]) -> None:
        """Take (name, path, text).

        Raises:
            SettingsError: Two names, such as in other letters, give one setting.
        """
        each = [(name, _spell(path), text) for name, path, text in given]
        first: dict[str, str] = {}
        for name, path, _ in each:
            if (before := first.setdefault(".".join(path), name)) != name:
                finding = f"{'.'.join(path)}: is given twice, first by {before}"
                raise SettingsError([f"{finding} ({name})"])
        self.values = nest((path, text) for _, path, text in each)
        self._names = [(path, name) for name, path, _ in each]

    def place(self, path: Sequence[str]) -> Place | None:
        """Return how much of a path is given here, and under which name."""
        found = [(_common(path, given), name) for given, name in self._names]
        depth, name = max(found, key=itemgetter(0), default=(0, ""))
        return (depth, name) if depth else None


def _common(path: Sequence[str], given: Sequence[str]) -> int:
    """Return how much of a path is given; all of it where it lies within."""
    pairs = zip(path, given, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return len(path) if same == len(given) else same


def nest(pairs: Iterable[tuple[list[str], str]]) -> dict[str, Any]:
    """Turn (path, text) pairs into the nested shape of the configuration file.

    What is given whole, as JSON, comes first, so that what is given of it by itself
    is added to it.
    """
    tree: dict[str, Any] = {}
    for path, text in sorted(pairs, key=lambda pair: len(pair[0])):
        *parents, leaf = path
        branch = tree
        for name in parents:
            if not isinstance(branch.get(name), dict):
                branch[name] = {}
            branch = branch[name]
        branch[leaf] = _plain(path, text)
    return tree


def _spell(path: list[str]) -> list[str]:
    if path[0] == "targets" and len(path) > 1:
        return [path[0], path[1].replace("_", "-"), *path[2:]]
    return path


def _plain(path: Sequence[str], text: str) -> object:
    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        times = Counter(name for name, _ in pairs)
        if twice := [name for name, count in times.items() if count > 1]:
            setting = ".".join([*path, twice[0]])
            raise SettingsError([f"{setting}: is given twice in the JSON text"])
        return dict(pairs)

    if text.lstrip()[:1] in {"{", "["} or text in {"null", ""}:
        try:
            return json.loads(text or "null", object_pairs_hook=once)
        except (ValueError, RecursionError):
            return text
    return text


def _from_environment(environ: Mapping[str, str]) -> Iterable[_Named]:
    for name, text in environ.items():
        setting = name.upper().removeprefix(PREFIX)
        if setting != name.upper() and not _NOT_SETTINGS.fullmatch(setting):
            yield name, setting.lower().split(DELIMITER), text


def config_file(
    given: Path | None, environ: Mapping[str, str] = os.environ
) -> Path | None:
    """Return the file to read: the one given, or that of `WATCHER_CONFIG`, or none."""
    named = environ.get(PREFIX + "CONFIG")
    return given or (Path(named) if named else None)


def _from_secrets(environ: Mapping[str, str]) -> Iterable[_Named]:
    for variable in SECRETS_FOLDERS:
        if not environ.get(variable):
            continue
        try:
            for file in sorted(Path(environ[variable]).iterdir()):
                if DELIMITER in file.name and file.is_file():
                    setting = file.name.upper().removeprefix(PREFIX).lower()
                    yield str(file), setting.split(DELIMITER), _secret(file)
        except OSError as exc:
            raise SettingsError([f"{variable}: {exc.strerror}"]) from None


def _secret(file: Path) -> str:
    try:
        return file.read_text().strip()
    except UnicodeDecodeError:
        raise SettingsError([f"{file}: not readable as text"]) from None
