"""Any bytes are a value or `Malformed`, and whatever is said of them is one line."""

import json
from contextlib import nullcontext

try:
    import atheris
except ImportError:  # the ordinary tests do without it
    atheris = None

with atheris.instrument_imports(include=["watcher"]) if atheris else nullcontext():
    from watcher.client.classify import LONGEST_MESSAGE, classify
    from watcher.core.errors import ApiError, Malformed
    from watcher.core.journal import envelope
    from watcher.core.model import (
        JobKey,
        JobRecord,
        JournalEvent,
        ListPage,
        PollFailed,
        Snapshot,
    )
    from watcher.core.outages import Outages
    from watcher.core.tracker import advance
    from watcher.core.wire import decode_job, decode_page
    from watcher.logs import _console, _json

JOB_ID = "j"
KEY = JobKey("prod", JOB_ID)
NOW = 1_750_000_000.0
STATUSES = (302, 400, 401, 403, 404, 429, 500)
_show = _console(colours=False)


def check(data):
    """Check everything that is promised of an answer's body."""
    event = _read(decode_job, data, JOB_ID)
    assert isinstance(event, Snapshot | Malformed)
    assert isinstance(_read(decode_page, data), ListPage | Malformed)
    if isinstance(event, Malformed):
        _check_lines(_told_of_failure(event))
    else:
        _check_lines(_told(event))
    headers = {"X-Request-Id": data[:80].decode("latin-1"), "Retry-After": "5"}
    for status in STATUSES:
        error = classify(status, headers, data, NOW)
        assert isinstance(error, ApiError)
        assert len(error.message) <= LONGEST_MESSAGE
        assert all(map(str.isprintable, (error.message, error.request_id or "")))
        _check_lines(_told_of_failure(error))


def _read(decode, *arguments):
    try:
        return decode(*arguments)
    except Malformed as error:
        return error


def _told(snapshot):
    """Yield the lines of a job that is seen thus, and of one that changes to it."""
    fresh = JobRecord(KEY, "p")
    first = advance(fresh, snapshot, NOW)
    again = advance(first.record, snapshot, NOW + 10)
    assert not again.transitions or again.record.phase is not first.record.phase
    known = JobRecord(KEY, "p", job=snapshot.job, first_seen_at=NOW)
    for step in (first, again, advance(known, snapshot, NOW)):
        for transition in step.transitions:
            yield envelope(JournalEvent(1, transition))
        yield from ({"event": n.event, **n.fields} for n in step.notices)


def _told_of_failure(error):
    failure = PollFailed(
        error.reason, error.status_code, error.error_code, error.message
    )
    for notice in Outages("prod").failed(KEY, failure, 1):
        yield {"event": notice.event, **notice.fields}


def _check_lines(lines):
    for line in lines:
        encoded = _json(None, "info", dict(line))
        assert b"\n" not in encoded
        json.loads(encoded)
        stamped = {"timestamp": "", "level": "info", **line}
        assert _show(None, "info", stamped).decode().isprintable()
