"""Looks at what a daemon needs of this machine, without getting in its way."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from functools import partial
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryFile

import aiohttp

from watcher.doctor.background import call
from watcher.doctor.findings import Finding, fail, ok, warn
from watcher.polling.folder import find
from watcher.polling.sources import JobFiles
from watcher.settings import schema as given
from watcher.store import database_path

LONGEST = 5.0
"""Seconds for each look."""

_BLOCK = b"\0" * 4096
_OURS = "devserver-watcher"
_LOOPBACK = {
    "": ("127.0.0.1", "::1"),
    "0.0.0.0": ("127.0.0.1",),  # noqa: S104
    "::": ("::1",),
}


async def look_at_job_files(
    name: str, target: given.Target, secrets: Collection[str]
) -> list[Finding]:
    """Read the job files of a target as the daemon does."""
    source = JobFiles(name, target.job_files, secrets)
    try:
        unmatched = await call(partial(_unmatched, target.job_files), LONGEST)
        reading = await call(source.look, LONGEST)
    except TimeoutError:
        return [_late("job_files")]
    findings = [_nothing_matches(pattern) for pattern in unmatched]
    findings += [_unreadable(problem) for problem in reading.problems]
    if target.job_files and not findings:
        findings.append(ok("job_files", f"{len(reading.keys)} jobs in them"))
    if not (reading.keys or target.jobs or target.discover):
        findings.append(_idle(name))
    return findings


def _unmatched(patterns: Sequence[str]) -> list[str]:
    looks = {pattern: find([pattern]) for pattern in patterns}
    return [
        pattern for pattern, found in looks.items() if not (found.files or found.closed)
    ]


def _idle(name: str) -> Finding:
    hint = f"set targets.{name}.jobs, job_files or discover, or add jobs over HTTP"
    return warn("jobs", "no job is watched", hint)


def _nothing_matches(pattern: str) -> Finding:
    hint = "files may come later; if one is there, check the path and who may read it"
    return warn("job_files", f"no file matches {pattern}", hint)


def _unreadable(problem: str) -> Finding:
    hint = "correct the file, or let the daemon's user read it; until then the daemon "
    return fail("job_files", problem, f"{hint}keeps the ids that it has read before")


async def look_at_store(url: str, environ: Mapping[str, str]) -> Finding:
    """Tell whether the store can be opened, or is open in a daemon."""
    try:
        path = database_path(url, environ)
        if path is None:
            return ok("store", "records are kept in memory, so a restart forgets them")
        return await call(partial(_look_at_database, path), LONGEST)
    except TimeoutError:
        return _late("store")


def _look_at_database(path: Path) -> Finding:
    shown = path.absolute()
    try:
        _try_writing(path)
        holder = _holder(Path(f"{path.resolve()}.lock"))
    except OSError as exc:
        text = f"{exc.filename or shown}: {os.strerror(exc.errno or errno.EIO)}"
        return fail("store", text, _advise_store(exc))
    if holder is not None:
        return ok("store", f"{shown}: a daemon with pid {holder} holds it")
    return ok("store", f"{shown} can be written, and no daemon holds it")


def _try_writing(path: Path) -> None:
    """Write a nameless file beside the store; leave what is there alone."""
    with TemporaryFile(dir=path.parent) as probe:
        probe.write(_BLOCK)
    for each in (path, Path(f"{path}.lock")):
        if each.is_dir():
            raise IsADirectoryError(errno.EISDIR, "", str(each))
        if each.exists() and not os.access(each, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, "", str(each))


def _holder(lock: Path) -> str | None:
    """Return the process that holds a store, None if there is none."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # Shared and for a moment only, so that a daemon's own start hardly meets it.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        return said or "unknown"
    finally:
        os.close(descriptor)
    return None


def _advise_store(exc: OSError) -> str:
    match exc.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return (
                "make the folder, or correct store.url; a relative one starts from "
                "$STATE_DIRECTORY, else from the working folder"
            )
        case errno.ENOSPC | errno.EDQUOT:
            return "make room on the file system"
        case errno.EISDIR:
            return "name a file in store.url"
        case _:
            return (
                "let this user write the folder and the file, or run the doctor as the "
                "daemon's user"
            )


async def look_at_listen(
    server: given.Server, session: aiohttp.ClientSession
) -> Finding:
    """Tell whether the address of the pages is free, or a watcher serves them there."""
    host, port = server.address
    try:
        problem = await call(partial(_bind, host, port), LONGEST)
    except TimeoutError:
        return _late("listen")
    if problem is None:
        return ok("listen", f"{server.listen} is free")
    text = f"cannot listen on {server.listen}: {problem.strerror}"
    if problem.errno != errno.EADDRINUSE:
        hint = "name an address of this machine in server.listen"
        if problem.errno == errno.EACCES:
            hint = "name a port from 1024 on in server.listen, or grant the capability"
        return fail("listen", text, hint)
    return await _who_listens(server, session, text)


def _bind(host: str, port: int) -> OSError | None:
    """Take the address without listening, and let it go; return what stands against."""
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            try:
                probe = socket.socket(family, kind, protocol)
            except OSError:  # the daemon too goes on without a family that is missing
                continue
            with closing(probe):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as exc:
        return exc
    return None


async def _who_listens(
    server: given.Server, session: aiohttp.ClientSession, text: str
) -> Finding:
    host, port = server.address
    for local in _LOOPBACK.get(host, (host,)):
        address = f"{f'[{local}]' if ':' in local else local}:{port}"
        for scheme in ("http", "https"):
            status = await _status(f"{scheme}://{address}/healthz", session)
            if status is not None:
                return _ours(server, unwell=status == HTTPStatus.SERVICE_UNAVAILABLE)
    return fail(
        "listen",
        f"{text}, and it is no watcher that holds it",
        "name another port in server.listen, or end what holds this one",
    )


async def _status(url: str, session: aiohttp.ClientSession) -> int | None:
    """Return the status of a watcher's page; None if no watcher answers."""
    try:
        async with session.get(
            url,
            allow_redirects=False,
            ssl=False,  # it is shown nothing, and its certificate names another host
            timeout=aiohttp.ClientTimeout(total=LONGEST / 4),
        ) as answer:
            return answer.status if answer.headers.get("Server") == _OURS else None
    except (aiohttp.ClientError, OSError, ValueError):
        return None


def _ours(server: given.Server, *, unwell: bool) -> Finding:
    text = f"{server.listen} is held by a running watcher"
    if unwell:
        hint = "see its log; its supervisor should have started it again"
        return warn("listen", f"{text}, whose poll loop stands still", hint)
    return ok("listen", text)


def _late(step: str) -> Finding:
    return fail(
        step,
        f"no result within {LONGEST:g} s",
        "see whether a file system or a name server hangs",
    )
