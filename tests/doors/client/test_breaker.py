"""At most three refused requests in any 5 minutes, whatever happens."""

import itertools
from contextlib import suppress

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.doors.client.servers import JOB, KEY, api, cloud, ok, refuse, shared
from watcher.client.breaker import (
    MOST_REFUSED,
    WINDOW,
    Breakers,
    Circuit,
    Outcome,
    outcome_of,
)
from watcher.client.credentials.static import NoCredentials, StaticCredentials
from watcher.client.signing import Key
from watcher.core.errors import (
    ApiError,
    JobNotFound,
    Malformed,
    Refusal,
    Rejected,
    ServerError,
    Throttled,
    Unreachable,
)

ACCEPTED, REFUSED, LOCKED, UNCLEAR = Outcome


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Rejected("", refusal=Refusal.LOCKED, status_code=401), LOCKED),
        (Rejected("", refusal=Refusal.SIGNATURE, status_code=401), REFUSED),
        (Rejected("", refusal=Refusal.UNKNOWN_KEY, status_code=401), REFUSED),
        (Rejected("", refusal=Refusal.EXPIRED, status_code=401), REFUSED),
        (Rejected("", refusal=Refusal.TOKEN, status_code=401), REFUSED),
        (Rejected("", refusal=Refusal.PERMISSION, status_code=401), REFUSED),
        (Rejected("", refusal=Refusal.CREDENTIALS, status_code=401), REFUSED),
        (
            Rejected("", refusal=Refusal.PERMISSION, status_code=403, error_code="X"),
            ACCEPTED,
        ),
        (Rejected("", refusal=Refusal.PERMISSION, status_code=403), UNCLEAR),
        (Rejected("", refusal=Refusal.REQUEST, status_code=404), UNCLEAR),
        (JobNotFound("", status_code=404), ACCEPTED),
        (Malformed(""), UNCLEAR),
        (Throttled(""), UNCLEAR),
        (ServerError(""), UNCLEAR),
        (Unreachable(""), UNCLEAR),
    ],
)
def test_what_a_failure_says_about_the_key(error, outcome):
    assert outcome_of(error) is outcome


def admitted(circuit, now, most=100):
    return sum(1 for _ in range(most) if circuit.admit(now))


def proven(now=0.0):
    circuit = Circuit()
    assert circuit.admit(now)
    circuit.settle(now, ACCEPTED)
    return circuit


def test_an_unproven_key_goes_one_at_a_time():
    circuit = Circuit()
    assert admitted(circuit, 0.0) == 1
    circuit.settle(0.0, UNCLEAR)
    assert admitted(circuit, 0.0) == 1
    circuit.settle(0.0, ACCEPTED)
    assert admitted(circuit, 0.0) == MOST_REFUSED


def test_a_refusal_takes_a_place_for_five_minutes():
    circuit = proven()
    assert admitted(circuit, 0.0) == 3
    circuit.settle(1.0, REFUSED)
    assert admitted(circuit, 1.0) == 0
    circuit.settle(2.0, ACCEPTED)
    assert admitted(circuit, 2.0) == 1  # with one in flight, one refused
    circuit.settle(2.0, ACCEPTED)
    circuit.settle(2.0, ACCEPTED)
    assert admitted(circuit, 2.0) == 2


def test_the_third_refusal_opens_it_until_the_first_is_old():
    circuit = Circuit()
    for moment in (0.0, 100.0, 200.0):
        assert circuit.admit(moment)
        assert not circuit.opened
        circuit.settle(moment, REFUSED)
    assert circuit.opened
    assert circuit.hold(200.0) == 100.0
    assert not circuit.admit(299.9)
    assert circuit.admit(WINDOW)
    assert circuit.opened  # until it is accepted
    circuit.settle(WINDOW, ACCEPTED)
    assert not circuit.opened


def test_a_locked_key_opens_it_at_once():
    circuit = proven()
    assert circuit.admit(10.0)
    circuit.settle(10.0, LOCKED)
    assert circuit.opened
    assert circuit.hold(10.0) == WINDOW
    assert not circuit.admit(309.9)
    assert circuit.admit(310.0)


def test_an_acceptance_that_comes_late_does_not_end_a_lock():
    circuit = proven()
    assert admitted(circuit, 0.0, 2) == 2
    circuit.settle(1.0, LOCKED)
    circuit.settle(2.0, ACCEPTED)
    assert circuit.opened
    assert not circuit.admit(3.0)


def test_a_key_that_was_refused_is_suspect_however_long_ago():
    circuit = proven()
    assert circuit.admit(0.0)
    circuit.settle(0.0, REFUSED)
    assert admitted(circuit, 2 * WINDOW) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from([None, ACCEPTED, REFUSED, REFUSED, LOCKED, UNCLEAR]),
        st.sampled_from([0.0, 0.1, 1.0, 40.0, 99.0, 299.0, 300.0, 301.0]),
        st.integers(0, 5),
    ),
    max_size=80,
)


@settings(max_examples=500)
@given(STEPS)
def test_never_more_than_three_refusals_in_any_five_minutes(steps):
    """`None` asks to go; anything else ends one request that is in flight."""
    circuit, now, refused = Circuit(), 0.0, []
    in_flight = []
    for outcome, pause, which in steps:
        now += pause
        if outcome is None:
            while circuit.admit(now):
                in_flight.append(now)
        elif in_flight:
            in_flight.pop(which % len(in_flight))
            circuit.settle(now, outcome)
            if outcome in {REFUSED, LOCKED}:
                refused.append(now)
    for moment in refused:
        assert sum(moment <= other < moment + WINDOW for other in refused) <= 3


@given(STEPS)
def test_it_always_opens_again(steps):
    circuit, now, in_flight = Circuit(), 0.0, 0
    for outcome, pause, _ in steps:
        now += pause
        if outcome is None:
            in_flight += circuit.admit(now)
        elif in_flight:
            in_flight -= 1
            circuit.settle(now, outcome)
    for _ in range(in_flight):
        circuit.settle(now, UNCLEAR)
    assert 0 <= circuit.hold(now) <= WINDOW + 1e-6
    # Half a second of grace for the rounding of floats.
    assert circuit.admit(now + circuit.hold(now) + 0.5)


async def burst(count, *targets):
    """Fetch many times at once; return what became of it."""
    outcomes = []

    async def one(target):
        try:
            await target.fetch(JOB)
            outcomes.append(None)
        except ApiError as exc:
            outcomes.append(exc)

    async with anyio.create_task_group() as group:
        for target in itertools.islice(itertools.cycle(targets), count):
            group.start_soon(one, target)
    return outcomes


async def slow(response):
    await anyio.sleep(0.02)
    return response


@pytest.mark.parametrize("text", ["verify aksk signature fail", "ak not exist", "?"])
async def test_a_wrong_key_is_refused_three_times_in_a_burst(text):
    async with shared() as on, cloud(lambda _r: slow(refuse(text=text))) as server:
        target = api(on, server)
        outcomes = await burst(50, target)
        assert target.locked
    assert len(server.seen) == 3
    assert server.most_in_flight == 1
    held = [error for error in outcomes if error.status_code is None]
    assert len(held) == 47
    assert {error.refusal for error in held} == {outcomes[0].refusal}
    assert all(290 < error.retry_after <= 300 for error in held)
    assert all(text in error.message for error in held)


async def test_targets_share_the_breaker_of_a_key():
    async with shared() as on, cloud(lambda _r: slow(refuse())) as server:
        one, two = api(on, server), api(on, server)
        other = api(on, server, StaticCredentials(Key("OTHER", SecretStr("s"))))
        await burst(20, one, two)
        assert len(server.seen) == 3
        assert one.locked
        assert two.locked
        assert not other.locked
        await burst(20, other)
    assert len(server.seen) == 6


async def test_a_locked_key_is_left_alone_at_once():
    def answer(_request):
        return slow(refuse(text="AK access failed to reach the limit, forbidden"))

    async with shared() as on, cloud(answer) as server:
        target = api(on, server)
        outcomes = await burst(16, target)
    assert len(server.seen) == 1
    assert {error.refusal for error in outcomes} == {Refusal.LOCKED}


@pytest.mark.parametrize("latency", [0.02, 0.4])
async def test_a_key_that_is_revoked_under_load_is_refused_three_times(latency):
    async def answer(response):
        await anyio.sleep(latency)
        return response

    async with shared() as on, cloud(lambda _r: answer(ok())) as server:
        target = api(on, server)
        assert await burst(16, target) == [None] * 16
        assert server.most_in_flight == MOST_REFUSED
        async with anyio.create_task_group() as group:
            group.start_soon(burst, 64, target)
            await anyio.sleep(1.5 * latency)
            server.answer = lambda _r: answer(refuse())
            server.seen.clear()
        assert target.locked
    assert len(server.seen) <= MOST_REFUSED
    assert server.most_in_flight == MOST_REFUSED


@pytest.mark.parametrize(
    "response", [lambda: refuse(429, "APIGW.0308"), lambda: refuse(403, "APIGW.0302")]
)
async def test_other_failures_do_not_open_it(response):
    async with shared() as on, cloud(lambda _r: response()) as server:
        target = api(on, server)
        outcomes = await burst(16, target)
        assert not target.locked
    assert len(server.seen) == 16
    assert {error.status_code for error in outcomes} == {response().status}


async def test_new_credentials_close_it_at_once_and_old_ones_count_again():
    changes = []
    wrong, right = Key("AK", SecretStr("wrong")), Key("AK", SecretStr("right"))

    def answer(_request):
        return ok() if credentials.key is right else refuse()

    class Given(StaticCredentials):
        key = wrong

        def replace(self, key):
            self.key = key
            super().replace(key)

    credentials = Given(wrong)
    async with (
        shared(on_change=lambda *change: changes.append(change)) as on,
        cloud(answer) as server,
    ):
        target = api(on, server, credentials)
        await burst(8, target)
        assert (len(server.seen), target.locked) == (3, True)
        credentials.replace(right)
        assert await burst(8, target) == [None] * 8
        assert not target.locked
        credentials.replace(wrong)
        server.seen.clear()
        await burst(8, target)
        assert (len(server.seen), target.locked) == (3, True)
        credentials.replace(right)
        assert await burst(8, target) == [None] * 8
    assert [account for account, _ in changes] == ["AK"] * 4
    assert [refusal and refusal.refusal for _, refusal in changes] == [
        Refusal.SIGNATURE,
        None,
        Refusal.SIGNATURE,
        None,
    ]
    assert changes[0][1].message == "verify aksk signature fail"


async def test_one_key_with_two_secrets_does_not_reset_itself():
    wrong = StaticCredentials(Key(KEY.access_key, SecretStr("wrong-secret")))
    wrong_too = StaticCredentials(Key(KEY.access_key, SecretStr("wrong-again")))
    async with shared() as on, cloud(lambda _r: refuse()) as server:
        one, two = api(on, server, wrong), api(on, server, wrong_too)
        for _ in range(10):
            await burst(2, one, two)
    assert len(server.seen) <= 2 * 3


async def test_targets_that_are_given_the_same_new_key_reset_it_once():
    credentials = [StaticCredentials(KEY) for _ in range(4)]
    async with shared() as on, cloud(lambda _r: refuse()) as server:
        targets = [api(on, server, given) for given in credentials]
        await burst(8, *targets)
        for given_ in credentials:
            given_.replace(Key(KEY.access_key, SecretStr("still-wrong")))
        await burst(8, *targets)
        await burst(8, *targets)
    assert len(server.seen) == 6


async def test_it_opens_and_closes_with_time(monkeypatch):
    """The window is five minutes; here it is a fifth of a second."""
    monkeypatch.setattr("watcher.client.breaker.WINDOW", 0.2)
    changes = []
    async with (
        shared(on_change=lambda *change: changes.append(change[1])) as on,
        cloud(lambda _r: refuse()) as server,
    ):
        target = api(on, server)
        for _ in range(3):
            await burst(8, target)
            assert target.locked
            await anyio.sleep(0.25)
        assert len(server.seen) == 9
        server.answer = lambda _r: ok()
        await target.fetch(JOB)
        assert not target.locked
    assert [bool(change) for change in changes] == [True, False]


async def test_a_waiter_gives_up_in_time():
    async def never(_request):
        await anyio.sleep(60)

    async with (
        shared() as on,
        cloud(never) as server,
        anyio.create_task_group() as group,
    ):
        group.start_soon(api(on, server, timeout=60).fetch, JOB)
        while not server.seen:  # noqa: ASYNC110 - it has no event to wait for
            await anyio.sleep(0.01)
        outcomes = await burst(3, api(on, server, timeout=0.2))
        group.cancel_scope.cancel()
    assert len(server.seen) == 1
    assert {type(error) for error in outcomes} == {Unreachable}


@pytest.mark.parametrize("ended", [False, True])
async def test_who_gives_up_leaves_the_line_to_the_next(ended):
    """Whether they give up before or just after their turn has come."""
    breaker, through = Breakers().of("AK"), []

    async def one(scope, name):
        with scope:
            async with breaker.attempt("f", changed=False):
                through.append(name)

    scopes = [anyio.CancelScope() for _ in range(6)]
    with anyio.fail_after(2):
        async with anyio.create_task_group() as group:
            with suppress(Unreachable):
                async with breaker.attempt("f", changed=False):
                    for name, scope in enumerate(scopes):
                        group.start_soon(one, scope, name)
                    await anyio.wait_all_tasks_blocked()
                    if not ended:
                        for scope in scopes[:4]:
                            scope.cancel()
                        await anyio.wait_all_tasks_blocked()
                    raise Unreachable("")
            for scope in scopes[:4]:
                scope.cancel()
    assert {4, 5} <= set(through)


async def test_an_old_answer_does_not_speak_for_new_credentials():
    changes = []
    breaker = Breakers(lambda *change: changes.append(change)).of("AK")
    with suppress(Rejected):
        async with breaker.attempt("old", changed=True):
            async with breaker.attempt("new", changed=True):
                pass
            raise Rejected("", refusal=Refusal.LOCKED, status_code=401)
    assert not breaker.locked
    assert not changes


async def test_breakers_of_keys_long_gone_are_forgotten():
    breakers = Breakers()
    with pytest.raises(Rejected):
        async with breakers.of("suspect").attempt("f", changed=True):
            raise Rejected("", refusal=Refusal.LOCKED, status_code=401)
    for number in range(1000):
        async with breakers.of(f"AK{number}").attempt("f", changed=True):
            pass
    assert len(breakers._breakers) < 100
    assert breakers.of("suspect").locked


async def test_a_target_says_how_many_may_be_on_their_way():
    async with shared() as on, cloud() as server:
        target, other = api(on, server), api(on, server)
        assert (target.account, target.key_limit) == (None, 1)
        await target.fetch(JOB)
        assert (target.account, target.key_limit) == (KEY.access_key, 3)
        server.answer = lambda _r: refuse()
        await burst(1, other)
        assert (target.key_limit, other.key_limit) == (1, 1)
        server.answer = lambda _r: ok()
        await target.fetch(JOB)
        assert target.key_limit == 2


async def test_where_nothing_is_signed_any_number_may_be_on_its_way():
    async with shared() as on, cloud() as server:
        target = api(on, server, NoCredentials())
        assert target.key_limit == 1
        await target.fetch(JOB)
        assert (target.account, target.key_limit) == (None, None)
        server.answer = lambda _r: slow(ok())
        await burst(16, target)
    assert server.most_in_flight > 3
