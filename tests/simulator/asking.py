"""How these tests ask a simulator: signed or not, as raw HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from watcher.simulator import Simulator
from watcher.simulator.answers import RawRequest
from watcher.simulator.signature import ALGORITHM, canonical_request, sign

ACCESS_KEY, SECRET_KEY = "TESTACCESSKEY0000001", "test-secret-key"


@dataclass(frozen=True)
class Got:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["error_code"]

    @property
    def message(self) -> str:
        return self.json["error_msg"]


def jobs_path(sim: Simulator, job_id: str = "") -> str:
    path = f"/v1/{sim.options.project_id}/dev-servers/jobs"
    return f"{path}/{job_id}" if job_id else path


async def ask(
    sim: Simulator,
    target: str,
    method: str = "GET",
    *,
    body: bytes | str | dict[str, Any] | list[Any] | None = None,
    headers: Mapping[str, str] | None = None,
    within: float = 10.0,
) -> Got:
    data = json.dumps(body) if isinstance(body, dict | list) else body
    url = URL(sim.url + target, encoded=True)
    limits = aiohttp.ClientTimeout(total=within)
    async with (
        aiohttp.ClientSession(timeout=limits) as session,
        session.request(
            method, url, data=data, headers=headers, allow_redirects=False
        ) as response,
    ):
        return Got(response.status, await response.read(), response.headers)


async def detail(sim: Simulator, job_id: str | None = None, **options: Any) -> Got:
    return await ask(sim, jobs_path(sim, job_id or sim.job_ids[0]), **options)


async def page(sim: Simulator, query: str = "", **options: Any) -> Got:
    return await ask(sim, f"{jobs_path(sim)}?{query}", **options)


def signed(
    sim: Simulator,
    target: str,
    *,
    access_key: str = ACCESS_KEY,
    secret_key: str = SECRET_KEY,
    at: float | None = None,
    **more: str,
) -> dict[str, str]:
    """Return the headers of a signed GET; `_` in a name stands for `-`."""
    moment = time.gmtime(sim.clock.wall() if at is None else at)
    date = time.strftime("%Y%m%dT%H%M%SZ", moment)
    headers = {"x-sdk-date": date, "host": URL(sim.url).authority}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    names = tuple(sorted(headers))
    canonical = canonical_request(RawRequest("GET", target, headers), names)
    signature = sign(secret_key, date, canonical)
    headers["authorization"] = (
        f"{ALGORITHM} Access={access_key}, "
        f"SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return headers
