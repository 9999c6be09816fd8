"""Where the cloud is: addresses of a region, and which addresses may be used."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from watcher.core.address import is_loopback

_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PRINTABLE = re.compile(r"[!-~]+")


def endpoint_of(region: str) -> str:
    """Return the address of ModelArts in a region, such as `cn-north-4`.

    Raises:
        ValueError: This cannot be a region's name.
    """
    return f"https://modelarts.{_checked(region)}.myhuaweicloud.com"


def iam_endpoint_of(region: str) -> str:
    """Return the address of IAM in a region.

    Raises:
        ValueError: This cannot be a region's name.
    """
    return f"https://iam.{_checked(region)}.myhuaweicloud.com"


def check_endpoint(url: str) -> str:
    """Return an address without its last slash, if credentials may be sent there.

    Raises:
        ValueError: Not an https address; http is for a loopback address only.
    """
    if not is_address(url):
        raise ValueError("must be an address such as https://host or https://host:port")
    parts = urlsplit(url)
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("must not hold a user, a query or a fragment")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(
            "must begin with https://: http:// would show credentials to the network "
            "and is taken for a loopback address only"
        )
    return url.rstrip("/")


def is_address(url: str) -> bool:
    """Tell whether a text is the address of a host, with http or https."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    clean = _PRINTABLE.fullmatch(url) is not None
    return usable and clean and parts.scheme in {"http", "https"}


def _checked(region: str) -> str:
    if not _REGION.fullmatch(region):
        raise ValueError("must be the name of a region such as cn-north-4")
    return region
