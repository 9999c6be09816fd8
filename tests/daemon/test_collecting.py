"""What lives long is not gone through again, and garbage among it goes one day."""

import gc
import weakref
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.lowlevel
import pytest

from watcher.daemon import collecting


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self):
        self.itself = self


@asynccontextmanager
async def sparing():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collecting.spare_what_lives, 0.0)
        await turns()
        yield
        tasks.cancel_scope.cancel()


async def turns():
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_what_lives_is_put_aside_and_at_the_end_taken_back():
    held = [[n] for n in range(1000)]
    assert gc.get_freeze_count() == 0
    async with sparing():
        assert gc.get_freeze_count() > len(held)
        assert not any(each is held for each in gc.get_objects())
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("some", [-(10**9), 10**9])
async def test_garbage_among_it_is_collected_once_there_may_be_enough(
    monkeypatch, some
):
    monkeypatch.setattr(collecting, "COUNTED_EVERY", 1)
    monkeypatch.setattr(collecting, "SOME", some)
    async with sparing():
        ring = Ring()
        gone = weakref.ref(ring)
        await turns()
        del ring
        await turns()
        assert (gone() is None) == (some < 0)
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("fault", [None, ValueError])
async def test_nothing_is_searched_while_the_daemon_begins(fault):
    with suppress(ValueError), collecting.not_while_beginning():
        assert not gc.isenabled()
        held = [[n] for n in range(1000)]
        if fault:
            raise fault
    assert gc.isenabled()
    assert (gc.get_freeze_count() > len(held)) == (fault is None)
    gc.unfreeze()
    del held


async def test_what_was_put_aside_at_the_beginning_is_not_searched_after_it(
    monkeypatch,
):
    with collecting.not_while_beginning():
        held = [[n] for n in range(1000)]
    searched = []
    monkeypatch.setattr(collecting.gc, "unfreeze", lambda: searched.append(held))
    async with sparing():
        assert not searched
    monkeypatch.undo()
    gc.unfreeze()
