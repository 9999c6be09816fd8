"""Which addresses may be sent something that is nobody else's business."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def url_fault(url: str) -> str | None:
    """Say why nothing may be sent to a URL; None if it may.

    HTTPS is required except to a loopback address.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in {"http", "https"} or not host:
        return "must begin with https:// and a host"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user or a password"
    if parts.scheme == "http" and not is_loopback(host):
        return "must be https, except to a loopback address"
    return None
