"""That a world is the same each time, and that it finds what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world.guards import GUARDS
from tests.world.minimise import minimised
from tests.world.script import draw_script
from tests.world.world import run
from watcher.polling.committer import Committer

ROOT = Path(__file__).parents[2]
KEPT = sorted((Path(__file__).parent / "kept").glob("*.json"))


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.what)
def test_each_guard_can_be_taken_away(guard):
    """What the script of guards takes away stands where it says, once."""
    assert (ROOT / "watcher" / guard.file).read_text().count(guard.old) == 1


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_what_was_found_once_is_found_no_more(file):
    assert run(json.loads(file.read_text())).findings == []


def traces(hash_seed):
    command = [sys.executable, "-m", "tests.world", "--worlds", "6", "--trace"]
    environ = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    return sorted(done.stdout.splitlines())


def test_a_seed_has_one_trace_in_each_process():
    first = traces("1")
    assert len(first) == 6
    assert first == traces("2")


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_world_keeps_the_promises(seed):
    assert run(draw_script(str(seed))).findings == []


def test_what_is_wrong_is_found_and_its_script_made_small(monkeypatch):
    def drop(committer):
        committer._committing = {}

    monkeypatch.setattr(Committer, "_take_back", drop)
    script = draw_script("1")
    script["ops"] = [
        [2.0, "scrape", {}],
        [4.0, "disk", {"mood": "full", "seconds": 40}],
        [6.0, "patch", {"job": 0, "task": -1, "status": "FAILED"}],
        [9.0, "scrape", {}],
    ]
    small, found = minimised(script, run(script).findings)
    assert [name for _, name, _ in small["ops"]] == ["disk"]
    assert "told without a reason" in found[0] or "explains" in found[0]
