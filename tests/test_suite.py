"""What the tests are promised when several workers share them."""

from pathlib import Path

import pytest

from tests.conftest import FIRST, row


def test_who_shares_a_costly_fixture_goes_to_one_worker(request):
    for item in request.session.items:
        for fixture in {*FIRST.values()}.intersection(item.fixturenames):
            assert row(item.nodeid)[1] == fixture, item.nodeid


@pytest.mark.parametrize("start", FIRST)
def test_what_is_begun_first_is_there(start):
    path, _, function = start.partition("::")
    assert Path(path).exists()
    assert not function or f"def {function}" in Path(path).read_text()
