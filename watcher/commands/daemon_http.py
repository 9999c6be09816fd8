"""Asks the daemon of this machine; for images that have no curl.

Over TLS, who answers must show the certificate that the configuration names. Without
TLS nobody can be told from another: whoever holds the port of a loopback address while
the daemon is down gets what is sent there. So only who asks for settings, or is asked
for a user, sends the token; the health of the daemon is asked for without.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from watcher.core.address import is_loopback
from watcher.core.errors import SettingsError, WatcherError
from watcher.settings.schema import Server

TIMEOUT = 3.0
WHOLE = 15.0
"""Seconds for the body of an answer, whoever sends it byte by byte."""
PATIENCE = 45.0
"""Seconds of silence after which a stream, which pulses each 15, is given up."""
LARGEST = 64 * 2**20
_PART = 2**16
_FIELDS = frozenset({"event", "data", "id"})
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class DaemonError(WatcherError):
    """The daemon does not answer, or refuses; says in one line what to do."""


class Message(NamedTuple):
    """A server-sent event; `place` is what to go on from."""

    event: str
    data: Any
    place: str | None


def check(server: Server) -> str | None:
    """Return None where `/healthz` answers 200, else what is wrong in one line.

    Raises:
        SettingsError: `server.web_config_file` cannot be used.
    """
    try:
        status, text = _ask(server, "/healthz")
    except (OSError, http.client.HTTPException) as exc:
        return _unanswered(server, exc)
    if status == http.client.OK:
        return None
    return f"{_address(server)}: {status} {text[:256].strip()}"


def settings_in_force(server: Server) -> str:
    """Return the settings of the running daemon as YAML, secrets masked.

    Raises:
        SettingsError: No daemon answers there, or not to this `server.api_token`.
    """
    token = server.api_token.get_secret_value() if server.api_token else None
    try:
        status, text = _ask(server, "/api/v1/config", token)
    except (OSError, http.client.HTTPException) as exc:
        raise SettingsError([f"server.listen: {_unanswered(server, exc)}"]) from None
    if status != http.client.OK:
        error = (_object(text) or {}).get("error")
        raise SettingsError([f"server.api_token: {_refused(server, status, error)}"])
    return text


def ask(server: Server, path: str, **query: object) -> Mapping[str, Any] | None:
    """Return what a path of the daemon's API shows; None where it knows no such thing.

    Args:
        server: Where it is served.
        path: Quoted.
        query: Its parameters; those that are None or empty are left out.

    Raises:
        DaemonError: There is no such answer.
        SettingsError: `server.web_config_file` cannot be used.
    """
    target = _target(path, query)
    try:
        status, text = _ask(server, target)
        if status == HTTPStatus.UNAUTHORIZED and server.api_token:
            token = server.api_token.get_secret_value()
            status, text = _ask(server, target, token)
    except (OSError, http.client.HTTPException) as exc:
        raise DaemonError(_unanswered(server, exc)) from None
    answer = _object(text)
    if answer is None:
        raise DaemonError(f"who answers at {_address(server)} is no watcher ({status})")
    if status == HTTPStatus.NOT_FOUND:
        return None
    if status != HTTPStatus.OK:
        raise DaemonError(_refused(server, status, answer.get("error")))
    return answer


def follow(
    server: Server, place: str | None, path: str, **query: object
) -> Iterator[Message]:
    """Yield what a stream of the daemon tells, until it ends.

    Args:
        server: Where it is served.
        place: What to go on from; None: from now on.
        path: Quoted.
        query: Its parameters; see `ask`.

    Raises:
        DaemonError: It cannot be had, or has broken off.
        SettingsError: `server.web_config_file` cannot be used.
    """
    headers = {"Last-Event-ID": place} if place else {}
    if server.web_config_file and server.api_token:
        token = server.api_token.get_secret_value()
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection, answer = _begin(server, _target(path, query), headers, PATIENCE)
        try:
            if answer.status != HTTPStatus.OK:
                raise DaemonError(_refused(server, answer.status, None))
            yield from _messages(answer)
        finally:
            connection.close()
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as exc:
        raise DaemonError(_unanswered(server, exc)) from None


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _messages(answer: http.client.HTTPResponse) -> Iterator[Message]:
    told: dict[str, str] = {}
    while line := answer.readline(LARGEST).decode("utf-8", "replace"):
        name, _, value = line.rstrip("\r\n").partition(": ")
        if name in _FIELDS:
            told[name] = value
        elif not name and "event" in told:
            data = json.loads(told.get("data", "null"))
            yield Message(told["event"], data, told.get("id"))
            told = {}


def _target(path: str, query: Mapping[str, object]) -> str:
    given = {name: value for name, value in query.items() if value not in {None, ""}}
    return f"{path}?{urlencode(given)}" if given else path


def _unanswered(server: Server, exc: Exception) -> str:
    why = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
    return (
        f"no daemon answers at {_address(server)} ({why}); "
        "is `watcher run` running there, on this server.listen?"
    )


def _refused(server: Server, status: int, error: object) -> str:
    hint = "; give its server.api_token" if status == HTTPStatus.UNAUTHORIZED else ""
    said = f": {str(error)[:256]}" if error else ""
    return f"the daemon at {_address(server)} refuses: {status}{said}{hint}"


def _host(server: Server) -> str:
    host, _ = server.address
    return _ANY.get(host, host)


def _address(server: Server) -> str:
    return f"{_host(server)}:{server.address[1]}"


def _ask(server: Server, path: str, token: str | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection, answer = _begin(server, path, headers, TIMEOUT)
    try:
        return answer.status, _whole(answer).decode("utf-8", "replace")
    finally:
        connection.close()


def _whole(answer: http.client.HTTPResponse) -> bytes:
    """Read an answer to its end, its largest size, or until it takes too long."""
    body, late = bytearray(), time.monotonic() + WHOLE
    while len(body) < LARGEST and (part := answer.read1(_PART)):
        body += part
        if time.monotonic() > late:
            raise TimeoutError(f"no whole answer within {WHOLE:g} s")
    return bytes(body)


def _begin(
    server: Server, path: str, headers: Mapping[str, str], timeout: float
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    file = server.web_config_file
    certificate = _certificate(file) if file else None
    secret = "Authorization" in headers
    if secret and certificate is None and not is_loopback(_host(server)):
        raise ConnectionError("the token is sent over TLS or to loopback only")
    connection = _connect(server, certificate)
    try:
        connection.request("GET", path, headers=dict(headers))
        if connection.sock:
            connection.sock.settimeout(timeout)
        return connection, connection.getresponse()
    except BaseException:
        connection.close()
        raise


def _certificate(web_config_file: Path) -> bytes | None:
    from watcher.web.web_config import WebConfig

    return WebConfig(web_config_file).certificate


def _connect(server: Server, certificate: bytes | None) -> http.client.HTTPConnection:
    where = _host(server), server.address[1]
    if certificate is None:
        return http.client.HTTPConnection(*where, timeout=TIMEOUT)
    # Names and authorities say nothing here: the certificate is known to the byte.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(*where, timeout=TIMEOUT, context=context)
    connection.connect()
    if connection.sock.getpeercert(binary_form=True) != certificate:
        connection.close()
        raise ConnectionError(
            "who answers there has not the certificate of server.web_config_file"
        )
    return connection
