"""Every documented error answer, one row each, and what must never happen to any."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watcher.client.classify import classify, not_about_a_job, one_line
from watcher.core.errors import (
    ApiError,
    JobNotFound,
    Malformed,
    Refusal,
    Rejected,
    ServerError,
    Throttled,
)

NOW = 1_700_000_000.0
REQUEST, PERMISSION, TOKEN = Refusal.REQUEST, Refusal.PERMISSION, Refusal.TOKEN


def judge(status, body=b"", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(status, names, body, NOW)


def said(code, text="why"):
    return json.dumps({"error_code": code, "error_msg": text}).encode()


@pytest.mark.parametrize(
    ("status", "code", "kind", "refusal"),
    [
        (404, "APIGW.0101", Rejected, REQUEST),
        (404, "APIGW.0103", Rejected, REQUEST),
        (404, "APIG.0101", Rejected, REQUEST),
        (404, "APIGW.9999", Rejected, REQUEST),
        (400, "APIGW.0104", Rejected, REQUEST),
        (400, "APIGW.0105", Rejected, REQUEST),
        (400, "APIGW.0106", Rejected, REQUEST),
        (400, "APIGW.0602", Rejected, REQUEST),
        (400, "APIGW.0607", Rejected, REQUEST),
        (400, "APIGW.0201", Rejected, REQUEST),
        (413, "APIGW.0201", Rejected, REQUEST),
        (414, "APIGW.0201", Rejected, REQUEST),
        (494, "APIGW.0201", Rejected, REQUEST),
        (502, "APIGW.0201", ServerError, None),
        (504, "APIGW.0201", ServerError, None),
        (401, "APIGW.0301", Rejected, Refusal.SIGNATURE),
        (401, "APIG.0301", Rejected, Refusal.SIGNATURE),
        (403, "APIGW.0302", Rejected, PERMISSION),
        (403, "APIGW.0304", Rejected, PERMISSION),
        (403, "APIGW.0306", Rejected, PERMISSION),
        (403, "APIGW.0310", Rejected, PERMISSION),
        (403, "APIGW.0401", Rejected, PERMISSION),
        (403, "APIGW.0402", Rejected, PERMISSION),
        (403, "APIGW.0404", Rejected, PERMISSION),
        (403, "APIGW.0801", Rejected, PERMISSION),
        (403, "APIGW.0802", Rejected, PERMISSION),
        (401, "APIGW.0303", Rejected, PERMISSION),
        (401, "APIGW.0305", Rejected, PERMISSION),
        (401, "APIGW.0311", Rejected, PERMISSION),
        (401, "APIGW.0307", Rejected, TOKEN),
        (401, "APIG.0307", Rejected, TOKEN),
        (403, "APIGW.0307", Rejected, TOKEN),
        (429, "APIGW.0308", Throttled, None),
        (400, "APIG.0308", Throttled, None),
        (503, "APIGW.0308", Throttled, None),
        (401, "APIGW.0308", Rejected, PERMISSION),
        (405, "APIGW.0501", Rejected, REQUEST),
        (405, "APIGW.0502", Rejected, REQUEST),
        (500, "APIGW.0601", ServerError, None),
        (500, "APIGW.0605", ServerError, None),
        (500, "APIGW.0606", ServerError, None),
        (500, "APIGW.0608", ServerError, None),
        (500, "APIGW.0609", ServerError, None),
        (502, "APIGW.0610", ServerError, None),
        (500, "APIGW.0611", ServerError, None),
        (500, "APIGW.0612", ServerError, None),
        (503, "APIGW.0613", ServerError, None),
        (500, "APIGW.0705", ServerError, None),
        (400, "ModelArts.6404", JobNotFound, None),
        (400, "ModelArts.0102", JobNotFound, None),
        (400, "ModelArts.6309", JobNotFound, None),
        (400, "ModelArts.7005", JobNotFound, None),
        (404, "ModelArts.6404", JobNotFound, None),
        (404, "ModelArts.1234", JobNotFound, None),
        (403, "ModelArts.6404", Rejected, PERMISSION),
        (500, "ModelArts.6404", ServerError, None),
        (400, "ModelArts.7000", Rejected, REQUEST),
        (400, "ModelArts.6400", Rejected, REQUEST),
        (400, "ModelArts.6401", Rejected, TOKEN),
        (401, "ModelArts.6401", Rejected, TOKEN),
        (403, "ModelArts.6407", Rejected, PERMISSION),
        (500, "ModelArts.0010", ServerError, None),
        (500, "ModelArts.0109", Rejected, PERMISSION),
        (503, "ModelArts.0109", ServerError, None),
        (500, "ModelArts.6102", ServerError, None),
        (429, "ModelArts.2799", Throttled, None),
        (429, "ModelArts.4206", Throttled, None),
        (429, "ModelArts.4395", Throttled, None),
        (429, "ModelArts.6101", Throttled, None),
        (429, "ModelArts.72060075", Throttled, None),
        (400, "ModelArts.6101", Throttled, None),
        (408, "ModelArts.6100", ServerError, None),
        (503, "ModelArts.4302", ServerError, None),
        (503, "ModelArts.4700", ServerError, None),
        (504, "ModelArts.4503", ServerError, None),
        *((401, f"ModelArts.0{n}", Rejected, TOKEN) for n in range(201, 213)),
        (401, "ModelArts.0213", Rejected, PERMISSION),
        (401, "ModelArts.4127", Rejected, PERMISSION),
        (401, "ModelArts.6620", Rejected, PERMISSION),
        (403, "ModelArts.0108", Rejected, PERMISSION),
        (403, "ModelArts.0112", Rejected, PERMISSION),
    ],
)
def test_status_and_code_decide(status, code, kind, refusal):
    error = judge(status, said(code))
    assert type(error) is kind
    assert getattr(error, "refusal", None) is refusal
    assert (error.status_code, error.error_code) == (status, code)
    assert error.message == "why"


ECHO = "|/v1/p/||host:h|x-auth-token:t|x-security-token:t|signature expired|"


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (f"verify aksk signature fail, canonicalRequest:GET{ECHO}", Refusal.SIGNATURE),
        ("AK access failed to reach the limit, forbidden", Refusal.LOCKED),
        ("Get secretKey failed, ak:A not exist", Refusal.UNKNOWN_KEY),
        ("ak not exist", Refusal.UNKNOWN_KEY),
        ("calc ak sk signature fail:signature expired", Refusal.EXPIRED),
        ("Incorrect IAM authentication information: decrypt token fail", TOKEN),
        ("token expires, expires_at:2026-01-01T00:00:00Z", TOKEN),
        ("x-auth-token not found", TOKEN),
        ("Incorrect IAM authentication information", Refusal.SIGNATURE),
    ],
)
def test_the_text_of_a_401_tells_what_to_mend(text, refusal):
    assert judge(401, said("APIGW.0301", text)).refusal is refusal
    assert judge(403, said("APIGW.0302", text)).refusal is PERMISSION


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"error_code": "A", "error_msg": "m"}, "A", "m"),
        ({"errorCode": "A", "errorMsg": "m"}, "A", "m"),
        ({"errorCode": "A", "errorMessage": "m"}, "A", "m"),
        ({"code": "A", "message": "m"}, "A", "m"),
        ({"code": 17, "message": "m"}, "17", "m"),
        ({"error": {"code": "A", "message": "m"}}, "A", "m"),
        ({"x": {"y": {"error_code": "A", "error_msg": "m"}}}, "A", "m"),
        (
            {"code": "B", "message": "n", "error_code": "A", "error_msg": "m"},
            "A",
            "m",
        ),
        (
            {"x": {"error_code": "B", "error_msg": "n"}, "code": "A", "message": "m"},
            "A",
            "m",
        ),
        ({"error_code": "A"}, "A", "HTTP 400 without a word of explanation"),
        ({"error_code": "", "error_msg": "m"}, None, None),
        ({"code": 404}, None, None),
        ({"status": 404, "error": "Not Found"}, None, None),
        (["error_code"], None, None),
    ],
)
def test_shapes_of_an_error_body(body, code, message):
    raw = json.dumps(body)
    error = judge(400, raw.encode())
    assert error.error_code == code
    assert error.message == (raw if message is None else message)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b"<html>404 page not found</html>", Malformed),
        (404, b"", Malformed),
        (404, b'{"status":404,"error":"Not Found"}', Malformed),
        (404, b'{"error_code":"ModelArts.6404","err', Malformed),
        (301, b"", Malformed),
        (302, b"<html>", Malformed),
        (304, b"", Malformed),
        (307, b"", Malformed),
        (201, b"{}", Malformed),
        (204, b"", Malformed),
        (206, b"{}", Malformed),
        (401, b"<html>", Rejected),
        (403, b"<html>", Rejected),
        (400, b"<html>", Rejected),
        (410, b"", Rejected),
        (429, b"<html>", Throttled),
        (502, b"<html>502 Bad Gateway</html>", ServerError),
        (599, b"", ServerError),
        (400, b"[" * 60_000, Rejected),
        (400, b'\xef\xbb\xbf{"error_code":"ModelArts.6404"}', JobNotFound),
    ],
)
def test_answers_that_are_not_the_apis(status, body, kind):
    error = judge(status, body)
    assert type(error) is kind
    assert error.message


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None)])
def test_retry_after(header, seconds):
    assert judge(429, retry_after=header).retry_after == seconds
    assert judge(503, Retry_After=header).retry_after == seconds


def test_message_is_one_short_line():
    text = "a\nb\x1b[31m\u202ec\ud800" + "x" * 1000
    error = judge(500, said("A\nB" + "C" * 100, text), X_Request_Id="r\n" + "d" * 500)
    assert error.message.startswith("a b\ufffd[31m\ufffdc\ufffd")
    assert len(error.message) == 256
    assert error.error_code == "A B" + "C" * 61
    assert error.request_id == "r " + "d" * 62
    error.message.encode()


@given(st.text())
def test_one_line_is_printable_and_short(text):
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= 256
    line.encode()


@given(st.integers(100, 999), st.binary(), st.text(max_size=40), st.text(max_size=40))
def test_any_answer_is_named(status, body, retry, date):
    error = classify(status, {"Retry-After": retry, "date": date}, body, NOW)
    assert isinstance(error, ApiError)
    assert error.status_code == status
    assert error.retry_after is None or 0 <= error.retry_after <= 3600
    assert (type(error) is JobNotFound) <= (status in {400, 404})


@given(
    st.sampled_from([401, 403]),
    st.sampled_from(["APIGW.0308", "ModelArts.6404", "ModelArts.0109", "X", None]),
    st.text(),
)
def test_401_and_403_are_always_refusals(status, code, text):
    assert type(judge(status, said(code, text))) is Rejected


def test_not_found_of_a_call_that_names_no_job_is_a_fault_of_the_request():
    error = not_about_a_job(judge(404, said("IAM.0004"), X_Request_Id="r"))
    assert type(error) is Rejected
    assert (error.refusal, error.status_code) == (REQUEST, 404)
    assert (error.error_code, error.request_id) == ("IAM.0004", "r")
