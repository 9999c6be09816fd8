"""The chart: by the real Helm, against Kubernetes, against the manifests, and run as Pods."""

import json
import os
import tarfile

import pytest
import yaml

from tests.real.components import PROJECT, ROOT, output, until
from tests.real.manifests import (
    VERSIONS,
    check_kinds,
    check_operator_kinds,
    check_restricted,
    objects,
    pods,
)

CHART = ROOT / "deploy" / "helm" / "devserver-watcher"
SETS = {"default": {}} | {
    file.name.removesuffix("-values.yaml"): yaml.safe_load(file.read_text())
    for file in sorted((CHART / "ci").glob("*-values.yaml"))
}
MONITORED = {
    "replicas": {"ServiceMonitor", "PrometheusRule"},
    "least": {"PodMonitor"},
}
HELM = """\
import json, sys
import helm_python as helm
chart, what, sets = json.load(sys.stdin)
made = {}
for name, values in sets.items():
    try:
        if what == "lint":
            made[name] = helm.lint(chart, values, strict=True)
        else:
            with helm.Chart.load(chart) as loaded:
                made[name] = loaded.render(
                    values, name="devserver-watcher", namespace="devservers")
    except helm.HelmValuesError as error:
        made[name] = str(error)
print(json.dumps(made))
"""


def helm(tools, what, sets, chart=CHART):
    """Render or lint with each of some value sets; text instead where a set was refused."""
    order = json.dumps([str(chart), what, sets])
    return json.loads(output(tools / "python", "-c", HELM, input=order))


@pytest.fixture(scope="module")
def files(tools):
    """Every value set's rendered files, by name."""
    return helm(tools, "render", SETS)


@pytest.fixture(scope="module")
def rendered(files):
    """Every value set as one text, without the notes."""
    return {name: joined(made) for name, made in files.items()}


def joined(made):
    return "\n---\n".join(v for k, v in made.items() if not k.endswith(".txt"))


def test_lint_finds_nothing(tools):
    assert len(SETS) == 5
    for report in helm(tools, "lint", SETS).values():
        assert report["errors"] == []
        told = [x["error"] for x in report["messages"] if x["severity"] > 1]
        assert told == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SETS)
def test_kubernetes_takes_it(rendered, tools, tmp_path, name, version):
    check_kinds(tools, tmp_path, objects(rendered[name]), version)


@pytest.mark.parametrize("name", SETS)
def test_the_operator_takes_its_kinds(rendered, tools, tmp_path, name):
    seen = check_operator_kinds(tools, tmp_path, objects(rendered[name]))
    assert seen == MONITORED.get(name, set())


@pytest.mark.parametrize("name", SETS)
def test_pods_are_restricted(rendered, name):
    found = objects(rendered[name])
    (test,) = [x["spec"] for x in found if x["kind"] == "Pod"]
    (own,) = pods(rendered[name])
    for spec in (own, test):
        check_restricted(spec)


CHART_LABELS = {
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}


def substance(value):
    """Return what a manifest says, without what tells one way of rendering from another."""
    if isinstance(value, dict):
        left_out = CHART_LABELS | {"annotations", "imagePullPolicy"}
        return {k: substance(v) for k, v in value.items() if k not in left_out}
    if isinstance(value, list):
        made = [substance(each) for each in value]
        named = all(isinstance(x, dict) and "name" in x for x in made)
        return sorted(made, key=lambda x: x["name"]) if named else made
    return value


def by_kind(text):
    """Return the substance of each manifest by its kind; the configuration as values."""
    found = [substance(x) for x in objects(text) if x["kind"] != "Pod"]
    made = {x["kind"]: x for x in found}
    assert len(made) == len(found)
    config = made["ConfigMap"]
    config["data"]["watcher.yaml"] = yaml.safe_load(config["data"]["watcher.yaml"])
    volumes = made["Deployment"]["spec"]["template"]["spec"]["volumes"]
    (volume,) = [x["configMap"] for x in volumes if "configMap" in x]
    assert volume["name"] == config["metadata"]["name"]
    volume["name"] = config["metadata"]["name"] = "either has a hash"
    return made


def plain(made):
    """Leave out labels of the thing itself: which of them a tool adds is its own affair."""
    for each in made.values():
        each["metadata"].pop("labels", None)
    return made


KEYS = {
    "targets__prod__credentials__access_key": "REPLACE-ME",
    "targets__prod__credentials__secret_key": "REPLACE-ME",
}
URL = "postgresql://watcher@192.168.0.10:5432/watcher"
SHARED = {
    "replicas": 3,
    "config": {"store": {"url": URL}},
    "networkPolicy": {"database": [{"ipBlock": {"cidr": "192.168.0.10/32"}}]},
    "secrets": KEYS | {"store__password": "REPLACE-ME"},
}


@pytest.mark.parametrize(
    ("overlay", "values"), [("base", {"secrets": KEYS}), ("replicas", SHARED)]
)
def test_it_says_the_same_as_the_manifests(tools, overlay, values):
    folder = ROOT / "deploy" / "kubernetes" / overlay
    theirs = plain(by_kind(output(tools / "kubectl", "kustomize", folder)))
    ours = plain(by_kind(joined(helm(tools, "render", {"": values})[""])))
    assert ours.keys() == theirs.keys()
    for kind, each in theirs.items():
        assert ours[kind] == each


def test_rules_and_dashboard_are_those_of_the_project(rendered):
    found = objects(rendered["replicas"])
    (rule,) = [x for x in found if x["kind"] == "PrometheusRule"]
    wanted = (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text()
    assert rule["spec"] == yaml.safe_load(wanted)
    (dashboard,) = [
        x
        for x in found
        if x["kind"] == "ConfigMap" and "devserver-watcher.json" in x["data"]
    ]
    wanted = (ROOT / "deploy" / "grafana" / "devserver-watcher.json").read_text()
    assert dashboard["data"]["devserver-watcher.json"] == wanted


def test_a_package_holds_all_of_it_and_renders_the_same(tools, tmp_path, files):
    script = "import sys, helm_python; print(helm_python.Chart.load(sys.argv[1]).save(sys.argv[2]))"
    made = output(tools / "python", "-c", script, CHART, tmp_path).strip()
    with tarfile.open(made) as archive:
        inside = {x.name: x.isreg() for x in archive.getmembers()}
    assert inside["devserver-watcher/files/rules.yaml"]
    assert inside["devserver-watcher/files/dashboard.json"]
    assert not [x for x in inside if "/ci/" in x]
    assert helm(tools, "render", SETS, chart=made) == files


def test_selectors_find_the_watcher_and_not_its_test(rendered):
    kinds = {x["kind"]: x for x in objects(rendered["replicas"])}
    ours = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    tests = kinds["Pod"]["metadata"]["labels"].items()
    for found in (
        kinds["Deployment"]["spec"]["selector"]["matchLabels"],
        kinds["Service"]["spec"]["selector"],
        kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert found.items() <= ours
        assert not found.items() <= tests
    policy = kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items()
    assert policy <= ours
    assert policy <= tests
    wanted = kinds["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
    assert wanted <= kinds["Service"]["metadata"]["labels"].items()
    least = {x["kind"]: x for x in objects(rendered["least"])}
    wanted = least["PodMonitor"]["spec"]["selector"]["matchLabels"].items()
    assert (
        wanted <= least["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    )


WRONG = {
    "several replicas on SQLite": (
        {"replicas": 3},
        "'/config': missing property 'store'",
    ),
    "a number in words": ({"replicas": "two"}, "'/replicas': got string"),
    "another database": (
        {"config": {"store": {"url": "mysql://watcher@db/watcher"}}},
        "'/config/store/url': 'mysql://watcher@db/watcher' does not",
    ),
    "a target's name": (
        {"config": {"targets": {"Prod_1": {}}}},
        "invalid propertyName 'Prod_1'",
    ),
    "no target": (
        {"config": {"targets": {"prod": None}}},
        "'/config/targets': minProp",
    ),
    "half a digest": ({"image": {"digest": "abc"}}, "'/image/digest': 'abc' does not"),
    "an odd size": (
        {"persistence": {"size": "1 GB"}},
        "'/persistence/size': '1 GB' does not",
    ),
    "no port": ({"service": {"port": 0}}, "'/service/port': minimum: got 0"),
    "a slip of the pen": ({"replica": 1}, "additional properties 'replica'"),
    "an interval without unit": (
        {"serviceMonitor": {"interval": 15}},
        "'/serviceMonitor/interval': got number",
    ),
    "a file that replicas share": (
        {"replicas": 2, "config": {"store": {"url": "sqlite:///watcher.db"}}},
        "'/config/store/url': 'sqlite:///watcher.db' does not",
    ),
    "a password in the ConfigMap": (
        {"config": {"store": {"url": "postgresql://watcher:secret@db/watcher"}}},
        "'/config/store/url': 'postgresql://watcher:secret@db/watcher' does not",
    ),
    "a secret in the ConfigMap": (
        {"config": {"server": {"api_token": "x"}}},
        "'/config/server/api_token': false",
    ),
    "a Service called watcher": (
        {"fullnameOverride": "watcher"},
        "'/fullnameOverride': 'not' failed",
    ),
    "a volume without name": ({"volumes": [{"emptyDir": {}}]}, "'/volumes/0': missing"),
}


@pytest.fixture(scope="module")
def refusals(tools):
    return helm(tools, "render", {name: values for name, (values, _) in WRONG.items()})


@pytest.mark.parametrize("name", WRONG)
def test_the_schema_refuses_what_is_wrong(refusals, name):
    assert isinstance(refusals[name], str), "it was taken"
    assert WRONG[name][1] in refusals[name]


def test_the_notes_say_what_is_still_to_do(files):
    notes = {
        name: next(v for k, v in made.items() if k.endswith("NOTES.txt"))
        for name, made in files.items()
    }
    assert "1 replica on SQLite, targets prod." in notes["default"]
    assert "There are no secrets yet" in notes["default"]
    assert "3 replicas on PostgreSQL" in notes["replicas"]
    assert "targets test." in notes["placed"]
    assert "no secrets yet" not in notes["placed"]
    assert "told again when the Pod moves" in notes["least"]


JOB = "d8cbd2b9-e69f-466a-b6ce-8b7febac2f7a"  # the first of seed 7


def playable(text, pod):
    """Make of a rendering what podman plays: the Pod, its configuration, and a cloud beside.

    Kinds that it does not know are left out; so are secrets, which it keeps elsewhere, and
    a database, which is not there.
    """
    found = objects(text)
    (deployment,) = [x for x in found if x["kind"] == "Deployment"]
    configs = [
        x for x in found if x["kind"] == "ConfigMap" and "watcher.yaml" in x["data"]
    ]
    spec = deployment["spec"]["template"]["spec"]
    (config,) = configs
    config["metadata"]["name"] = f"{pod}-config"
    values = yaml.safe_load(config["data"]["watcher.yaml"])
    values["targets"] = {
        name: {
            "endpoint": "http://127.0.0.1:18080",
            "project_id": PROJECT,
            "credentials": {"kind": "none"},
            "jobs": [JOB],
        }
        for name in values["targets"]
    }
    values |= {"poll": {"interval": "500ms"}, "store": {"url": "sqlite:///watcher.db"}}
    values["server"].pop("web_config_file", None)
    values.pop("sinks", None)
    config["data"]["watcher.yaml"] = yaml.safe_dump(values)
    for volume in spec["volumes"]:
        if volume.get("configMap") and volume["name"] == "config":
            volume["configMap"]["name"] = f"{pod}-config"
        elif "emptyDir" not in volume:
            name = volume["name"]
            volume.clear()
            volume |= {"name": name, "emptyDir": {}}
    (watcher,) = spec["containers"]
    watcher["image"] = "localhost/devserver-watcher:0.1.0"
    watcher["imagePullPolicy"] = "Never"
    for gone in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):
        watcher.pop(gone)  # the Pod has loopback only
    cloud = {
        "name": "cloud",
        "image": watcher["image"],
        "imagePullPolicy": "Never",
        "args": [
            *[
                "simulate",
                "--listen=127.0.0.1:18080",
                "--jobs=1",
                "--seed=7",
                "--speed=20",
            ]
        ],
    }
    spec["containers"] = [cloud, watcher]
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod},
        "spec": spec,
    }
    return yaml.safe_dump_all([config, made])


@pytest.mark.parametrize("name", SETS)
def test_its_pod_watches_to_the_end(podman, rendered, tmp_path, name):
    pod = f"chart-{name}-{os.getpid()}"
    file = tmp_path / "pod.yaml"
    file.write_text(playable(rendered[name], pod))
    podman("kube", "play", "--network=none", file)
    try:

        def logs():
            return podman.log(f"{pod}-watcher")[-3000:]

        until(lambda: '"event":"job.finished"' in logs(), what=logs)
        podman("exec", f"{pod}-watcher", "watcher", "healthcheck")
        config = "/etc/devserver-watcher/watcher.yaml"
        done = run_in(podman, f"{pod}-watcher", "watcher", "doctor", "--config", config)
        assert "http://127.0.0.1:18080" in done
    finally:
        podman.tried("pod", "rm", "--force", "--time=0", pod)


def run_in(podman, container, *words):
    done = podman.tried("exec", container, *words)
    return done.stdout + done.stderr
