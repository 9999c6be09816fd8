"""Where alerts lead people."""

import platform

import pytest

from watcher.daemon.app import addresses
from watcher.settings.schema import Settings

HERE = "http://127.0.0.1:10911"


def settings(**more):
    target = {"region": "r", "project_id": "p", "credentials": {"kind": "none"}}
    return Settings(targets={"prod": target}, **more)


@pytest.mark.parametrize(
    ("given", "url", "public", "runbooks"),
    [
        ({}, HERE, HERE, f"{HERE}/runbooks"),
        (
            {"server": {"public_url": "https://w.example/sub/"}},
            HERE,
            "https://w.example/sub",
            "https://w.example/sub/runbooks",
        ),
        (
            {"metrics": {"runbook_url": "https://wiki.example/w/"}},
            "https://[::1]:1",
            "https://[::1]:1",
            "https://wiki.example/w",
        ),
    ],
)
def test_links_lead_to_what_is_set_or_to_where_it_listens(given, url, public, runbooks):
    assert addresses(settings(**given), url) == (public, runbooks)


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]"])
def test_who_listens_everywhere_is_known_by_its_name(everywhere):
    public, _ = addresses(settings(), f"http://{everywhere}:10911")
    assert public == f"http://{platform.node()}:10911"
