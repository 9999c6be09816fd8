"""Steps of the doctor for a store that several replicas share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import anyio

from watcher.core.errors import StoreError
from watcher.doctor.findings import Fault, Finding, fail, ok, warn

if TYPE_CHECKING:
    from watcher.store.postgres.checking import Checked

LONGEST = 15.0
"""Seconds for all of it."""
SLOW = 0.05
"""Seconds for one question; a commit asks one, a look at the lease another."""
FAR = 5.0
"""Seconds between two clocks; nothing hangs on it but the times in events."""


async def look_at_shared_store(
    url: str, password: str | None, now: Callable[[], float]
) -> list[Finding]:
    """Tell whether a PostgreSQL database can be the store, without changing it."""
    try:
        from watcher.store.postgres.checking import check  # noqa: PLC0415
    except ImportError:
        hint = "pip install 'devserver-watcher[postgres]'"
        text = "PostgreSQL needs the extra `postgres`, which is not installed"
        return [fail("store", text, hint, Fault.SETTINGS)]
    try:
        with anyio.fail_after(LONGEST):
            return list(_findings(await check(url, password, now)))
    except (StoreError, TimeoutError) as exc:
        hint = (
            "check host, port, user, store.password and sslmode, and whether the "
            "database lets this machine in"
        )
        return [fail("store", str(exc) or "the database does not answer", hint)]


def _findings(found: Checked) -> Iterator[Finding]:
    tls = "over TLS" if found.encrypted else "without TLS"
    yield ok("store", f"PostgreSQL {found.server} answers, {tls}")
    if found.read_only:
        hint = "name the primary, or add target_session_attrs=read-write to the URL"
        yield fail("store_rights", "it takes no writes: a standby, or read-only", hint)
    elif not found.allowed:
        hint = "GRANT CREATE ON DATABASE … TO …, or make this user the owner of the "
        hint += "schema watcher"
        yield fail("store_rights", "the user may not make or use the tables", hint)
    else:
        yield ok("store_rights", "the user may do what a daemon does")
    yield _schema(found)
    yield _settings(found)
    yield _clock(found)
    yield _latency(found)


def _schema(found: Checked) -> Finding:
    if found.schema > found.known_schema:
        text = f"the schema is {found.schema}, this watcher knows up to "
        text += f"{found.known_schema}"
        return fail("store_schema", text, "upgrade this watcher", Fault.SETTINGS)
    if not found.schema:
        return ok("store_schema", "there are no tables yet; the first start makes them")
    if found.schema < found.known_schema:
        text = f"schema {found.schema} is brought to {found.known_schema} by a start"
        return warn("store_schema", text, "stop the replicas of the older version")
    return ok("store_schema", f"schema {found.schema} is the present one")


def _settings(found: Checked) -> Finding:
    step = "store_settings"
    if found.encoding != "UTF8":
        hint = "make a database with ENCODING 'UTF8'"
        return fail(step, f"the database is in {found.encoding}, not in UTF8", hint)
    if not found.durable:
        text = "a crash of the database may undo what was told"
        return warn(step, text, "turn fsync and synchronous_commit on")
    return ok(step, "UTF8, and what is committed outlives a crash")


def _clock(found: Checked) -> Finding:
    text = f"this machine's clock is {found.clock_ahead:+.1f} s against the database's"
    if abs(found.clock_ahead) > FAR:
        return warn(
            "store_clock",
            text,
            "set the clocks by NTP; leases go by the database's alone",
        )
    return ok("store_clock", text)


def _latency(found: Checked) -> Finding:
    text = f"one question takes {found.latency * 1000:.1f} ms"
    if found.latency > SLOW:
        return warn("store_latency", text, "run the database nearer to the watcher")
    return ok("store_latency", text)
