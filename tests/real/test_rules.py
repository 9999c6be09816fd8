"""Alert rules by Prometheus's own tools, and that each of them is complete."""

import re

import pytest
import yaml

from tests.real.components import ROOT, output, require

FOLDER = ROOT / "deploy" / "prometheus"
RULES = FOLDER / "rules.yaml"
CASES = FOLDER / "rules_test.yaml"
RUNBOOKS = ROOT / "watcher" / "pages" / "ui" / "runbooks"


def alerts():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_prometheus_takes_rules_and_configuration():
    require("promtool")
    output("promtool", "check", "rules", RULES)
    output("promtool", "check", "config", FOLDER / "prometheus.yaml")
    require("amtool")
    output("amtool", "check-config", FOLDER / "alertmanager.yaml")


def test_nothing_silences_the_alert_that_names_the_servers():
    """One alert tells of a job's failures at any time, and no rule of ours inhibits it."""
    config = yaml.safe_load((FOLDER / "alertmanager.yaml").read_text())
    for rule in config["inhibit_rules"]:
        for matcher in rule["target_matchers"]:
            assert "DevServerTaskFailed" not in matcher
            assert "DevServerJobFailed" not in matcher


def test_each_rule_fires_stays_silent_and_resolves():
    require("promtool")
    output("promtool", "test", "rules", CASES)


@pytest.mark.parametrize("name", alerts())
def test_the_cases_of_a_rule_hold_all_three(name):
    cases = [
        [each for each in test["alert_rule_test"] if each["alertname"] == name]
        for test in yaml.safe_load(CASES.read_text())["tests"]
    ]
    courses = [[bool(each.get("exp_alerts")) for each in case] for case in cases]
    assert any(case[:1] == [False] for case in courses)
    assert any(True in case and False in case[case.index(True) :] for case in courses)


@pytest.mark.parametrize("name", alerts())
def test_a_rule_names_its_page_and_how_bad_it_is(name):
    rule = alerts()[name]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    told = rule["annotations"]
    links = {"runbook_url", "page_url"} if name.startswith("Dev") else {"runbook_url"}
    assert set(told) == {"summary", "description", *links}
    assert f"}}}}/{name}{{{{" in told["runbook_url"]
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    for part in ("**Meaning.**", "**What to do**", "**Resolves.**"):
        assert part in text


def test_there_is_no_page_without_a_rule():
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(alerts())


@pytest.mark.parametrize("name", alerts())
def test_a_runbook_begins_with_a_command_wherever_the_watcher_runs(name):
    text = (RUNBOOKS / f"{name}.md").read_text()
    first = text.partition("\n1. ")[2].partition("\n2. ")[0]
    assert re.search(
        r"^       (curl|journalctl|systemctl|/opt/devserver-watcher/bin/watcher) ",
        first,
        re.MULTILINE,
    )
    assert "container" in first
    assert re.search(r"^       kubectl ", first, re.MULTILINE)
