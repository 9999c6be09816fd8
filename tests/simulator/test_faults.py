"""Fault rules: how they are written, which requests they hit, what each does."""

from __future__ import annotations

import json
import re
from email.utils import parsedate_to_datetime

import aiohttp
import anyio
import pytest

from tests.simulator.asking import (
    ACCESS_KEY,
    SECRET_KEY,
    ask,
    detail,
    jobs_path,
    page,
    signed,
)
from watcher.simulator import (
    KINDS,
    Fault,
    SimulatorOptions,
    load_faults,
    parse_faults,
    simulate,
)
from watcher.simulator.canned import CANNED
from watcher.simulator.distortions import DISTORTIONS, HOSTILE
from watcher.simulator.faultbook import FaultBook
from watcher.simulator.wire import DELIVERIES


def paused(text="", **more):
    return simulate(
        SimulatorOptions(
            **{"speed": 0.0, "tasks": 3, "faults": parse_faults(text)} | more
        )
    )


def test_every_kind_is_carried_out_somewhere():
    carried_out = {*CANNED, *DISTORTIONS, *DELIVERIES, "skewed_date"}
    assert carried_out == set(KINDS)


def test_both_notations_say_the_same():
    compact = parse_faults(
        "429:call=list,every=3,retry_after=5; hang:job=abc,count=2,seconds=0.5;gone"
    )
    as_json = parse_faults(
        json.dumps(
            [
                {"kind": "429", "call": "list", "every": 3, "retry_after": "5"},
                {"kind": "hang", "job": "abc", "count": 2, "seconds": 0.5},
                {"kind": "gone"},
            ]
        )
    )
    assert compact == as_json
    assert compact == (
        Fault(kind="429", call="list", every=3, retry_after="5"),
        Fault(kind="hang", job="abc", count=2, seconds=0.5),
        Fault(kind="gone"),
    )


def test_a_script_may_be_a_file(tmp_path):
    script = tmp_path / "bad-day.json"
    script.write_text('{"kind": "500", "percent": 10}', encoding="utf-8")
    assert load_faults(str(script)) == (Fault(kind="500", percent=10.0),)
    assert load_faults("500:percent=10") == (Fault(kind="500", percent=10.0),)
    assert load_faults("") == ()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("fourtwonine", "unknown kind 'fourtwonine'"),
        ("429:cal=list", "unknown key 'cal'"),
        ("429:call=lst", "unknown call 'lst'"),
        ("429:every=often", "every=often is not a number"),
        ("429:every=0", "every=0"),
        ("429:percent=101", "percent=101"),
        ("429:list", "'list' in '429:list' is not key=value"),
        ("429:clock=sundial", "unknown clock 'sundial'"),
        ("[{}]", "has no kind"),
        ("[1]", "1 is not an object"),
        ("[", "not JSON"),
        ("missing-file.json", "cannot read missing-file.json"),
    ],
)
def test_a_bad_script_is_told_in_one_line_that_names_the_word(text, word):
    with pytest.raises(ValueError, match=re.escape(word)) as caught:
        load_faults(text)
    assert str(caught.value).startswith("faults: ")
    assert "\n" not in str(caught.value)


def hits(text, requests, seed=1):
    """Return which of these requests (call, job, real, scenario) a rule hits."""
    book = FaultBook(parse_faults(text), seed)
    found = []
    for number, request in enumerate(requests, start=1):
        rule = book.pick(*request)
        if rule is not None:
            rule.applied += 1
            found.append(number)
    return found


TEN = [("detail", "a", float(second), 10.0 * second) for second in range(10)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("500", list(range(1, 11))),
        ("500:nth=3", [3]),
        ("500:every=4", [4, 8]),
        ("500:count=2", [1, 2]),
        ("500:every=3,count=2", [3, 6]),
        ("500:after=3,until=5", [4, 5]),
        ("500:after=50,until=70,clock=simulated", [6, 7]),
        ("500:job=b", []),
        ("500:job=a,nth=1", [1]),
        ("500:call=list", []),
        ("500:percent=0", []),
        ("500:percent=100", list(range(1, 11))),
        ("500:nth=2;503", list(range(1, 11))),
    ],
)
def test_which_requests_a_rule_hits(rule, expected):
    assert hits(rule, TEN) == expected


def test_percent_is_a_share_by_a_seeded_chance():
    many = TEN * 100
    first, again, other = (hits("500:percent=30", many, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert 240 < len(first) < 360


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("429", 429, "throttling threshold has been reached"),
        ("500", 500, "ModelArts.0010"),
        ("502_html", 502, "<h1>502 Bad Gateway</h1>"),
        ("503", 503, "APIGW.0613"),
        ("504", 504, "APIGW.0201"),
        ("403", 403, "APIGW.0302"),
        ("404_html", 404, "<h1>404 Not Found</h1>"),
        ("404_apigw", 404, "APIGW.0101"),
        ("404_json", 404, "ModelArts.6404"),
        ("gone", 400, "ModelArts.6404"),
        ("bad_signature", 401, "verify aksk signature fail"),
        ("unknown_key", 401, "ak not exist"),
        ("expired", 401, "signature expired"),
        ("locked", 401, "reach the limit"),
        ("token_expired", 401, "APIGW.0307"),
        ("not_json", 200, "OK: see /status"),
        ("html_200", 200, "Please log in"),
        ("empty_200", 200, ""),
    ],
)
async def test_answers_in_the_services_place(kind, status, text):
    async with paused(f"{kind}:count=1") as sim:
        got = await detail(sim)
        assert (got.status, (await detail(sim)).status) == (status, 200)
        assert text in got.body.decode()
        assert (text == "") == (got.body == b"")
        assert ("text/html" in got.headers["Content-Type"]) == ("html" in kind)
        assert "X-Request-Id" in got.headers
        first, second = sim.requests
        assert (first.fault, first.status) == (kind, status)
        assert (second.fault, second.status) == (None, 200)
        assert sim.requests.faults == {kind: 1}


async def test_throttling_with_and_without_retry_after():
    async with paused("429:nth=1;429:retry_after=7") as sim:
        assert "Retry-After" not in (await detail(sim)).headers
        assert (await detail(sim)).headers["Retry-After"] == "7"


async def test_redirect():
    async with paused("302:location=https://elsewhere.example/x") as sim:
        got = await detail(sim)
    assert got.status == 302
    assert got.headers["Location"] == "https://elsewhere.example/x"


async def test_an_error_that_quotes_credentials():
    keys = {ACCESS_KEY: SECRET_KEY}
    async with paused("echo_secret:status=400", credentials=keys) as sim:
        target = jobs_path(sim)
        headers = signed(sim, target, x_security_token="session-token")
        got = await ask(sim, target, headers=headers)
    assert got.status == 400
    for secret in (headers["authorization"], SECRET_KEY, "session-token"):
        assert secret in got.message


async def spoilt(kind):
    """Return a good detail answer, the spoilt one and the spoilt list page."""
    async with paused(f"{kind}:after=0") as sim:
        sim.jobs.finish(sim.job_ids[0])
        spoilt_job, spoilt_page = await detail(sim), await page(sim)
        sim.faults.clear()
        return (await detail(sim)).json, spoilt_job, spoilt_page


async def test_wrong_id():
    good, job, rows = await spoilt("wrong_id")
    assert job.json == good | {"id": job.json["id"]}
    assert job.json["id"] != good["id"]
    assert good["id"] not in rows.body.decode()


async def test_duplicate_tasks():
    good, job, _ = await spoilt("duplicate_tasks")
    ids = [task["id"] for task in job.json["tasks"]]
    assert ids == 2 * [task["id"] for task in good["tasks"]]
    assert {task["status"] for task in job.json["tasks"][3:]} == {"PROCESSING"}


async def test_missing_and_null_tasks():
    good, missing, rows = await spoilt("missing_tasks")
    assert missing.json == {name: good[name] for name in good if name != "tasks"}
    assert len(rows.json["data"]) == 10
    good, null, _ = await spoilt("null_tasks")
    assert null.json == good | {"tasks": None}


async def test_vanish_and_flip():
    good, vanished, _ = await spoilt("vanish")
    assert vanished.json == good | {"tasks": good["tasks"][1:]}
    good, flipped, _ = await spoilt("flip")
    assert {task["status"] for task in good["tasks"]} == {"SUCCESS"}
    assert {task["status"] for task in flipped.json["tasks"]} == {"PROCESSING"}


async def test_unknown_words():
    _, job, rows = await spoilt("unknown_words")
    assert job.json["status"] == rows.json["data"][0]["status"] == "HIBERNATING"
    assert job.json["tasks"][0]["status"] == "QUEUED"


async def test_wrong_types():
    _, job, rows = await spoilt("wrong_types")
    assert job.json["abnormal_count"] == rows.json["data"][0]["abnormal_count"] == "two"
    assert job.json["tasks"][0]["status"] == 7


async def test_bad_utf8():
    _, job, rows = await spoilt("bad_utf8")
    for got in (job, rows):
        with pytest.raises(UnicodeDecodeError):
            got.body.decode()
        assert json.loads(got.body.decode(errors="replace"))


async def test_hostile_text():
    _, job, rows = await spoilt("hostile_text")
    assert job.json["name"] == rows.json["data"][0]["name"] == HOSTILE
    assert job.json["tasks"][0]["message"] == HOSTILE
    assert all(text in HOSTILE for text in ("\n", "\x1b[", "<script>", '"'))


async def test_a_fault_that_has_nothing_to_spoil_waits():
    async with paused("flip:count=1") as sim:
        assert (await detail(sim)).status == 200
        assert (await detail(sim, "unknown-job")).status == 400
        assert next(iter(sim.faults)).applied == 0
        assert [entry.fault for entry in sim.requests] == [None, None]
        sim.jobs.finish(sim.job_ids[0])
        await detail(sim)
        assert next(iter(sim.faults)).applied == 1


async def test_an_error_is_not_spoilt():
    async with paused("wrong_id:count=1") as sim:
        assert "unknown-job" in (await detail(sim, "unknown-job")).message
        assert (await detail(sim)).json["id"] != sim.job_ids[0]


async def test_reset():
    async with paused("reset") as sim:
        with pytest.raises(aiohttp.ClientOSError, match="reset"):
            await detail(sim)
        # The client may try a GET a second time by itself.
        assert {(e.fault, e.status) for e in sim.requests} == {("reset", None)}


async def test_hang_for_ever_and_for_a_while():
    async with paused("hang:nth=1;hang:seconds=0.3") as sim:
        with pytest.raises(TimeoutError):
            await detail(sim, within=0.2)
        with anyio.fail_after(5):
            got = await detail(sim)
        assert got.status == 200
        first, second = sim.requests
        assert (first.status, second.status) == (None, 200)
        assert sim.requests.in_flight == 0


async def test_slow_drip():
    async with paused("slow_drip:nth=1,seconds=0.05;slow_drip:seconds=0") as sim:
        async with (
            aiohttp.ClientSession() as session,
            session.get(sim.url + jobs_path(sim)) as response,
        ):
            first, _ = await response.content.readchunk()
            second, _ = await response.content.readchunk()
            assert (len(first), len(second)) == (1, 1)
        assert (await page(sim)).json["total"] == 12


async def test_truncated():
    async with paused("truncated") as sim:
        with pytest.raises(aiohttp.ClientPayloadError):
            await detail(sim)


async def test_big_body():
    async with paused("big_body:size=3000000") as sim:
        got = await detail(sim)
    assert got.headers["Transfer-Encoding"] == "chunked"
    assert got.json["id"] == sim.job_ids[0]
    assert len(got.json["padding"]) == 3_000_000


async def test_deep_nesting():
    async with paused("deep_nesting") as sim:
        got = await detail(sim)
    assert got.body.count(b"[") > 100_000
    with pytest.raises(RecursionError):
        json.loads(got.body)
    async with paused("deep_nesting:size=3") as sim:
        assert (await detail(sim)).json["nested"] == [[[]]]


async def test_skewed_date():
    async with paused("skewed_date:count=1,seconds=-7200") as sim:
        skewed, true = [
            parsedate_to_datetime((await detail(sim)).headers["Date"]).timestamp()
            for _ in range(2)
        ]
    assert true - skewed == pytest.approx(7200, abs=2)


async def test_faults_can_hit_the_token_call_alone():
    async with paused("503:call=token") as sim:
        assert (await ask(sim, "/v3/auth/tokens", "POST", body={})).status == 503
        assert (await detail(sim)).status == 200
