"""What holds for all tests, and how several workers share them."""

import signal

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared-machine")

# A shell ignores it for what runs in its background, and every process after it does.
signal.signal(signal.SIGINT, signal.default_int_handler)

FIRST = {
    "tests/whole/test_reload.py::test_many_reloads_leave_nothing_behind": None,
    "tests/real/test_systemd.py::": "machine",
    "tests/whole/test_kills.py::test_nothing_is_lost_and_nothing_repeated": None,
    "tests/real/test_image.py::": "podman",
    "tests/real/test_manifests.py::test_a_pod_": "podman",
    "tests/real/test_chart.py::test_its_pod_": "podman",
    "tests/whole/test_webhook.py::": None,
    "tests/whole/test_disk.py::": None,
    "tests/real/test_prometheus.py::": "stack",
    "tests/whole/": None,
    "tests/world/": None,
    "tests/polling/": None,
}
"""The long ones are begun in this order, before all others, so that all workers end
together; those with the name of a fixture go to one worker, which alone makes it."""


def row(nodeid):
    """Return where a test stands in `FIRST`, and the fixture that it shares."""
    for place, (start, fixture) in enumerate(FIRST.items()):
        if nodeid.startswith(start):
            return place, fixture
    return len(FIRST), None


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: row(item.nodeid)[0])


class Together(LoadScopeScheduling):
    """Gives tests to workers one by one, those that share a fixture at once."""

    def _split_scope(self, nodeid):
        return row(nodeid)[1] or nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False
    return Together(config, log)
