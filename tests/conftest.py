"""What holds for all tests."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared-machine")

ONE_WORKER = ("machine", "podman", "stack")
"""Fixtures that cost much or can be there but once: who uses one runs where it is."""

LONGEST = (
    "tests/whole/test_reload.py::test_many_reloads_leave_nothing_behind",
    "tests/real/test_systemd.py::",
    "tests/whole/test_kills.py::test_nothing_is_lost_and_nothing_repeated",
    "tests/real/test_image.py::",
    "tests/real/test_manifests.py::test_a_pod_",
    "tests/whole/test_webhook.py::",
    "tests/whole/test_faults.py::",
    "tests/whole/test_disk.py::",
    "tests/real/test_prometheus.py::",
    "tests/whole/",
)
"""Begun in this order, before all others, so that all workers end together."""


def pytest_collection_modifyitems(items):
    for item in items:
        for name in set(ONE_WORKER).intersection(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=_place)


def _place(item):
    names = enumerate(LONGEST)
    return next((n for n, name in names if item.nodeid.startswith(name)), len(LONGEST))
