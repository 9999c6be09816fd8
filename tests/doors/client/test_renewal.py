"""Proofs that expire: had in time, once, and kept while they last."""

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from watcher.client.credentials.renewal import MARGIN, PAUSE, Renewal
from watcher.client.signing import Key
from watcher.core.errors import Unreachable

HOUR = 3600.0


class Source:
    """Hands out keys `AK1`, `AK2`, …, each with some life; or fails."""

    def __init__(self, life=24 * HOUR, takes=0.0):
        self.now = 1_000_000.0
        self.life = life
        self.takes = takes
        self.asked = 0
        self.fails = False
        self.renewal = Renewal(self.obtain, lambda: self.now)

    async def obtain(self):
        self.asked += 1
        await anyio.sleep(self.takes)
        if self.fails:
            raise Unreachable("down", request_id="r")
        expires_at = None if self.life is None else self.now + self.life
        return Key(f"AK{self.asked}", SecretStr("s"), None, expires_at)

    async def name(self):
        return (await self.renewal.current()).access_key


async def test_a_key_is_kept_until_40_minutes_are_left():
    source = Source()
    assert await source.name() == "AK1"
    source.now += source.life - MARGIN - 1
    assert await source.name() == "AK1"
    source.now += 1
    assert await source.name() == "AK2"


async def test_a_short_life_is_renewed_after_two_thirds():
    source = Source(life=900.0)
    await source.name()
    source.now += 599
    assert await source.name() == "AK1"
    source.now += 1
    assert await source.name() == "AK2"


async def test_a_key_without_end_is_kept():
    source = Source(life=None)
    await source.name()
    source.now += 1e9
    assert await source.name() == "AK1"


async def test_many_callers_ask_once():
    source = Source(takes=0.02)
    names = []

    async def one():
        names.append(await source.name())

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one)
    assert names == ["AK1"] * 20
    assert source.asked == 1


async def test_nobody_waits_for_a_renewal_while_the_old_key_is_valid():
    source = Source(takes=5.0)
    source.takes = 0.0
    await source.name()
    source.now += source.life - MARGIN
    source.takes = 5.0
    async with anyio.create_task_group() as group:
        group.start_soon(source.name)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(0.5):
            assert await source.name() == "AK1"
        assert source.asked == 2
        group.cancel_scope.cancel()
    source.takes = 0.0
    assert await source.name() == "AK3"


async def test_a_failed_renewal_keeps_the_valid_key_and_rests():
    source = Source()
    await source.name()
    source.now += source.life - MARGIN
    source.fails = True
    assert [await source.name() for _ in range(50)] == ["AK1"] * 50
    assert source.asked == 2
    source.now += MARGIN
    with pytest.raises(Unreachable):
        await source.name()


async def test_a_failure_is_not_provoked_by_every_caller():
    source = Source(takes=0.01)
    source.fails = True
    failures = []

    async def one():
        try:
            await source.name()
        except Unreachable as exc:
            failures.append(exc)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one)
    assert source.asked == 1
    assert len(failures) == 20
    assert {(str(e), e.request_id) for e in failures} == {("down", "r")}
    source.fails = False
    with pytest.raises(Unreachable):
        await source.name()
    source.renewal._failed_at -= PAUSE
    assert await source.name() == "AK2"


async def test_a_refused_key_is_exchanged_once():
    source = Source()
    first = await source.renewal.current()
    assert (await source.renewal.renew(first)).access_key == "AK2"
    assert (await source.renewal.renew(first)).access_key == "AK2"
    assert await source.name() == "AK2"
    second = await source.renewal.current()
    assert await source.renewal.renew(second) is second
    assert source.asked == 2


async def test_a_refused_key_that_cannot_be_exchanged_is_a_failure():
    source = Source()
    first = await source.renewal.current()
    source.fails = True
    with pytest.raises(Unreachable):
        await source.renewal.renew(first)


async def test_a_key_that_seems_expired_is_left_to_the_api_to_judge():
    source = Source(life=-600.0)
    assert await source.name() == "AK1"
    assert await source.name() == "AK1"
    source.now += PAUSE
    assert await source.name() == "AK2"


async def test_the_same_key_again_stays_the_same_object():
    key = Key("A", SecretStr("s"), None, 2000.0)
    now = [0.0]

    async def obtain():
        return Key("A", SecretStr("s"), None, 2000.0)

    renewal = Renewal(obtain, lambda: now[0])
    first = await renewal.current()
    now[0] = 1500.0
    assert await renewal.current() is first
    assert first == key


@given(st.floats(1, 1e6))
def test_no_key_is_used_past_its_end_and_renewals_are_few(life):
    async def run():
        source = Source(life)
        end = source.now + 20 * life
        while source.now < end:
            key = await source.renewal.current()
            assert key.expires_at > source.now or life < PAUSE
            source.now += life / 50
        assert source.asked <= 32

    anyio.run(run)
