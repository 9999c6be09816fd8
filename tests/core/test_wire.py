"""Every form that the API's pages give an answer, and everything that is none."""

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.core.errors import Malformed
from watcher.core.model import Item, Job, Snapshot, Task
from watcher.core.wire import (
    LARGEST_COUNT,
    LONGEST_ID,
    LONGEST_MESSAGE,
    LONGEST_NAME,
    LONGEST_WORD,
    MOST_ENTRIES,
    MOST_ITEMS,
    MOST_ROWS,
    MOST_TASKS,
    decode_job,
    decode_page,
    parse_time,
)

PAGE_EXAMPLE = {
    "create_at": 1757558550702,
    "update_at": 1757558564458,
    "id": "0319470a-7fad-452e-bff0-d3ba3bd83955",
    "name": "software-query",
    "description": "Query Huawei Cloud AI software.",
    "type": "ASCEND_SOFTWARE_QUERY",
    "status": "FINISHED",
    "items": [{"type": "HDK_QUERY"}],
    "tasks": [
        {
            "create_at": 1757558550733,
            "update_at": 1757558564470,
            "id": "0319470a-2524-4b1e-bb91-09e776701d78",
            "server_id": "3384bdb0-2d31-4fe9-946e-09e776701d78",
            "server_name": "liteserver-a2-aiserver-test",
            "cloud_server": {
                "id": "0c12a47a-0103-4fdb-bf85-7a09a8f53ac9",
                "type": "BMS",
            },
            "status": "SUCCESS",
            "message": "Driver: 24.1.0.3 | Firmware: 7.5.0.5.220",
        }
    ],
    "template_id": "2b087a09-e90d-414c-9b15-ffec45e400e7",
    "user_name": "modelarts_user",
    "abnormal_count": 0,
}


def decode(**fields):
    return decode_job(json.dumps({"id": "j", **fields}).encode(), "j")


def test_example_of_the_api_page():
    snapshot = decode_job(json.dumps(PAGE_EXAMPLE).encode(), PAGE_EXAMPLE["id"])
    assert snapshot == Snapshot(
        Job(
            id="0319470a-7fad-452e-bff0-d3ba3bd83955",
            status="FINISHED",
            abnormal_count=0,
            name="software-query",
            type="ASCEND_SOFTWARE_QUERY",
            description="Query Huawei Cloud AI software.",
            template_id="2b087a09-e90d-414c-9b15-ffec45e400e7",
            user_name="modelarts_user",
            created_at=1757558550.702,
            updated_at=1757558564.458,
            items=(Item("HDK_QUERY"),),
        ),
        (
            Task(
                id="0319470a-2524-4b1e-bb91-09e776701d78",
                status="SUCCESS",
                server_id="3384bdb0-2d31-4fe9-946e-09e776701d78",
                server_name="liteserver-a2-aiserver-test",
                cloud_server_id="0c12a47a-0103-4fdb-bf85-7a09a8f53ac9",
                cloud_server_type="BMS",
                message="Driver: 24.1.0.3 | Firmware: 7.5.0.5.220",
                created_at=1757558550.733,
                updated_at=1757558564.470,
            ),
        ),
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1757558550702, 1757558550.702),
        (1757558550702.0, 1757558550.702),
        (1757558550, 1757558550.0),
        ("1757558550702", 1757558550.702),
        (" 1757558550702 ", 1757558550.702),
        ("2025-09-11T02:42:30.702Z", 1757558550.702),
        ("2025-09-11T10:42:30.702+08:00", 1757558550.702),
        ("2025-09-11 02:42:30", 1757558550.0),  # no zone: UTC
        (None, None),
        ("", None),
        ("yesterday", None),
        ("9999-12-31T23:59:59-23:59", None),  # past the last year
        (True, None),  # not one second past the epoch
        (0, None),
        (-1, None),
        (10**400, None),
        ("9" * 5000, None),
        ([], None),
        ({}, None),
    ],
)
def test_times(value, seconds):
    assert parse_time(value) == seconds


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Snapshot(Job("j"), None)),
        ({"tasks": None, "items": None}, Snapshot(Job("j"), None)),
        ({"tasks": []}, Snapshot(Job("j"), ())),
        ({"abnormal_count": None}, Snapshot(Job("j"), None)),
        ({"abnormal_count": ""}, Snapshot(Job("j"), None)),
        ({"abnormal_count": "3"}, Snapshot(Job("j", abnormal_count=3), None)),
        ({"abnormal_count": 3.0}, Snapshot(Job("j", abnormal_count=3), None)),
        ({"status": ""}, Snapshot(Job("j"), None)),
        ({"status": "ACTIVE"}, Snapshot(Job("j", status="ACTIVE"), None)),
        ({"name": 7, "type": True}, Snapshot(Job("j", name="7", type="True"), None)),
        ({"name": {}, "user_name": []}, Snapshot(Job("j"), None)),
        ({"unknown": {"deep": [1]}}, Snapshot(Job("j"), None)),
        ({"items": "none"}, Snapshot(Job("j"), None)),
        (
            {"items": [{"type": "A", "spec": {"n": 1, "s": "x", "o": {}}}]},
            Snapshot(Job("j", items=(Item("A", {"n": "1", "s": "x", "o": ""}),)), None),
        ),
        ({"items": [{"spec": 3}]}, Snapshot(Job("j", items=(Item(None),)), None)),
        # A task without a status is in no known state; one without an id is its server.
        ({"tasks": [{"id": "t"}]}, Snapshot(Job("j"), (Task("t", "UNKNOWN"),))),
        (
            {"tasks": [{"server_id": "s", "status": "FAILED"}]},
            Snapshot(Job("j"), (Task("s", "FAILED", server_id="s"),)),
        ),
        (
            {"tasks": [{"id": "t", "cloud_server": "BMS", "message": 5}]},
            Snapshot(Job("j"), (Task("t", "UNKNOWN", message="5"),)),
        ),
        # The same id twice, equally old: an end counts more than none.
        (
            {
                "tasks": [
                    {"id": "t", "status": "SUCCESS", "update_at": 2000000000},
                    {"id": "u", "status": "PROCESSING"},
                    {"id": "t", "status": "PROCESSING", "update_at": 2000000000},
                    {"id": "u", "status": "FAILED"},
                ]
            },
            Snapshot(
                Job("j"),
                (
                    Task("t", "SUCCESS", updated_at=2000000000.0),
                    Task("u", "FAILED"),
                ),
            ),
        ),
        # The same id twice: the younger row counts, at the place of the first.
        (
            {
                "tasks": [
                    {"id": "t", "status": "SUCCESS", "update_at": 2000000000},
                    {"id": "u", "status": "FAILED"},
                    {"id": "t", "status": "PROCESSING", "update_at": 1000000000},
                    {"id": "u", "status": "SUCCESS"},
                ]
            },
            Snapshot(
                Job("j"),
                (
                    Task("t", "SUCCESS", updated_at=2000000000.0),
                    Task("u", "SUCCESS"),
                ),
            ),
        ),
    ],
)
def test_oddities_that_are_answers(fields, expected):
    assert decode(**fields) == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "truncated"),
        (b"<html>", "malformed"),
        (b"null", "Expected `object`"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `id`"),
        (b'{"error_code":"ModelArts.0010","error_msg":"x"}', "`id`"),
        (b'{"id":"k"}', "another job"),
        (b'{"id":7}', "$.id"),
        (b'{"id":"j"', "truncated"),
        (b'{"id":"j","status":3}', "$.status"),
        (b'{"id":"j","tasks":{}}', "$.tasks"),
        (b'{"id":"j","tasks":[null]}', "$.tasks"),
        (b'{"id":"j","tasks":[{}]}', "neither an id nor a server_id"),
        (b'{"id":"j","tasks":[{"id":"t","status":1}]}', "$.tasks[0].status"),
        (b'{"id":"j","abnormal_count":-1}', "abnormal_count"),
        (b'{"id":"j","abnormal_count":1.5}', "abnormal_count"),
        (b'{"id":"j","abnormal_count":1e999}', "Number out of range"),
        (b'{"id":"j","abnormal_count":"many"}', "abnormal_count"),
        (b'{"id":"j","abnormal_count":true}', "$.abnormal_count"),
        (b'{"id":"j","x":' + b"[" * 100_000, "recursion"),
        (b"[" * 100_000, "Expected `object`"),
    ],
)
def test_oddities_that_are_none(body, words):
    with pytest.raises(Malformed) as caught:
        decode_job(body, "j")
    assert words.lower() in caught.value.message.lower()


def test_a_broken_byte_in_a_text_hides_no_result():
    body = b'{"id":"j","tasks":[{"id":"t","status":"FAILED","message":"a\xffb"}]}'
    assert decode_job(body, "j").tasks == (Task("t", "FAILED", message="a\ufffdb"),)


def test_a_broken_byte_outside_a_text():
    with pytest.raises(Malformed):
        decode_job(b'\xff{"id":"j"}', "j")


def test_long_texts_are_cut():
    task = decode(tasks=[{"id": "t", "message": "x" * 10**6}]).tasks[0]
    assert len(task.message) == LONGEST_MESSAGE
    assert task.message.endswith("…")


@pytest.mark.parametrize("char", ["x", "é", "阿", "\N{GRINNING FACE}", '"', "\\"])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("lead", ["", "x", "xx"])
def test_the_beginning_of_a_text_among_strange_fields(char, ascii_only, lead):
    """A text that is read as a piece of the body, since another field is strange."""
    text = lead + char * 300_000
    fields = {"id": "j", "name": text, "type": {}, "description": text}
    job = decode_job(json.dumps(fields, ensure_ascii=ascii_only).encode(), "j").job
    assert (len(job.name), len(job.description)) == (LONGEST_NAME, LONGEST_MESSAGE)
    assert job.description == text[: LONGEST_MESSAGE - 1] + "…"
    assert job.type is None


def test_what_only_describes_and_is_huge_is_nothing():
    huge = [{}] * 100_000
    job = decode(
        name=huge,
        items=huge,
        description=[{}],
        tasks=[{"id": "t", "cloud_server": {"id": "c", "x": huge}, "message": 5}],
    )
    assert (job.job.name, job.job.items, job.job.description) == (None, (), None)
    assert job.tasks == (Task("t", "UNKNOWN", message="5"),)


def test_items_and_their_entries_are_cut():
    spec = {f"{number}" + "k" * 1000: "v" for number in range(MOST_ENTRIES + 1)}
    items = decode(items=[{"type": "A", "spec": spec}] * 2).job.items
    assert len(items[0].spec) == MOST_ENTRIES
    assert max(map(len, items[0].spec)) == LONGEST_NAME
    assert len(decode(items=[{"type": "A"}] * (MOST_ITEMS + 1)).job.items) == MOST_ITEMS


def test_a_word_of_8_megabytes_is_cut():
    word = "x" * 8_000_000
    snapshot = decode(status=word, tasks=[{"id": "t", "status": word}])
    assert len(snapshot.job.status) == len(snapshot.tasks[0].status) == LONGEST_WORD


@pytest.mark.parametrize("length", [LONGEST_ID + 1, 8_000_000])
def test_an_id_that_is_too_long_is_refused_unquoted(length):
    for decode_any in (
        lambda: decode(tasks=[{"id": "x" * length}]),
        lambda: decode_page(json.dumps({"data": [{"id": "x" * length}]}).encode()),
    ):
        with pytest.raises(Malformed) as caught:
            decode_any()
        assert "xx" not in caught.value.message
    assert decode(tasks=[{"id": "x" * LONGEST_ID}]).tasks


def test_a_count_that_nobody_can_count_to():
    assert decode(abnormal_count=LARGEST_COUNT).job.abnormal_count == LARGEST_COUNT
    for count in (LARGEST_COUNT + 1, 10**30, "9" * 4000):
        with pytest.raises(Malformed):
            decode(abnormal_count=count)


BOMB = 32 * 1024 * 1024
MOST_HELD = 80 * 1024 * 1024  # a text that is no UTF-8 is held twice
BOMBS = {
    "tasks": (b'"tasks":[', b'{"id":"1"},'),
    "empty": (b'"tasks":[', b'{"x":[]},'),
    "items": (b'"items":[', b"{},"),
    "spec": (b'"items":[{"spec":[', b"{},"),
    "entry": (b'"items":[{"spec":{"a":[', b'"ab",'),
    "name": (b'"name":[', b'"ab",'),
    "unheard": (b'"unheard":[', b"[],"),
    "message": (b'"tasks":[{"id":"1","message":[', b"1.5,"),
    "server": (b'"tasks":[{"id":"1","cloud_server":[', b"{},"),
}


@pytest.mark.parametrize("name", [*BOMBS, "bytes"])
def test_a_bomb_of_32_megabytes_is_not_unpacked(name):
    lead, part = BOMBS.get(name, (b'"name":"', b"\xff"))
    ends = b"".join({91: b"]", 123: b"}"}.get(each, b"") for each in reversed(lead))
    filled = part * (BOMB // len(part)) + (b"{}" if name in BOMBS else b'"')
    body = b'{"id":"j",' + lead + filled + ends + b"}"
    tracemalloc.start()
    try:
        with contextlib.suppress(Malformed):
            decode_job(body, "j")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_HELD


@pytest.mark.parametrize("strange", [{}, {"name": {}}])
def test_more_tasks_than_allowed_are_refused(strange):
    tasks = [{"id": str(number)} for number in range(21)]
    body = json.dumps({"id": "j", **strange, "tasks": tasks}).encode()
    with pytest.raises(Malformed, match="more tasks"):
        decode_job(body, "j", max_tasks=20)
    assert len(decode_job(body, "j", max_tasks=21).tasks) == 21
    many = [{"id": str(number)} for number in range(MOST_TASKS)]
    assert len(decode(tasks=many).tasks) == MOST_TASKS


def test_more_rows_than_a_page_may_have_are_refused():
    rows = [{"id": "a"}] * (MOST_ROWS + 1)
    with pytest.raises(Malformed, match="jobs"):
        decode_page(json.dumps({"data": rows}).encode())
    assert decode_page(json.dumps({"data": rows[1:]}).encode()).rows


def test_a_page_of_the_list():
    body = json.dumps(
        {
            "current": 1,
            "pages": 3,
            "size": 10,
            "total": 23,
            "data": [{"id": "a", "status": "PROCESSING", "abnormal_count": 2}],
        }
    )
    page = decode_page(body.encode())
    assert page.rows == (Job("a", status="PROCESSING", abnormal_count=2),)
    assert (page.current, page.pages, page.size, page.total) == (1, 3, 10, 23)


def test_a_page_without_data():
    with pytest.raises(Malformed):
        decode_page(b'{"total":0}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
field_names = st.sampled_from(
    [*PAGE_EXAMPLE, *PAGE_EXAMPLE["tasks"][0], "spec", "data", "total"]
)
jobs_like = st.dictionaries(
    field_names,
    json_values | st.lists(st.dictionaries(field_names, json_values), max_size=3),
)


@given(st.binary())
def test_any_bytes_decode_or_are_malformed(body):
    for decode_any in (lambda: decode_job(body, "j"), lambda: decode_page(body)):
        with contextlib.suppress(Malformed):
            decode_any()


@given(jobs_like)
def test_any_job_like_json_decodes_or_is_malformed(fields):
    body = json.dumps({"id": "j", **fields}).encode()
    try:
        snapshot = decode_job(body, "j")
    except Malformed:
        return
    assert snapshot.job.id == "j"
    ids = [task.id for task in snapshot.tasks or ()]
    assert len(ids) == len(set(ids))
