"""Faults that spoil what a good answer says: its JSON changes, its HTTP does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from watcher.simulator.answers import Answer, Document, encode
from watcher.simulator.timeline import PROCESSING

HOSTILE = (
    'ok\n{"event":"job.finished","phase":"succeeded"}\r\n'
    "\x1b[2J\x1b[31m\x00\u202e\u2028"
    "\"'><script>alert(1)</script>{{7*7}}\\"
)
"""A text for everybody who trusts texts: logs, terminals, pages, label values."""

STRANGE_ID = "ffffffff-ffff-4fff-bfff-ffffffffffff"

# A lone surrogate is written as the single byte 0xff, which no UTF-8 text holds.
NOT_UTF8 = "Driver: \udcff\udcfe"


def _subjects(answer: Document) -> list[Document]:
    """Return the job of a detail answer, or the rows of a list answer."""
    rows = answer.get("data")
    return rows if isinstance(rows, list) else [answer]


def _tasks(answer: Document) -> list[Document]:
    return answer.get("tasks") or []


def _wrong_id(answer: Document) -> bool:
    for subject in _subjects(answer):
        subject["id"] = STRANGE_ID
    return bool(_subjects(answer))


def _duplicate_tasks(answer: Document) -> bool:
    tasks = _tasks(answer)
    tasks += [task | {"status": PROCESSING, "message": ""} for task in tasks]
    return bool(tasks)


def _missing_tasks(answer: Document) -> bool:
    return answer.pop("tasks", None) is not None


def _null_tasks(answer: Document) -> bool:
    if "tasks" not in answer:
        return False
    answer["tasks"] = None
    return True


def _vanish(answer: Document) -> bool:
    tasks = _tasks(answer)
    vanished = tasks[:1]
    del tasks[:1]
    return bool(vanished)


def _flip(answer: Document) -> bool:
    ended = [task for task in _tasks(answer) if task["status"] != PROCESSING]
    for task in ended:
        task["status"] = PROCESSING
    return bool(ended)


def _stale_rows(answer: Document) -> bool:
    rows = [row for row in answer.get("data") or [] if row["status"] == PROCESSING]
    for row in rows:
        row.update(update_at=row["create_at"], abnormal_count=0)
    return bool(rows)


def _unknown_words(answer: Document) -> bool:
    return _write(answer, {"status": "HIBERNATING"}, {"status": "QUEUED"})


def _wrong_types(answer: Document) -> bool:
    return _write(
        answer,
        {"abnormal_count": "two", "create_at": {"$date": 0}, "name": ["software"]},
        {"status": 7, "message": {"text": None}, "cloud_server": "BMS"},
    )


def _bad_utf8(answer: Document) -> bool:
    return _write(answer, {"description": NOT_UTF8}, {"message": NOT_UTF8})


def _hostile_text(answer: Document) -> bool:
    return _write(
        answer,
        {"name": HOSTILE, "description": HOSTILE, "user_name": HOSTILE},
        {"message": HOSTILE, "server_name": HOSTILE},
    )


def _write(answer: Document, of_job: Document, of_task: Document) -> bool:
    for subject in _subjects(answer):
        subject.update(of_job)
    for task in _tasks(answer):
        task.update(of_task)
    return bool(_subjects(answer))


DISTORTIONS: Mapping[str, Callable[[Document], bool]] = {
    "wrong_id": _wrong_id,
    "duplicate_tasks": _duplicate_tasks,
    "missing_tasks": _missing_tasks,
    "null_tasks": _null_tasks,
    "vanish": _vanish,
    "flip": _flip,
    "stale_rows": _stale_rows,
    "unknown_words": _unknown_words,
    "wrong_types": _wrong_types,
    "bad_utf8": _bad_utf8,
    "hostile_text": _hostile_text,
}
"""By kind of fault, what changes the answer in place and tells whether it could."""


def distort(kind: str, answer: Answer) -> Answer | None:
    """Return the spoilt answer, or None where there was nothing to spoil."""
    if answer.status != HTTPStatus.OK:
        return None
    document: Any = json.loads(answer.body)
    if not DISTORTIONS[kind](document):
        return None
    return replace(answer, body=encode(document))
