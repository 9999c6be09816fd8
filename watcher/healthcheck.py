"""Asks the daemon of this machine how it is; for images that have no curl."""

from __future__ import annotations

import http.client
import ssl

from watcher.settings import Server
from watcher.web_config import WebConfig

TIMEOUT = 3.0
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def check(server: Server) -> str | None:
    """Return None where `/healthz` answers 200, else what is wrong in one line.

    Raises:
        SettingsError: `server.web_config_file` cannot be used.
    """
    host, port = server.address
    local = _ANY.get(host, host)
    token = server.api_token.get_secret_value() if server.api_token else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = _connect(local, port, server)
    try:
        connection.request("GET", "/healthz", headers=headers)
        answer = connection.getresponse()
        reason = answer.read(256).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as exc:
        return f"{local}:{port}: {exc}"
    finally:
        connection.close()
    if answer.status == http.client.OK:
        return None
    return f"{local}:{port}: {answer.status} {reason}"


def _connect(host: str, port: int, server: Server) -> http.client.HTTPConnection:
    if server.web_config_file is None or not WebConfig(server.web_config_file).tls:
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    trusting = ssl.create_default_context()
    trusting.check_hostname = False  # the certificate names the service, not loopback
    trusting.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=trusting)
