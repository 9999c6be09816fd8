"""Where credentials come from: IAM's token and project calls, the metadata service."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from watcher.simulator.answers import Answer, RawRequest, good, unknown_api
from watcher.simulator.gateway import Gateway, Key
from watcher.simulator.options import SimulatorOptions

METADATA_TOKEN_TTL = "x-metadata-token-ttl-seconds"  # noqa: S105


class Identity:
    """Gives out tokens and temporary keys that the gateway then accepts."""

    def __init__(
        self, options: SimulatorOptions, gateway: Gateway, wall: Callable[[], float]
    ) -> None:
        """Work for this gateway, on the server's wall clock."""
        self._options = options
        self._gateway = gateway
        self._wall = wall
        self._draw = random.Random(f"{options.seed}/identity")  # noqa: S311
        self._metadata_tokens: dict[str, float] = {}

    def token(self, request: RawRequest) -> Answer:
        """Answer `POST /v3/auth/tokens`."""
        name, password = _user(request.body)
        users = self._options.users
        if name is None or (users is not None and users.get(name) != password):
            return _iam_error(401, "The username or password is wrong.")
        now = self._wall()
        expires_at = now + self._options.token_lifetime
        token = f"MIIFvgYJKoZIhvcNAQcCoIIFrzCCBasCAQEx{self._hex()}{self._hex()}"
        self._gateway.tokens[token] = expires_at
        document = {
            "token": {
                "methods": ["password"],
                "issued_at": _iso(now),
                "expires_at": _iso(expires_at),
                "project": self._project(),
                "user": {"name": name},
            }
        }
        return good(document, 201, X_Subject_Token=token)

    def projects(self, request: RawRequest) -> Answer:
        """Answer `GET /v3/projects`."""
        names = parse_qs(request.query).get("name", [self._options.region])
        found = [self._project()] if self._options.region in names else []
        return good({"projects": found, "links": {"next": None, "previous": None}})

    def metadata_token(self, request: RawRequest) -> Answer:
        """Answer `PUT /meta-data/latest/api/token`."""
        if self._options.metadata != "v2":
            return unknown_api() if self._options.metadata == "off" else _no_page(404)
        seconds = request.headers.get(METADATA_TOKEN_TTL, "")
        if not seconds.isdecimal():
            return _no_page(400)
        token = self._hex()
        self._metadata_tokens[token] = self._wall() + int(seconds)
        return Answer(200, token.encode(), "text/plain")

    def metadata_key(self, request: RawRequest) -> Answer:
        """Answer `GET /openstack/latest/securitykey` with a new temporary key."""
        if self._options.metadata == "off":
            return unknown_api()
        token = request.headers.get("x-metadata-token", "")
        good_until = self._metadata_tokens.get(token, 0.0)
        if self._options.metadata == "v2" and self._wall() >= good_until:
            return _no_page(401)
        access, secret, security_token = (self._hex() for _ in range(3))
        access = f"HST{access[:17].upper()}"
        expires_at = self._wall() + self._options.temporary_key_lifetime
        if self._gateway.keys is not None:
            self._gateway.keys[access] = Key(secret, security_token, expires_at)
        credential = {
            "access": access,
            "secret": secret,
            "securitytoken": security_token,
            "expires_at": _iso(expires_at),
        }
        return good({"credential": credential})

    def _project(self) -> dict[str, Any]:
        return {"id": self._options.project_id, "name": self._options.region}

    def _hex(self) -> str:
        return f"{self._draw.getrandbits(128):032x}"


def _user(body: bytes) -> tuple[str | None, str | None]:
    try:
        user = json.loads(body)["auth"]["identity"]["password"]["user"]
        return str(user["name"]), str(user["password"])
    except (ValueError, KeyError, TypeError):
        return None, None


def _iam_error(status: int, message: str) -> Answer:
    document = {"error": {"code": status, "message": message, "title": "Unauthorized"}}
    return good(document, status)


def _no_page(status: int) -> Answer:
    return Answer(status, f"{status}\n".encode(), "text/plain")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
