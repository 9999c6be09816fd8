"""The page about the simulator names everything there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from watcher.simulator import CALLS, KINDS, Dialect, Fault, SimulatorOptions, simulate
from watcher.simulator.answers import RawRequest
from watcher.simulator.control import Control

PAGE = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
CODE = set(re.findall(r"[\w/]+", " ".join(re.findall(r"`([^`]+)`", PROSE))))


@pytest.mark.parametrize(
    "word",
    [
        *KINDS,
        *CALLS,
        *(field.name for field in fields(Fault)),
        *(field.name for field in fields(SimulatorOptions)),
        *(field.name for field in fields(Dialect)),
    ],
)
def test_every_word_is_documented(word):
    assert word in CODE


async def test_every_control_path_is_documented():
    async with simulate() as sim:
        answer = Control(sim).handle(RawRequest("GET", "/_simulator/", {}), "::1")
    paths = set(re.findall(rb"/_simulator/\w+", answer.body))
    assert len(paths) == 5
    assert all(path.decode() in CODE for path in paths)
