"""Replays what the fuzzer starts from, and what it once found."""

from pathlib import Path

import pytest

from tests.fuzz.fuzz import CHECKS

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*/*"))


@pytest.mark.parametrize(
    "file", CORPUS, ids=lambda file: f"{file.parent.name}-{file.name}"
)
def test_kept_inputs(file):
    CHECKS[file.parent.name](file.read_bytes())


def test_every_target_starts_from_something():
    assert {file.parent.name for file in CORPUS} == set(CHECKS)
