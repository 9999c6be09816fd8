"""TLS and users of the pages, in the file format that Prometheus exporters share.

The file, and the certificates that it names, are read again when they change. What
cannot be used is told once, and what was in force stays.

Source: Prometheus exporter-toolkit, "Web configuration".
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
import yaml

from watcher.core.errors import SettingsError
from watcher.files import file_state

log = structlog.get_logger()

_Value = TypeVar("_Value")
Compute = Callable[[Callable[[], bool]], Awaitable[bool]]

_HASH = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")
_LONGEST_PASSWORD = 72  # bytes; bcrypt never looked at more
_CLIENTS = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}


class _Tls(msgspec.Struct, forbid_unknown_fields=True):
    cert_file: str = ""
    key_file: str = ""
    client_auth_type: str = ""
    client_ca_file: str = ""
    min_version: str = "TLS12"


class _Form(msgspec.Struct, forbid_unknown_fields=True):
    tls_server_config: _Tls | None = None
    basic_auth_users: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    tls: ssl.SSLContext | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    certificate: bytes | None = None


class WebConfig:
    """A web configuration file, as it is now.

    Attributes:
        tls: What to listen with, for good: it takes over later certificates and
            rules. None where the file asks for no TLS.

    Args:
        file: The file; what it names is relative to its folder.

    Raises:
        SettingsError: It cannot be used.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._state: Hashable = None
        self._files: tuple[Path, ...] = ()
        self._pepper = secrets.token_bytes()
        self._proven: dict[str, tuple[str, bytes]] = {}
        self._now = self._load()
        self.tls = self._now.tls
        if self.tls:
            self.tls.sni_callback = self._on_hello

    @property
    def certificate(self) -> bytes | None:
        """What the server shows first of all, in DER; None without TLS."""
        return self._now.certificate

    async def admits(self, authorization: str | None, compute: Compute) -> bool:
        """Whether a request may come in, given its Authorization header.

        A password that was right once is not computed again.

        Args:
            authorization: The header.
            compute: Calls, in its turn, what says whether a password is right. A name
                that is not known counts as a wrong password.
        """
        self._refresh()
        users = self._now.users
        given = _credentials(authorization or "")
        if not users or given is None:
            return not users
        user, password = given
        proof = hmac.digest(self._pepper, password, "sha256")
        if user in users and self._is_proven(user, users[user], proof):
            return True
        # An unknown name takes as long as the dearest, so that none can be found out.
        hashed = users.get(user) or max(users.values(), key=_cost)
        known = user in users
        if not await compute(lambda: _matches(password, hashed) and known):
            return False
        self._proven[user] = (hashed, proof)
        return True

    def _is_proven(self, user: str, hashed: str, proof: bytes) -> bool:
        earlier, proven = self._proven.get(user, ("", b""))
        return earlier == hashed and hmac.compare_digest(proven, proof)

    def _on_hello(
        self, connection: ssl.SSLObject, _name: str | None, base: ssl.SSLContext
    ) -> int | None:
        rules = base.verify_mode, base.minimum_version
        self._refresh()
        if rules != (base.verify_mode, base.minimum_version):
            return ssl.ALERT_DESCRIPTION_USER_CANCELLED  # it began under the old rules
        connection.context = self._now.tls or base
        return None

    def _refresh(self) -> None:
        if _state(self._files) == self._state:
            return
        try:
            fresh = self._load()
            if (fresh.tls is None) != (self.tls is None):
                text = "tls_server_config: comes or goes by a restart only"
                raise self._fault(text)
        except SettingsError as exc:
            log.warning("server.web_config_invalid", findings=exc.findings)
            return
        if self.tls and fresh.tls:
            self.tls.verify_mode = fresh.tls.verify_mode
            self.tls.minimum_version = fresh.tls.minimum_version
        self._now = fresh
        log.info("server.web_config_reloaded")

    def _load(self) -> _Loaded:
        self._files = (self._file,)
        self._state = _state(self._files)
        try:
            form = _read(self._file)
            tls, folder = form.tls_server_config or _Tls(), self._file.parent
            named = (tls.cert_file, tls.key_file, tls.client_ca_file)
            self._files += tuple(folder / name for name in named if name)
            self._state = _state(self._files)
            context = _context(tls, folder)
            shown = _first_certificate(folder / tls.cert_file) if context else None
            return _Loaded(context, _users(form), shown)
        except ValueError as exc:
            raise self._fault(str(exc)) from None

    def _fault(self, text: str) -> SettingsError:
        return SettingsError([f"server.web_config_file: {self._file}: {text}"])


def _state(files: Iterable[Path]) -> Hashable:
    return tuple(file_state(file) for file in files)


def _read(file: Path) -> _Form:
    """Read the form of the file; all that follows raises ValueError for its faults."""
    try:
        values = yaml.safe_load(file.read_text())
        return msgspec.convert({} if values is None else values, _Form)
    except yaml.MarkedYAMLError as exc:
        line = f"line {exc.problem_mark.line + 1}: " if exc.problem_mark else ""
        raise ValueError(f"{line}not YAML: {exc.problem}") from None
    except yaml.YAMLError:
        raise ValueError("not YAML") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except OSError as exc:
        raise ValueError(exc.strerror) from None


def _context(tls: _Tls, folder: Path) -> ssl.SSLContext | None:
    if tls == _Tls(min_version=tls.min_version):
        return None
    for name in ("cert_file", "key_file"):
        if not getattr(tls, name):
            raise ValueError(f"tls_server_config.{name}: is required")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _one_of(_VERSIONS, tls, "min_version")
    context.verify_mode = _one_of(_CLIENTS, tls, "client_auth_type")
    context.options |= ssl.OP_NO_TICKET  # a resumed session would keep to old rules
    context.num_tickets = 0
    _load_pem(
        "cert_file",
        folder / tls.cert_file,
        # Without a password, an encrypted key would be asked for on the terminal.
        lambda path: context.load_cert_chain(path, folder / tls.key_file, password=""),
    )
    if (context.verify_mode is ssl.CERT_NONE) == bool(tls.client_ca_file):
        raise ValueError(
            "tls_server_config.client_auth_type: a client_ca_file belongs to "
            "VerifyClientCertIfGiven and RequireAndVerifyClientCert, and only to them"
        )
    if tls.client_ca_file:
        _load_pem(
            "client_ca_file",
            folder / tls.client_ca_file,
            context.load_verify_locations,
        )
    return context


def _first_certificate(file: Path) -> bytes:
    begin, end = ssl.PEM_HEADER, ssl.PEM_FOOTER
    text = file.read_text(errors="replace").partition(begin)[2].partition(end)[0]
    return ssl.PEM_cert_to_DER_cert(f"{begin}{text}{end}")


def _one_of(known: Mapping[str, _Value], tls: _Tls, name: str) -> _Value:
    word = getattr(tls, name)
    if word not in known:
        choice = ", ".join(filter(None, known))
        raise ValueError(f"tls_server_config.{name}: must be one of {choice}")
    return known[word]


def _load_pem(name: str, path: Path, load: Callable[[Path], object]) -> None:
    try:
        load(path)
    except ssl.SSLError as exc:
        text = f"cannot be used ({exc.reason or 'not PEM'})"
        raise ValueError(f"tls_server_config.{name}: {path}: {text}") from None
    except OSError as exc:
        raise ValueError(f"tls_server_config.{name}: {path}: {exc.strerror}") from None


def _users(form: _Form) -> Mapping[str, str]:
    users = form.basic_auth_users or {}
    for user, hashed in users.items():
        if not _HASH.fullmatch(hashed) or ":" in user:
            raise ValueError(f"basic_auth_users.{user}: not a user and a bcrypt hash")
    if users:
        try:
            import bcrypt  # noqa: F401, PLC0415 - only who has users needs it
        except ImportError:
            raise ValueError(
                "basic_auth_users: needs bcrypt: "
                "pip install 'devserver-watcher[basic-auth]'"
            ) from None
    return users


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(encoded.strip()).partition(b":")
        return user.decode(), password
    except ValueError:  # neither base64 nor UTF-8
        return None


def _cost(hashed: str) -> int:
    return int(hashed.split("$")[2])


def _matches(password: bytes, hashed: str) -> bool:
    import bcrypt  # noqa: PLC0415 - see `_users`

    return bcrypt.checkpw(password[:_LONGEST_PASSWORD], hashed.encode())
