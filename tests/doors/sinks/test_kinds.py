"""The kinds of sinks: one table says what there is, to settings, docs and daemon."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from watcher.sinks.base import SinkSettings
from watcher.sinks.kinds import KINDS, AnySink, open_sink

PAGE = Path("docs/reference/settings.md").read_text().partition("\n## Sinks\n")[2]
EXAMPLES = {"webhook": {"url": "https://example.com/hook"}}


def cells(line):
    return [cell.strip(" `") for cell in line.strip("| ").split(" | ")]


def rows(head):
    table = PAGE.partition(f"{head}\n|---|---|---|\n")[2].partition("\n\n")[0]
    return [cells(line) for line in table.splitlines()]


def test_the_reference_page_names_every_kind_and_its_keys():
    shared = set(SinkSettings.model_fields)
    said = {
        kind: re.findall(r"[a-z_]+", keys)
        for kind, keys, _ in rows("| kind | keys | |")
    }
    assert said == {
        name: [key for key in kind.settings.model_fields if key not in shared]
        for name, kind in KINDS.items()
    }


def test_the_reference_page_names_what_every_kind_has():
    said = [key for key, _, _ in rows("| key | default | meaning |")]
    assert said == [key for key in SinkSettings.model_fields if key != "kind"]


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_is_read_and_opened(kind):
    given = TypeAdapter(AnySink).validate_python({"kind": kind, **EXAMPLES[kind]})
    assert given.name == kind, "what a sink is called where nobody names it"
    async with open_sink(given, lambda: 0.0) as sink:
        assert sink.name == kind


def test_who_only_reads_the_settings_loads_no_http_client():
    code = "import watcher.settings.schema, sys; sys.exit('aiohttp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
