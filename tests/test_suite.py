"""What the tests are promised when several workers share them."""

from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import pytest

from tests.conftest import FIRST, room, row


def test_who_shares_a_costly_fixture_goes_to_one_worker(request):
    for item in request.session.items:
        for fixture in {*FIRST.values()}.intersection(item.fixturenames):
            assert row(item.nodeid)[1] == fixture, item.nodeid


@pytest.mark.parametrize("start", FIRST)
def test_what_is_begun_first_is_there(start):
    path, _, function = start.partition("::")
    assert Path(path).exists()
    assert not function or f"def {function}" in Path(path).read_text()


@pytest.mark.parametrize("others_alone", [True, False])
def test_a_test_that_measures_is_alone(others_alone):
    run, entered = uuid4().hex, Event()

    def come():
        with room(run, alone=others_alone):
            entered.set()

    with room(run, alone=not others_alone):
        with room(uuid4().hex, alone=True):  # of another run
            other = Thread(target=come)
            other.start()
        assert not entered.wait(0.1)
    assert entered.wait(10)
    other.join()
