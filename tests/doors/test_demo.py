"""The demo's rounds: told once all jobs of one have ended, and never silent after."""

import anyio
import pytest

from tests.fakes import keys
from watcher.commands.demo import rounds
from watcher.core.model import JobRecord, Phase
from watcher.polling.board import Board

A, B, C = keys(3)


@pytest.mark.looptime
async def test_each_round_is_told_once():
    board, told = Board(), []

    async def listen():
        async for records in rounds(board, [A, B]):
            told[:] = [*told, {record.key for record in records}]

    async def show(phase, *some):
        board.show([JobRecord(key, phase=phase) for key in some])
        await anyio.sleep(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await show(Phase.ACTIVE, A, B)
        await show(Phase.SUCCEEDED, A)
        await show(Phase.ACTIVE, C)
        assert told == []
        await show(Phase.FAILED, B)
        assert told == [{A, B}]
        await show(Phase.FAILED, B)
        await show(Phase.GONE, C)
        assert told == [{A, B}, {C}]
        tasks.cancel_scope.cancel()
