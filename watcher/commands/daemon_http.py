"""Asks the daemon of this machine; for images that have no curl."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path

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
    try:
        status, text = _ask(server, "/api/v1/config")
    except (OSError, http.client.HTTPException) as exc:
        raise SettingsError([f"server.listen: {_address(server)}: {exc}"]) from None
    if status != http.client.OK:
        raise SettingsError(
            [f"server.api_token: {_address(server)} says: {text[:256]}"]
        )
    return text


def _address(server: Server) -> str:
    host, port = server.address
    return f"{_ANY.get(host, host)}:{port}"


def _ask(server: Server, path: str) -> tuple[int, str]:
    token = server.api_token.get_secret_value() if server.api_token else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = _connect(server)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(LARGEST).decode("utf-8", "replace")
    finally:
        connection.close()


def _connect(server: Server) -> http.client.HTTPConnection:
    host, port = server.address
    host = _ANY.get(host, host)
    if server.web_config_file is None or not _has_tls(server.web_config_file):
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    trusting = ssl.create_default_context()
    trusting.check_hostname = False  # the certificate names the service, not loopback
    trusting.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=trusting)


def _has_tls(web_config_file: Path) -> bool:
    from watcher.web.web_config import WebConfig

    return WebConfig(web_config_file).tls is not None
