"""Tells a web server of each transition: one signed POST an event.

Source: CloudEvents 1.0, JSON format, structured mode; Standard Webhooks 1.0, symmetric
signatures.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
import msgspec
from pydantic import SecretStr

from watcher.core.address import url_fault
from watcher.core.errors import SettingsError, SinkError
from watcher.core.journal import envelope
from watcher.core.model import JournalEvent, Phase
from watcher.ports import Postponed

_LONGEST_PAUSE = 3600.0
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


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Read how many seconds a server asks to wait: at most an hour, None if it does not.

    Source: RFC 9110, 10.2.3.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value)
    else:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST_PAUSE)


class WebhookSink:
    """Posts events to one URL; any 2xx answer means taken.

    An async context manager: it can deliver inside its `async with` block only.

    Args:
        name: Its delivery state is kept under it.
        url: May hold a secret in its path or query, so no message repeats it.
        now: Wall clock, Unix seconds; dates the signature.
        secret: Signs the events; None sends them unsigned.
        events: Names of the events to post; None means all.
        phases: Phases to post; None means all. Events without a phase pass.
        timeout: Seconds for one request.
        ssl_context: For a private certificate authority; None means the system's.

    Raises:
        SettingsError: The URL or the secret cannot be used.
    """

    per_job = True

    def __init__(
        self,
        name: str,
        url: str,
        *,
        now: Callable[[], float],
        secret: SecretStr | None = None,
        events: Collection[str] | None = None,
        phases: Collection[Phase] | None = None,
        timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if fault := url_fault(url):
            raise SettingsError([f"sinks.{name}.url: {fault}"])
        self._key: bytes | None = None
        try:
            if secret is not None:
                self._key = signing_key(secret.get_secret_value())
        except ValueError as error:
            raise SettingsError([f"sinks.{name}.secret: {error}"]) from None
        self.name = name
        self._url = url
        self._now = now
        self._events = None if events is None else frozenset(events)
        self._phases = None if phases is None else frozenset(phases)
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._ssl = ssl_context or True
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "devserver-watcher"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def deliver(self, events: Sequence[JournalEvent]) -> None:
        """Post those of the events that are asked for.

        Raises:
            SinkError: Not taken.
        """
        for event in events:
            if self._wants(event):
                await self._post(event)

    def _wants(self, event: JournalEvent) -> bool:
        if self._events is not None and event.transition.event not in self._events:
            return False
        phase = event.transition.fields.get("phase")
        return self._phases is None or phase is None or phase in self._phases

    async def _post(self, event: JournalEvent) -> None:
        if self._session is None:
            raise SinkError("the webhook is not open")
        body = msgspec.json.encode(cloud_event(event))
        try:
            # The answer's body is never read: it says nothing, and it may not end.
            async with self._session.post(
                self._url,
                data=body,
                headers=self._headers(event.transition.event_id, body),
                allow_redirects=False,
                ssl=self._ssl,
            ) as response:
                self._judge(response.status, response.headers)
        except TimeoutError as error:
            raise SinkError("no answer in time") from error
        except aiohttp.ClientConnectorError as error:  # names the host, not the URL
            raise SinkError(str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise SinkError(f"no answer: {type(error).__name__}") from error

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

    def _judge(self, status: int, headers: Mapping[str, str]) -> None:
        if 200 <= status < 300:  # noqa: PLR2004
            return
        what = f"answered {status}"
        pause = retry_after(headers, self._now())
        if pause is not None:
            raise Postponed(what, retry_after=pause)
        raise SinkError(what)
