"""Tells a web server of each transition: one signed POST an event.

Source: CloudEvents 1.0, JSON format, structured mode; Standard Webhooks 1.0, symmetric
signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import quote

import msgspec
from pydantic import AfterValidator, Field, SecretStr

from watcher.core.address import url_fault
from watcher.core.journal import envelope
from watcher.core.model import JournalEvent
from watcher.fields import NAME
from watcher.sinks.base import SinkSettings

if TYPE_CHECKING:
    from watcher.sinks.post import Poster

_SECRET_PREFIX = "whsec_"  # noqa: S105


def signing_key(secret: str) -> bytes:
    """Return the bytes to sign with: base64 after `whsec_`, else the text itself.

    Raises:
        ValueError: The part after `whsec_` is not base64, or nothing is left.
    """
    key = secret.encode()
    if secret.startswith(_SECRET_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error as error:
            raise ValueError("must be base64 after whsec_") from error
    if not key:
        raise ValueError("must not be empty")
    return key


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Sign a message as Standard Webhooks asks: HMAC-SHA256, version 1."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _check_url(url: SecretStr) -> SecretStr:
    if fault := url_fault(url.get_secret_value()):
        raise ValueError(fault)
    return url


def _check_secret(secret: SecretStr) -> SecretStr:
    signing_key(secret.get_secret_value())
    return secret


def cloud_event(event: JournalEvent) -> dict[str, object]:
    """Wrap an event as a CloudEvent.

    `source` is `/devserver-watcher/<target>/<project_id>`, `type` is
    `devserver.watcher.` and the event's name, `subject` the job, `data` the event as
    the log shows it.
    """
    data = envelope(event)
    key = event.transition.key
    places = ("devserver-watcher", key.target, str(data.get("project_id") or "-"))
    wrapped: dict[str, object] = {
        "specversion": "1.0",
        "id": event.transition.event_id,
        "source": "".join(f"/{quote(place, safe='')}" for place in places),
        "type": f"devserver.watcher.{event.transition.event}",
        "subject": key.job_id,
        "datacontenttype": "application/json",
        "data": data,
    }
    if observed_at := data.get("observed_at"):
        wrapped["time"] = observed_at
    return wrapped


class Webhook(SinkSettings):
    """A receiver of CloudEvents, signed after Standard Webhooks."""

    kind: Literal["webhook"]
    name: str = Field("webhook", pattern=f"^{NAME}$")
    url: Annotated[SecretStr, AfterValidator(_check_url)]
    secret: Annotated[SecretStr, AfterValidator(_check_secret)] | None = None


class WebhookSink:
    """Posts events to one URL; any 2xx answer means taken.

    Args:
        settings: Its URL may hold a secret, so no message repeats it.
        poster: Posts.
        now: Wall clock, Unix seconds; dates the signature.
    """

    per_job = True

    def __init__(
        self, settings: Webhook, poster: Poster, now: Callable[[], float]
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._poster = poster
        self._now = now
        self._key: bytes | None = None
        if settings.secret is not None:
            self._key = signing_key(settings.secret.get_secret_value())

    async def deliver(self, events: Sequence[JournalEvent]) -> None:
        """Post those of the events that are asked for.

        Raises:
            SinkError: Not taken.
        """
        url = self._settings.url.get_secret_value()
        for event in filter(self._settings.wants, events):
            body = msgspec.json.encode(cloud_event(event))
            headers = self._headers(event.transition.event_id, body)
            await self._poster.post(url, body, headers)

    def _headers(self, event_id: str, body: bytes) -> dict[str, str]:
        message_id = quote(event_id, safe="")
        timestamp = str(int(self._now()))
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
        }
        if self._key is not None:
            signature = sign(self._key, message_id, timestamp, body)
            headers["webhook-signature"] = signature
        return headers
