"""Replays what the fuzzer starts from, and what it once found."""

from pathlib import Path

import pytest

from tests.fuzz.fuzz_wire import check

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_kept_inputs(file):
    check(file.read_bytes())
