"""Examines what a daemon with this configuration would meet, and says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TextIO

import aiohttp
import anyio

from watcher.client.transport import open_session
from watcher.core.errors import SettingsError
from watcher.doctor import report
from watcher.doctor.asking import CarefulTargets
from watcher.doctor.background import DaemonThreads
from watcher.doctor.findings import Diagnosis, Fault, Finding, fail
from watcher.doctor.local import look_at_job_files, look_at_listen, look_at_store
from watcher.doctor.shared_store import look_at_shared_store
from watcher.doctor.target import Examination
from watcher.settings.loading import Origin
from watcher.settings.schema import Settings, Target, secrets_in
from watcher.store import is_shared


def main(
    origin: Origin, *, as_json: bool, out: TextIO, now: Callable[[], float]
) -> int:
    """Examine, tell, and return the exit code; takes at most 30 seconds.

    Args:
        origin: Where the settings come from.
        as_json: Tell it as one JSON object.
        out: Where to.
        now: Wall clock, Unix seconds.

    Raises:
        SettingsError: The configuration is invalid, so that nothing was examined. The
            JSON object has been written all the same.
    """
    try:
        settings = origin.load()
    except SettingsError as exc:
        if as_json:
            report.write(report.clean(_invalid(exc), ()), out, as_json=True)
        raise
    diagnosis = anyio.run(examine, origin, settings, now)
    report.write(diagnosis, out, as_json=as_json)
    return diagnosis.exit_code


async def examine(
    origin: Origin, settings: Settings, now: Callable[[], float]
) -> Diagnosis:
    """Examine all targets at once, and this machine; what is returned may be shown."""
    asyncio.get_running_loop().set_default_executor(DaemonThreads())
    async with open_session() as session:
        targets = CarefulTargets(session, now, origin.environ)
        each = {
            name: Examination(
                targets, name, target, settings.poll.timeout, origin.environ
            )
            for name, target in settings.targets.items()
        }
        files: dict[str, list[Finding]] = {name: [] for name in each}
        daemon: list[Finding] = []
        known = origin.secrets(settings)
        async with anyio.create_task_group() as tasks:
            for name, target in settings.targets.items():
                tasks.start_soon(each[name].run)
                tasks.start_soon(_look_at_files, name, target, known, files[name])
            tasks.start_soon(_look_around, settings, origin, session, now, daemon)
    secrets = [
        *secrets_in(settings),
        *(secret for one in each.values() for secret in one.secrets),
    ]
    found = {name: [*each[name].findings, *files[name]] for name in each}
    return report.clean(Diagnosis(found, daemon), secrets)


async def _look_around(
    settings: Settings,
    origin: Origin,
    session: aiohttp.ClientSession,
    now: Callable[[], float],
    findings: list[Finding],
) -> None:
    store = settings.store
    if is_shared(store.url):
        password = store.password.get_secret_value() if store.password else None
        findings += await look_at_shared_store(store.url, password, now)
    else:
        findings.append(await look_at_store(store.url, origin.environ))
    findings.append(await look_at_listen(settings.server, session))


async def _look_at_files(
    name: str, target: Target, secrets: Collection[str], findings: list[Finding]
) -> None:
    findings += await look_at_job_files(name, target, secrets)


def _invalid(exc: SettingsError) -> Diagnosis:
    hint = "correct the setting; the daemon does not start with it"
    step = "configuration"
    return Diagnosis(
        {}, [fail(step, each, hint, Fault.SETTINGS) for each in exc.findings]
    )
