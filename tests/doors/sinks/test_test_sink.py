"""`watcher test-sink` through the real sink, and what it says."""

from __future__ import annotations

import json
import os

import anyio
import pytest
import yaml
from aiohttp import web

from tests.doors.sinks.conftest import receiving
from watcher.commands.cli import main

TARGET = {"region": "cn-north-4", "project_id": "p", "credentials": {"kind": "none"}}


@pytest.fixture
def run(tmp_path, monkeypatch):
    for variable in [name for name in os.environ if name.startswith("WATCHER_")]:
        monkeypatch.delenv(variable)

    async def with_sinks(*sinks, name="hook"):
        file = tmp_path / "watcher.yaml"
        values = {"targets": {"prod": TARGET}, "sinks": list(sinks)}
        file.write_text(yaml.safe_dump(values))
        arguments = ["test-sink", "--config", str(file), name]
        return await anyio.to_thread.run_sync(main, arguments)

    return with_sinks


def hook(url, **more):
    return {"kind": "webhook", "name": "hook", "url": url, "timeout": "2s", **more}


async def test_a_marked_message_goes_through_whatever_the_sink_is_told(run, capsys):
    async with receiving() as receiver:
        chosen = hook(receiver.url, events=["job.finished"], phases=["failed"])
        assert await run(hook("https://example.com", name="other"), chosen) == 0
        assert await run(chosen) == 0
    first, second = receiver.taken
    assert first["type"] == "devserver.watcher.sink.test"
    assert first["data"]["test"] is True
    assert first["id"] != second["id"], "a receiver that knows an id would pass it over"
    said = capsys.readouterr()
    assert said.out == "hook: taken\n" * 2
    assert "hidden" not in said.out + said.err


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (404, "answered 404; an event would be offered again"),
        (400, "answered 400; an event would be given up"),
        (500, "answered 500; an event would be offered again"),
    ],
)
async def test_a_refusal_is_said_with_its_reason(run, capsys, status, why):
    async with receiving() as receiver:

        async def answer(_):
            return web.Response(status=status)

        receiver.answer = answer
        assert await run(hook(receiver.url)) == 1
    said = capsys.readouterr()
    assert said.err == f"watcher: hook: refused: {why}\n"
    assert said.out == ""
    assert len(receiver.requests) == 1
    assert json.loads(receiver.requests[0][1])["data"]["event"] == "sink.test"


@pytest.mark.parametrize(
    ("sinks", "known"), [([hook("https://example.com")], "hook"), ([], "none is")]
)
async def test_a_sink_that_is_not_there_is_a_finding(run, capsys, sinks, known):
    assert await run(*sinks, name="hok") == 78
    assert f"sinks: there is no sink 'hok' ({known}" in capsys.readouterr().err


async def test_a_configuration_that_cannot_be_used_is_a_finding(run, capsys):
    assert await run(hook("https://example.com", secret="whsec_!")) == 78
    assert "sinks.0.secret: " in capsys.readouterr().err
