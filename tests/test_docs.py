"""The reference pages name exactly what there is."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.whole.test_main_job import FIELDS
from watcher.commands.cli import subcommands
from watcher.pages.metrics import MetricsPage
from watcher.polling.board import Board
from watcher.ports import Request, Whose
from watcher.settings.example import EXAMPLE, REFERENCE, example, reference
from watcher.settings.showing import described

DOCS = Path("docs/reference")


def rows(page):
    """First cells of all table rows, backticks removed."""
    text = (DOCS / page).read_text()
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_settings():
    """`make pages` writes both pages from the schema."""
    assert [each.path for each in described() if not each.what] == []
    assert example() == EXAMPLE.read_text()
    assert reference(REFERENCE.read_text()) == REFERENCE.read_text()
    documented = [
        name for name in rows("settings.md") if "." in name or name == "sinks"
    ]
    assert documented == [each.path for each in described()]


async def test_metrics():
    page = MetricsPage(Board())
    page.own.show_sinks([])
    page.own.show_trust({})
    page.own.show_leases(SimpleNamespace(units={"u": Whose.HELD}, losses=0))
    page.own.show_addresses(lambda: ("", ""))
    response = await page.respond(Request("/metrics"))
    text = b"".join([chunk async for chunk in response.body]).decode()
    families = {
        name for name, _ in re.findall(r"^# TYPE (\w+) (\w+)", text, re.MULTILINE)
    }
    own = {name for name in families if name.startswith(("devserver_", "watcher_"))}
    assert set(rows("metrics.md")) == own


def test_log_events():
    text = (DOCS / "log-events.md").read_text()
    told = set(
        re.findall(r"^\| `([a-z_.]+)`(?:, `([a-z_.]+)`)? \|", text, re.MULTILINE)
    )
    documented = {name for pair in told for name in pair if "." in name}
    sources = "".join(path.read_text() for path in Path("watcher").rglob("*.py"))
    said = set(
        re.findall(
            r'"((?:api|watcher|job|jobs|task|poll|store|sink|lease|credentials|clock|journal|config|server)\.[a-z_]+)"',
            sources,
        )
    )
    others = {"watcher.web.server", "sink.test"}  # a logger; a message of test-sink
    assert documented == said - others


@pytest.mark.parametrize("event", FIELDS)
def test_fields_of_log_events(event):
    text = (DOCS / "log-events.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith(f"| `{event}`"))
    if "as `job" not in row:
        assert re.findall(r"`([a-z_]+)`", row.split("|")[3]) == FIELDS[event]


def test_commands():
    parts = re.split(r"^## ", (DOCS / "commands.md").read_text(), flags=re.MULTILINE)
    documented = {
        part.partition("\n")[0]: re.findall(r"^\| `(--[a-z]+)` \|", part, re.MULTILINE)
        for part in parts[1:]
    }
    told = {
        name: {
            flag for action in parser._actions for flag in action.option_strings
        }.difference({"-h", "--help"})
        for name, parser in subcommands().items()
    }
    assert list(documented) == list(told)
    assert {name: set(flags) for name, flags in documented.items()} == told


@pytest.mark.parametrize("name", subcommands())
def test_settings_are_taken_where_the_page_says_so(name):
    text = (DOCS / "commands.md").read_text().partition(f"\n## {name}\n")[2]
    takes = "Takes settings." in text.partition("\n## ")[0]
    assert takes is subcommands()[name].get_default("settable")


@pytest.mark.parametrize(
    "page", [*Path().glob("*.md"), *Path("docs").rglob("*.md")], ids=str
)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_guards_and_their_tests_are_there():
    trees = ("watcher", "tests", "deploy", "requirements")
    there = [path for tree in trees for path in Path(tree).rglob("*")]
    text, source = Path("docs/guards.md").read_text(), ""
    guards = re.findall(
        r"^\| (?!guard )[^|]+\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE
    )
    assert len(guards) == len(re.findall(r"^\| (?!guard )", text, re.MULTILINE))
    for where, tests in guards:
        for place in re.findall(r"`([^`]+)`", where):
            assert any(path.match(place) for path in there), place
        for test in re.findall(r"`([^`]+)`", tests):
            file, *names = test.removeprefix("…").split("::")
            if file.endswith(".py"):
                (path,) = (path for path in there if path.match(file))
                source = path.read_text()
            else:
                names.append(file)
            for name in filter(None, names):
                stem, more = name.rstrip("…"), r"\w*" if name.endswith("…") else ""
                assert re.search(rf"(def|class) {stem}{more}\b", source), test


def test_the_readme_stays_short():
    assert len(Path("README.md").read_text().splitlines()) <= 150
