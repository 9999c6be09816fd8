"""Asks the daemon of this machine; for images that have no curl.

Over TLS, who answers must show the certificate that the configuration names. Without
TLS nobody can be told from another: whoever holds the port of a loopback address while
the daemon is down gets what is sent there. So only who asks for settings sends the
token, and the health of the daemon is asked for without.
"""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

from watcher.core.address import is_loopback
from watcher.core.errors import SettingsError
from watcher.settings.schema import Server

TIMEOUT = 3.0
LARGEST = 64 * 2**20
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def check(server: Server) -> str | None:
    """Return None where `/healthz` answers 200, else what is wrong in one line.

    Raises:
        SettingsError: `server.web_config_file` cannot be used.
    """
    try:
        status, text = _ask(server, "/healthz")
    except (OSError, http.client.HTTPException) as exc:
        return f"{_address(server)}: {exc}"
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
        raise SettingsError([f"server.listen: {_address(server)}: {exc}"]) from None
    if status != http.client.OK:
        raise SettingsError(
            [f"server.api_token: {_address(server)} says: {text[:256]}"]
        )
    return text


def _host(server: Server) -> str:
    host, _ = server.address
    return _ANY.get(host, host)


def _address(server: Server) -> str:
    return f"{_host(server)}:{server.address[1]}"


def _ask(server: Server, path: str, token: str | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    file = server.web_config_file
    certificate = _certificate(file) if file else None
    if token and certificate is None and not is_loopback(_host(server)):
        raise ConnectionError("the token is sent over TLS or to loopback only")
    connection = _connect(server, certificate)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(LARGEST).decode("utf-8", "replace")
    finally:
        connection.close()


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
