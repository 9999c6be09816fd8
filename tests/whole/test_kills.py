"""kill -9 over and over, at any moment and at every step of commit and delivery."""

import os
import random
import re

import anyio
import pytest

from tests.whole.daemon import target
from tests.whole.lives import (
    FAULTS,
    ROOT,
    ROUND,
    check_story,
    end_well,
    journal,
    kill_often,
    nursery,
    summary,
)
from tests.whole.unrest import OPTIONS, Unrest
from watcher.simulator import simulate

KILLS = int(os.environ.get("WATCHER_KILLS", "200"))
POLL = {
    "interval": "200ms",
    "requests_per_second": 200,
    "timeout": "5s",
    "mode": "detail",
}


PARTS = 4
"""They run beside each other, each with a store of its own."""


def test_every_point_of_the_daemon_has_a_fault():
    sources = "".join(path.read_text() for path in (ROOT / "watcher").rglob("*.py"))
    points = set(re.findall(r'fault_point\("([a-z_.]+)"\)', sources))
    assert points == {point for _, point in FAULTS.values()}


@pytest.mark.parametrize("part", range(PARTS))
async def test_nothing_is_lost_and_nothing_repeated(tmp_path, part, capsys):
    kills = len(range(part, KILLS, PARTS))
    seed = part + 1
    draw = random.Random(seed)
    late = tmp_path / "late.txt"
    async with simulate(OPTIONS) as sim:
        prod = target(
            sim.url,
            sim.job_ids,
            credentials={"kind": "none"},
            job_files=[str(late)],
        )
        values = {"targets": {"prod": prod}, "poll": POLL}
        async with nursery(tmp_path, values, seed=seed) as lives:
            unrest = Unrest(sim, lives.story, lambda ids: write(late, ids), seed)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(unrest.run)
                fell = await kill_often(lives, kills, draw)
                await end_well(lives, unrest)
            silence = await end_well(lives)
        replays = check_story(lives.story, journal(tmp_path))
        unrest.check(lives.story.told())
    assert not [line for line in silence if "event_id" in line]
    assert kills < 2 * ROUND or fell.keys() >= FAULTS.keys()
    with capsys.disabled():
        print(f"\n{summary(lives.story, replays)}\nkills: {dict(fell)}")


def write(file, ids):
    """Replace a file whole: a life may begin at any moment."""
    fresh = file.with_suffix(".new")
    fresh.write_text("\n".join(ids))
    fresh.rename(file)
