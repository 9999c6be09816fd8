"""Scrape, alert and dashboard with a running Prometheus and Alertmanager."""

import json
import re
import sys
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.real.components import (
    ROOT,
    alertmanager,
    asked,
    cloud,
    configuration,
    daemon,
    http,
    output,
    prometheus,
    require,
    run,
    until,
)

RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "devserver-watcher.json"
RUNBOOKS = ROOT / "watcher" / "pages" / "ui" / "runbooks"
GUIDE = ROOT / "docs" / "how-to" / "prometheus.md"
RETENTION = 5
WINDOW = "10s"
DCMI = "npu-smi info: dcmi initialize failed, device {}"


@contextmanager
def webhook():
    """Receive what Alertmanager tells; yields its address and the alerts so far."""
    told = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            told.extend(json.loads(self.rfile.read(length))["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", told
        server.shutdown()
        thread.join()


class Stack:
    """Cloud, watcher, Prometheus and Alertmanager, and what the webhook was told."""

    def __init__(self, simulated, listen, url, told):
        self.cloud = simulated
        self.listen = listen
        self.url = url
        self.told = told

    def query(self, expression):
        words = urllib.parse.urlencode({"query": expression})
        answer = asked(f"{self.url}/api/v1/query?{words}")
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def alerts(self, name, status, job_id):
        return [
            alert
            for alert in list(self.told)
            if alert["labels"]["alertname"] == name
            and alert["labels"].get("job_id") == job_id
            and alert["status"] == status
        ]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    require("prometheus", "prometheus-alertmanager", "promtool")
    folder = tmp_path_factory.mktemp("stack")
    with (
        webhook() as (hook, told),
        alertmanager(folder, hook) as manager,
        cloud(folder, jobs=4, tasks=4) as simulated,
    ):
        simulated.told("clock", '{"advance": 0.1}', "PUT")  # by then all have tasks
        values = configuration(
            simulated.url, simulated.job_ids, finished={"retention": f"{RETENTION}s"}
        )
        with daemon(folder, values) as (listen, _):
            scrape = {
                "job_name": "devserver-watcher",
                "static_configs": [{"targets": [listen]}],
            }
            managers = {"static_configs": [{"targets": [manager]}]}
            config = {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "scrape_configs": [scrape],
                "alerting": {"alertmanagers": [managers]},
            }
            with prometheus(folder, config, RULES) as url:
                it = Stack(simulated, listen, url, told)
                until(lambda: it.query('up{job="devserver-watcher"} == 1'))
                known = f"{url}/api/v1/alertmanagers"
                until(lambda: asked(known)["data"]["activeAlertmanagers"])
                yield it


def test_the_metrics_are_as_prometheus_wants_them(stack):
    _, text = http(f"http://{stack.listen}/metrics")
    done = run("promtool", "check", "metrics", input=text)
    findings = (done.stdout + done.stderr).splitlines()
    assert len(findings) == 1, findings
    assert findings[0].startswith("devserver_job_abnormal_count ")


def test_prometheus_takes_every_sample(stack):
    (target,) = asked(f"{stack.url}/api/v1/targets")["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    jobs = {each["metric"]["job_id"] for each in stack.query("devserver_job_info")}
    assert jobs == set(stack.cloud.job_ids)


def follow_the_runbooks(stack, job_id):
    """Run the first command of each as it stands, with what the alert says put in."""
    require("curl", "jq")
    for page in RUNBOOKS.glob("*.md"):
        found = re.search(
            r"^       curl .*\n(?:         .*\n)*", page.read_text(), re.MULTILINE
        )
        if found is None:  # it asks the service manager or the log
            continue
        command = found[0].replace("127.0.0.1:10911", stack.listen)
        command = command.replace("TARGET/JOB", f"prod/{job_id}")
        output("sh", "-c", command)
    for name in ("DevServerTaskFailed", "DevServerJobFailed"):
        text = (RUNBOOKS / f"{name}.md").read_text()
        words = re.search(r"^       /opt/.*/watcher (.*)$", text, re.MULTILINE)[
            1
        ].split()
        command = (sys.executable, "-m", "watcher", *words, "--address", stack.listen)
        answer = run(*command, cwd=ROOT).stdout
        assert f"2x {DCMI.format(1)} (liteserver-a2-aiserver-001" in answer


def test_from_the_alert_alone_servers_and_reason_are_known(stack):
    """What a telephone shows at night, word for word as the guide shows it."""
    job_id = stack.cloud.job_ids[3]
    shown = asked(f"http://{stack.listen}/api/v1/jobs/prod/{job_id}")["tasks"]
    said = [DCMI.format(1), DCMI.format(3), "No space left on /var"]
    failed = {
        task["id"]: {"status": "FAILED", "message": message}
        for task, message in zip(shown, said, strict=False)
    }
    names = [task["server_name"] for task in shown[:3]]
    stack.cloud.told(f"jobs/{job_id}", json.dumps({"tasks": failed}))
    (alert,) = until(
        lambda: stack.alerts("DevServerTaskFailed", "firing", job_id),
        what=lambda: json.dumps(stack.told, indent=1),
    )[:1]
    told = alert["annotations"]
    assert all(name in told["description"] for name in names)
    assert DCMI.format(1) in told["summary"]
    assert said[2] in told["description"]
    assert http(told["page_url"])[0] == 200
    assert http(told["runbook_url"])[1].startswith("# DevServerTaskFailed")
    follow_the_runbooks(stack, job_id)
    stack.cloud.told(f"jobs/{job_id}", '{"finish": true, "status": "FINISHED"}')
    (end,) = until(
        lambda: stack.alerts("DevServerJobFailed", "firing", job_id),
        what=lambda: json.dumps(stack.told, indent=1),
    )[:1]
    assert end["annotations"]["description"] == told["description"]
    text = json.dumps(end["annotations"], indent=1, ensure_ascii=False)
    text = text.replace(job_id, "0319470a-7fad-452e-bff0-d3ba3bd83955")
    text = text.replace(f"http://{stack.listen}", "https://watcher.example.org")
    assert text in GUIDE.read_text(), text


def test_one_alert_a_job_which_goes_with_its_series(stack):
    job_id, good = stack.cloud.job_ids[:2]
    stack.cloud.finish(job_id, failing=2)
    stack.cloud.finish(good)
    assert until(lambda: stack.alerts("DevServerJobFailed", "firing", job_id))
    # Its series go `finished.retention` after its end; with them goes the alert.
    assert until(lambda: stack.alerts("DevServerJobFailed", "resolved", job_id))
    assert stack.query(f'devserver_job_phase{{job_id="{job_id}"}}') == []
    assert stack.alerts("DevServerTaskFailed", "firing", job_id) == []
    told = stack.alerts("DevServerJobFailed", "firing", job_id)
    assert len({json.dumps(alert["labels"]) for alert in told}) == 1
    assert stack.alerts("DevServerJobFailed", "firing", good) == []


def expressions():
    """Every expression of the dashboard, by its panel."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['refId']}", target["expr"]


def filled(expression, job_id):
    values = {
        "target": "prod",
        "job_id": job_id,
        "job": "devserver-watcher",
        "instance": ".*",
        "__rate_interval": WINDOW,
    }
    text = re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)
    assert "$" not in text
    return text


def test_every_panel_of_the_dashboard_has_data(stack):
    # The newest events are what the rates and the quantiles are made of.
    job_id = stack.cloud.job_ids[2]
    stack.cloud.finish(job_id, failing=1)
    empty = dict(expressions())

    def all_seen():
        for name, expression in list(empty.items()):
            if has_values(stack.query(filled(expression, job_id))):
                del empty[name]
        return not empty

    until(all_seen, seconds=RETENTION + 15, what=lambda: f"no data: {list(empty)}")


def has_values(result):
    return any(each["value"][1] != "NaN" for each in result)


def test_variables_of_the_dashboard_find_something(stack):
    dashboard = json.loads(DASHBOARD.read_text())
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            text = filled(variable["definition"], ".*")
            metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", text).groups()
            assert stack.query(f"count by ({label}) ({metric})"), text


def test_panels_do_not_overlap():
    places = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        box = panel["gridPos"]
        assert box["x"] + box["w"] <= 24
        cells = {
            (x, y)
            for x in range(box["x"], box["x"] + box["w"])
            for y in range(box["y"], box["y"] + box["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells


def test_a_watcher_that_is_well_raises_no_alert(stack):
    """Alerts on the watcher itself are loaded, and none of them fires."""
    rules = asked(f"{stack.url}/api/v1/rules?type=alert")["data"]["groups"]
    states = {
        rule["name"]: (rule["state"], rule["health"])
        for group in rules
        for rule in group["rules"]
    }
    own = {name: state for name, state in states.items() if name.startswith("Watcher")}
    assert own
    assert set(own.values()) == {("inactive", "ok")}, own
