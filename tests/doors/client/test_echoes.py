"""What comes back of a request is of no use to whoever reads it: replayed, it fails."""

import html
import json
import re
from base64 import b64decode, b64encode
from contextlib import asynccontextmanager
from types import SimpleNamespace
from urllib.parse import quote, unquote

import anyio
import pytest

from tests.fakes import START, SimulatedSession, simulator
from watcher.client.masking import Mask
from watcher.core.errors import ApiError
from watcher.daemon.targets import Targets
from watcher.settings.schema import Target
from watcher.simulator.answers import RawRequest

ACCESS, SECRET = "AKIDEXAMPLE", "the-right-secret-key"
FORMS = {
    "plain": lambda value: value,
    "cut": lambda value: value[: value.index("Signature=") + 30],
    "upper": lambda value: value.upper(),
    "json": lambda value: json.dumps(value)[1:-1],
    "html": html.escape,
    "percent": quote,
    "hex": lambda value: value.encode().hex(),
    "base64": lambda value: b64encode(value.encode()).decode(),
    "base64 of more": lambda value: b64encode(b"A: " + value.encode()).decode(),
}


class Echoing(SimulatedSession):
    """A gateway that refuses each request and prints its Authorization header."""

    form = staticmethod(FORMS["plain"])
    status = 403

    @asynccontextmanager
    async def request(self, method, url, *, headers, data, **more):
        self.sent = headers
        text = self.form(headers["Authorization"])
        body = {"id": self.cloud.job_ids[0], "name": text}
        body |= {"error_code": text, "error_msg": f"who is {text}?"}
        async with super().request(
            method, url, headers=headers, data=data, **more
        ) as answer:
            yield SimpleNamespace(
                status=self.status,
                headers={**answer.headers, "X-Request-Id": text},
                content=_Body(json.dumps(body).encode()),
            )


class _Body:
    def __init__(self, body):
        self._body = body

    async def readany(self):
        body, self._body = self._body, b""
        return body


def readings(text):
    """All that somebody may make of a text."""
    yield text
    yield unquote(text)
    yield html.unescape(text)
    for run in re.findall(r"[A-Za-z0-9+/]{12,}", text):
        for skipped in range(4):
            part = run[skipped:]
            part = part[: len(part) - (len(part) % 4 == 1)] + "=="
            yield b64decode(part).decode("latin-1")
    for run in re.findall(r"(?:[0-9a-f]{2}){8,}", text):
        yield bytes.fromhex(run).decode("latin-1")


def accepted(cloud, sent, shown):
    """Whether the cloud takes a request again that is signed with what is shown."""
    path = f"/v1/{cloud.options.project_id}/dev-servers/jobs/{cloud.job_ids[0]}"
    names = {name.lower(): value for name, value in sent.items()}
    prefix = names["authorization"].rpartition("=")[0]
    for reading in readings(shown):
        for digits in re.findall(r"(?i)[0-9a-f]{64}", reading):
            headers = names | {"authorization": f"{prefix}={digits.lower()}"}
            outcome = cloud.handle(RawRequest("GET", path, headers, b""))
            if outcome.answer.status == 200:
                return True
    return False


async def shown_by(session, cloud):
    target = Target(
        endpoint="http://127.0.0.1:9",
        project_id=cloud.options.project_id,
        credentials={"kind": "static", "access_key": ACCESS, "secret_key": SECRET},
    )
    now = lambda: START + anyio.current_time()  # noqa: E731
    api = Targets(session, now, {}).open("prod", target, 10.0)
    try:
        return str(await api.fetch(cloud.job_ids[0]))
    except ApiError as exc:
        return f"{exc.message} {exc.details}"


@pytest.mark.looptime
@pytest.mark.parametrize("status", [200, 403])
@pytest.mark.parametrize("name", FORMS)
async def test_what_is_shown_is_not_accepted(name, status, monkeypatch):
    keys = {ACCESS: SECRET}
    cloud = simulator(jobs=1, tasks=1, speed=0, credentials=keys, lock_after=10**9)
    session = Echoing(cloud)
    session.form, session.status = FORMS[name], status
    shown = await shown_by(session, cloud)
    assert "***" in shown
    assert not accepted(cloud, session.sent, shown)
    monkeypatch.setattr(Mask, "apply", lambda _, body: body)
    bare = await shown_by(session, cloud)
    whole = status == 200 and name != "cut"  # an error's text is not shown in full
    assert accepted(cloud, session.sent, bare) or not whole
