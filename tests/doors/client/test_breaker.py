"""No more refusals than a gateway stands, whatever happens."""

import itertools
from contextlib import suppress

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.doors.client.servers import JOB, KEY, api, cloud, ok, refuse, shared
from watcher.client.breaker import (
    MOST_IN_FLIGHT,
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


def admitted(circuit, now, most=MOST_IN_FLIGHT):
    """Let go all that may; return their tickets."""
    tickets = []
    while (ticket := circuit.admit(now, most)) is not None:
        tickets.append(ticket)
    return tickets


def proven(now=0.0):
    circuit = Circuit()
    circuit.settle(now, circuit.admit(now, 1), ACCEPTED)
    return circuit


def settle(circuit, now, tickets, outcome):
    circuit.settle(now, tickets.pop(0), outcome)


def test_an_unproven_key_goes_one_at_a_time():
    circuit = Circuit()
    tickets = admitted(circuit, 0.0)
    assert len(tickets) == 1
    settle(circuit, 0.0, tickets, UNCLEAR)
    tickets = admitted(circuit, 0.0)
    assert len(tickets) == 1
    settle(circuit, 0.0, tickets, ACCEPTED)
    assert len(admitted(circuit, 0.0)) == MOST_IN_FLIGHT


@pytest.mark.parametrize("most", [1, 5, 16])
def test_an_accepted_key_has_as_many_on_their_way_as_is_set(most):
    assert len(admitted(proven(), 0.0, most)) == most


def test_after_a_refusal_one_goes_at_a_time_once_the_others_are_back():
    circuit = proven()
    tickets = admitted(circuit, 0.0, 2)
    settle(circuit, 1.0, tickets, REFUSED)
    assert admitted(circuit, 1.0) == []
    settle(circuit, 2.0, tickets, UNCLEAR)
    tickets = admitted(circuit, 2.0)
    assert len(tickets) == 1
    settle(circuit, 3.0, tickets, ACCEPTED)
    assert len(admitted(circuit, 3.0)) == MOST_IN_FLIGHT, "what is past is not counted"


def test_an_answer_to_what_was_sent_before_a_refusal_proves_nothing():
    circuit = proven()
    tickets = admitted(circuit, 0.0)
    settle(circuit, 1.0, tickets, REFUSED)
    for _ in range(MOST_IN_FLIGHT - 1):
        assert admitted(circuit, 2.0) == []
        settle(circuit, 2.0, tickets, ACCEPTED)
    assert len(admitted(circuit, 3.0)) == 1


def test_the_third_refusal_opens_it_until_the_first_is_old():
    circuit = Circuit()
    for moment in (0.0, 100.0, 200.0):
        tickets = admitted(circuit, moment)
        assert not circuit.opened
        settle(circuit, moment, tickets, REFUSED)
    assert circuit.opened
    assert circuit.hold(200.0) == 100.0
    assert admitted(circuit, 299.9) == []
    tickets = admitted(circuit, WINDOW)
    assert len(tickets) == 1
    assert circuit.opened  # until it is accepted
    settle(circuit, WINDOW, tickets, ACCEPTED)
    assert not circuit.opened


def test_a_locked_key_opens_it_at_once():
    circuit = proven()
    settle(circuit, 10.0, admitted(circuit, 10.0, 1), LOCKED)
    assert circuit.opened
    assert circuit.hold(10.0) == WINDOW
    assert admitted(circuit, 309.9) == []
    assert admitted(circuit, 310.0)


def test_an_acceptance_that_comes_late_does_not_end_a_lock():
    circuit = proven()
    tickets = admitted(circuit, 0.0, 2)
    settle(circuit, 1.0, tickets, LOCKED)
    settle(circuit, 2.0, tickets, ACCEPTED)
    assert circuit.opened
    assert admitted(circuit, 3.0) == []


def test_a_key_that_was_refused_is_suspect_however_long_ago():
    circuit = proven()
    settle(circuit, 0.0, admitted(circuit, 0.0, 1), REFUSED)
    assert len(admitted(circuit, 2 * WINDOW)) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "judge", "answer", "answer", "change", "lose"]),
        st.sampled_from([0.0, 0.1, 1.0, 40.0, 99.0, 299.0, 300.0, 301.0]),
        st.integers(0, 15),
    ),
    max_size=120,
)


class World:
    """A gateway that judges requests, and answers, each in any order."""

    def __init__(self, most):
        self.circuit, self.most = Circuit(), most
        self.good, self.now = True, 0.0
        self.sent, self.judged, self.refused = [], [], []
        self.running = self.most_running = 0

    def step(self, what, pause, which):
        self.now += pause
        match what:
            case "send":
                self.sent += admitted(self.circuit, self.now, self.most)
            case "judge" if self.sent:
                ticket = self.sent.pop(which % len(self.sent))
                self.judged.append((ticket, ACCEPTED if self.good else REFUSED))
                self.running = 0 if self.good else self.running + 1
                self.most_running = max(self.running, self.most_running)
            case "answer" if self.judged:
                ticket, outcome = self.judged.pop(which % len(self.judged))
                self.circuit.settle(self.now, ticket, outcome)
                if outcome is REFUSED:
                    self.refused.append(self.now)
            case "lose" if self.sent:
                ticket = self.sent.pop(which % len(self.sent))
                self.circuit.settle(self.now, ticket, UNCLEAR)
            case "change":
                self.good = not self.good


@settings(max_examples=500)
@given(STEPS, st.integers(1, 8))
def test_what_a_key_costs_that_is_revoked_in_use(steps, most):
    """No more are refused running than were on their way, or three."""
    world = World(most)
    for what, pause, which in steps:
        world.step(what, min(pause, 1.0), which)
    assert world.most_running <= max(most, MOST_REFUSED)


@settings(max_examples=500)
@given(STEPS)
def test_never_more_than_three_refusals_in_any_five_minutes(steps):
    """Of a key that is never accepted."""
    world = World(MOST_IN_FLIGHT)
    world.good = False
    for what, pause, which in steps:
        if what != "change":
            world.step(what, pause, which)
    for moment in world.refused:
        within = [at for at in world.refused if moment <= at < moment + WINDOW]
        assert len(within) <= MOST_REFUSED


@given(STEPS, st.integers(1, 8))
def test_it_always_opens_again(steps, most):
    world = World(most)
    for step in steps:
        world.step(*step)
    for ticket in [*world.sent, *(ticket for ticket, _ in world.judged)]:
        world.circuit.settle(world.now, ticket, UNCLEAR)
    held = world.circuit.hold(world.now)
    assert 0 <= held <= WINDOW + 1e-6
    # Half a second of grace for the rounding of floats.
    assert world.circuit.admit(world.now + held + 0.5, most) is not None


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


@pytest.mark.parametrize("most", [1, 5, 16])
async def test_a_key_that_is_revoked_under_load(most):
    async def answer(response):
        await anyio.sleep(0.05)
        return response

    async with shared() as on, cloud(lambda _r: answer(ok())) as server:
        target = api(on, server, max_in_flight=most)
        assert await burst(32, target) == [None] * 32
        assert server.most_in_flight == most
        async with anyio.create_task_group() as group:
            group.start_soon(burst, 64, target)
            await anyio.sleep(0.12)
            server.answer = lambda _r: answer(refuse())
            server.seen.clear()
        assert target.locked
    assert len(server.seen) <= max(most, MOST_REFUSED)


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
        target, other = api(on, server), api(on, server, max_in_flight=16)
        assert (target.account, target.key_limit) == (None, 1)
        await target.fetch(JOB)
        await other.fetch(JOB)
        assert (target.account, target.key_limit) == (KEY.access_key, MOST_IN_FLIGHT)
        assert other.key_limit == 16
        server.answer = lambda _r: refuse()
        await burst(1, other)
        assert (target.key_limit, other.key_limit) == (1, 1)
        server.answer = lambda _r: ok()
        await target.fetch(JOB)
        assert target.key_limit == MOST_IN_FLIGHT


async def test_where_nothing_is_signed_any_number_may_be_on_its_way():
    async with shared() as on, cloud() as server:
        target = api(on, server, NoCredentials())
        assert target.key_limit == 1
        await target.fetch(JOB)
        assert (target.account, target.key_limit) == (None, None)
        server.answer = lambda _r: slow(ok())
        await burst(16, target)
    assert server.most_in_flight > MOST_IN_FLIGHT
