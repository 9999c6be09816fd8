"""Failing polls are told on the edge: once per target, or once per job."""

from watcher.core.errors import Reason
from watcher.core.model import JobKey, Level, PollFailed
from watcher.core.outages import Outages

A, B = JobKey("prod", "a"), JobKey("prod", "b")


def failed(outages, key, reason):
    failure = PollFailed(reason, 503, "APIGW.0601", "broken", "r-1")
    return [(n.event, n.fields["reason"]) for n in outages.failed(key, failure, 7)]


def recovered(outages, key):
    return [(n.event, n.fields["reason"]) for n in outages.succeeded(key)]


def test_a_reason_of_the_target_is_told_once_and_recovers_with_the_last_job():
    outages = Outages("prod")
    assert failed(outages, A, Reason.SERVER_ERROR) == [
        ("poll.failing", Reason.SERVER_ERROR)
    ]
    assert failed(outages, A, Reason.SERVER_ERROR) == []
    assert failed(outages, B, Reason.SERVER_ERROR) == []
    assert outages.failing
    assert set(outages.of_target()) == set(outages) == {A, B}
    assert recovered(outages, A) == []
    assert recovered(outages, B) == [("poll.recovered", Reason.SERVER_ERROR)]
    assert recovered(outages, B) == []
    assert not outages.failing


def test_a_reason_of_a_job_is_told_once_for_each():
    outages = Outages("prod")
    for key in (A, B):
        assert failed(outages, key, Reason.MALFORMED) == [
            ("poll.failing", Reason.MALFORMED)
        ]
        assert failed(outages, key, Reason.MALFORMED) == []
    assert not outages.failing
    assert outages.of_target() == []
    assert recovered(outages, A) == [("poll.recovered", Reason.MALFORMED)]


def test_a_change_of_reason_is_two_edges():
    outages = Outages("prod")
    failed(outages, A, Reason.UNREACHABLE)
    assert failed(outages, A, Reason.THROTTLED) == [
        ("poll.recovered", Reason.UNREACHABLE),
        ("poll.failing", Reason.THROTTLED),
    ]


def test_a_forgotten_job_holds_no_outage_open():
    outages = Outages("prod")
    failed(outages, A, Reason.REJECTED)
    outages.forget(A)
    assert not outages.failing
    assert failed(outages, B, Reason.REJECTED) == [("poll.failing", Reason.REJECTED)]


def test_fields():
    (notice,) = Outages("prod").failed(
        A, PollFailed(Reason.REJECTED, 401, "APIGW.0301", "no", "r-1"), 7
    )
    assert notice.level is Level.WARNING
    assert notice.fields == {
        "target": "prod",
        "reason": "rejected",
        "status_code": 401,
        "error_code": "APIGW.0301",
        "error_msg": "no",
        "request_id": "r-1",
        "jobs": 7,
    }
    (notice,) = Outages("prod").failed(A, PollFailed(Reason.NOT_FOUND), 7)
    assert notice.fields["job_id"] == "a"
    assert "jobs" not in notice.fields


class TestList:
    """The list call has an outage of its own."""

    def test_it_is_told_on_the_edges(self):
        outages = Outages("prod")
        throttled = PollFailed(Reason.THROTTLED, 429, "APIGW.0308", "slow", "r-1")
        (notice,) = outages.list_failed(throttled)
        assert (notice.event, notice.level) == ("poll.failing", Level.WARNING)
        assert notice.fields == {
            "target": "prod",
            "call": "list",
            "reason": "throttled",
            "status_code": 429,
            "error_code": "APIGW.0308",
            "error_msg": "slow",
            "request_id": "r-1",
        }
        assert outages.failing
        assert outages.list_failed(throttled) == []
        (notice,) = outages.list_succeeded()
        assert (notice.event, notice.level) == ("poll.recovered", Level.INFO)
        assert notice.fields == {
            "target": "prod",
            "call": "list",
            "reason": "throttled",
        }
        assert outages.list_succeeded() == []
        assert not outages.failing

    def test_any_reason_counts_and_a_change_of_it_is_two_edges(self):
        outages = Outages("prod")
        outages.list_failed(PollFailed(Reason.MALFORMED))
        assert outages.failing
        told = outages.list_failed(PollFailed(Reason.REJECTED))
        assert [(n.event, n.fields["reason"]) for n in told] == [
            ("poll.recovered", Reason.MALFORMED),
            ("poll.failing", Reason.REJECTED),
        ]

    def test_it_is_not_mixed_with_that_of_the_jobs(self):
        outages = Outages("prod")
        outages.list_failed(PollFailed(Reason.UNREACHABLE))
        assert failed(outages, A, Reason.UNREACHABLE) == [
            ("poll.failing", Reason.UNREACHABLE)
        ]
        assert len(outages.list_succeeded()) == 1
        assert outages.failing
        assert outages.of_target() == [A]
