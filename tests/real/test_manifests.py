"""Kubernetes manifests: rendered, validated, and run as a Pod where that goes without a cluster."""

import json
import os
import re
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

import pytest
import yaml

from tests.real.components import PROJECT, ROOT, output, until
from tests.real.manifests import (
    OPERATOR_KINDS,
    VERSIONS,
    check_kinds,
    check_operator_kinds,
    check_restricted,
    objects,
    pods,
)

FOLDER = ROOT / "deploy" / "kubernetes"
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
OVERLAYS = ("base", "monitoring", "replicas", "sidecar", "sidecar-classic")


@pytest.fixture(scope="module")
def rendered(tools):
    """Every overlay as text, by name."""
    kubectl = tools / "kubectl"
    return {name: output(kubectl, "kustomize", FOLDER / name) for name in OVERLAYS}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_kubernetes_takes_it(rendered, tools, tmp_path, name, version):
    check_kinds(tools, tmp_path, objects(rendered[name]), version)


def test_the_operator_takes_its_kinds(rendered, tools, tmp_path):
    found = objects(rendered["monitoring"])
    assert check_operator_kinds(tools, tmp_path, found) == OPERATOR_KINDS


def test_the_rule_manifest_is_the_rule_file():
    text = (FOLDER / "monitoring" / "prometheusrule.yaml").read_text()
    _, _, rules = text.partition("\nspec:\n")
    lines = RULES.read_text().splitlines(keepends=True)
    assert rules == "".join(f"  {x}" if x.strip() else x for x in lines)


@pytest.mark.parametrize("name", ["base", "replicas", "sidecar", "sidecar-classic"])
def test_pods_are_restricted(rendered, name):
    for spec in pods(rendered[name]):
        check_restricted(spec)


def test_selectors_find_what_they_are_for(rendered):
    kinds = {x["kind"]: x for x in objects(rendered["base"])}
    labels = kinds["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for found in (
        kinds["Deployment"]["spec"]["selector"]["matchLabels"],
        kinds["Service"]["spec"]["selector"],
        kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert found.items() <= labels.items()
    monitors = {x["kind"]: x for x in objects(rendered["monitoring"])}
    wanted = monitors["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= kinds["Service"]["metadata"]["labels"].items()
    wanted = monitors["PodMonitor"]["spec"]["selector"]["matchLabels"]
    (job,) = [x for x in objects(rendered["sidecar"]) if x["kind"] == "Job"]
    assert wanted.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert kinds["Service"]["metadata"]["name"] != "watcher"
    assert kinds["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


def test_replicas_share_a_database_and_are_apart(rendered):
    kinds = {x["kind"]: x for x in objects(rendered["replicas"])}
    assert "PersistentVolumeClaim" not in kinds
    deployment = kinds["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["replicas"] > 1
    assert deployment["strategy"]["type"] == "RollingUpdate"
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    for each in (kinds["PodDisruptionBudget"]["spec"], *spread):
        found = (each.get("selector") or each["labelSelector"])["matchLabels"]
        assert found.items() <= labels.items()
    assert kinds["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    config = yaml.safe_load(kinds["ConfigMap"]["data"]["watcher.yaml"])
    assert "store__password" in kinds["Secret"]["stringData"]
    (peer,) = kinds["NetworkPolicy"]["spec"]["egress"][-1]["to"]
    address = peer["ipBlock"]["cidr"].partition("/")[0]
    (port,) = kinds["NetworkPolicy"]["spec"]["egress"][-1]["ports"]
    assert f"@{address}:{port['port']}/" in config["store"]["url"]


CLOSED = ("10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "fd00::1")
OPEN = ("100.125.1.1", "8.8.8.8", "2606:4700::1111")


def fences(text):
    """Yield each workload's labels with the policies that hold for its Pods."""
    found = objects(text)
    policies = [x["spec"] for x in found if x["kind"] == "NetworkPolicy"]
    for each in found:
        if each["kind"] in {"Deployment", "Job"}:
            labels = each["spec"]["template"]["metadata"]["labels"].items()
            yield [
                policy
                for policy in policies
                if policy["podSelector"]["matchLabels"].items() <= labels
            ]


def admits(block, address):
    """Whether an ipBlock lets an address through."""
    inside = [ip_address(address) in ip_network(x) for x in block.get("except", [])]
    return ip_address(address) in ip_network(block["cidr"]) and not any(inside)


@pytest.mark.parametrize("name", ["base", "sidecar", "sidecar-classic"])
def test_pods_reach_names_and_the_cloud_and_nothing_in_the_cluster(rendered, name):
    for policies in fences(rendered[name]):
        (policy,) = policies
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        (came,) = policy["ingress"]
        assert came["from"]
        assert [x["port"] for x in came["ports"]] == [10911]
        names, cloud = policy["egress"]
        assert {x["port"] for x in names["ports"]} == {53}
        (dns,) = names["to"]
        assert dns["namespaceSelector"]["matchLabels"]
        assert dns["podSelector"]["matchLabels"]
        assert cloud["ports"] == [{"port": 443, "protocol": "TCP"}]
        blocks = [each["ipBlock"] for each in cloud["to"]]
        assert not [x for x in CLOSED if any(admits(b, x) for b in blocks)]
        assert all(any(admits(b, x) for b in blocks) for x in OPEN)


def test_the_guide_lets_jobs_in_to_hand_ids_over(rendered, tools, tmp_path):
    text = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
    (block,) = re.findall(r"```yaml\n(apiVersion: networking.*?)```", text, re.DOTALL)
    file = tmp_path / "policy.yaml"
    file.write_text(block)
    output(tools / "kubernetes-validate", "-k", VERSIONS[0], "--strict", file)
    (policies,) = fences(f"{rendered['base']}---\n{block}")
    ours, added = policies
    assert ours["ingress"][0]["ports"] == added["ingress"][0]["ports"]
    assert added["policyTypes"] == ["Ingress"]


def test_the_sidecar_is_native_and_the_classic_one_is_not(rendered):
    (native,) = pods(rendered["sidecar"])
    (watcher,) = native["initContainers"]
    assert watcher["restartPolicy"] == "Always"
    assert watcher["startupProbe"]
    (classic,) = pods(rendered["sidecar-classic"])
    assert "initContainers" not in classic
    names = {x["name"]: x.get("env", []) for x in classic["containers"]}
    wanted = {"name": "WATCHER_FINISHED__EXIT_WHEN_DONE", "value": "true"}
    assert wanted in names["watcher"]


SUBMIT = """\
import json, time, urllib.error, urllib.request
body = {"type": "ASCEND_SOFTWARE_QUERY", "name": "rehearsal", "server_ids": SERVERS}
url = "http://127.0.0.1:18080/v1/PROJECT/dev-servers/jobs"
request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
request.add_header("Content-Type", "application/json")
for _ in range(100):
    try:
        print(json.load(urllib.request.urlopen(request))["id"])
        break
    except urllib.error.HTTPError:
        raise
    except OSError:  # the cloud beside is not up yet
        time.sleep(0.2)
"""


def rehearsal(text, name):
    """Make a Pod of a rendered Job: the cloud in it, a native sidecar as a container."""
    found = objects(text)
    (job,) = [x for x in found if x["kind"] == "Job"]
    (config,) = [x for x in found if x["kind"] == "ConfigMap"]
    (secret,) = [x for x in found if x["kind"] == "Secret"]
    secret["data"] = {}
    spec = job["spec"]["template"]["spec"]
    containers = [*spec.pop("initContainers", []), *spec["containers"]]
    values = yaml.safe_load(config["data"]["watcher.yaml"])
    values["targets"]["prod"] |= {
        "endpoint": "http://127.0.0.1:18080",
        "credentials": {"kind": "none"},
    }
    values["poll"] = {"interval": "500ms"}
    servers = json.dumps(["58cbef7a-03b7-403f-bbee-d2062ea61a2a"])
    script = SUBMIT.replace("SERVERS", servers).replace("PROJECT", PROJECT)
    config["data"] |= {"watcher.yaml": yaml.safe_dump(values), "post.py": script}
    config["metadata"]["name"] = name
    cloud = {
        "name": "cloud",
        "image": containers[0]["image"],
        "args": ["simulate", "--listen=127.0.0.1:18080", "--speed=100", "--jobs=1"],
    }
    for each in containers:
        each.pop("restartPolicy", None)
        each.pop("startupProbe", None)
        each.pop("livenessProbe", None)
        each.pop("ports", None)  # the Pod has loopback only
        if each["name"] == "submit":
            each["args"] = ["python3", "/etc/devserver-job/post.py"]
            each.setdefault("env", []).append({"name": "LOOK_EVERY", "value": "0.5"})
    for each in (cloud, *containers):
        each["image"] = f"localhost/{each['image']}"
        each["imagePullPolicy"] = "Never"
    spec["containers"] = [cloud, *containers]
    spec["restartPolicy"] = "Never"
    for volume in spec["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = name
        if (
            "secret" in volume
        ):  # podman keeps secrets elsewhere, and none is needed here
            del volume["secret"]
            volume["emptyDir"] = {}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": spec,
    }
    return yaml.safe_dump_all([config, pod])


@contextmanager
def played(podman, folder, text, name):
    file = folder / "pod.yaml"
    file.write_text(rehearsal(text, name))
    podman("kube", "play", "--network=none", file)
    try:
        yield
    finally:
        podman.tried("pod", "rm", "--force", "--time=0", name)


def exited(podman, name):
    """Return the exit code of a container that has ended, else None."""
    state = podman.inspect(name)["State"]
    return None if state["Running"] else (state["ExitCode"],)


@pytest.mark.parametrize("name", ["sidecar", "sidecar-classic"])
def test_a_pod_submits_watches_and_ends_with_its_job(podman, rendered, tmp_path, name):
    pod = f"{name}-{os.getpid()}"
    with played(podman, tmp_path, rendered[name], pod):

        def logs():
            return "".join(
                f"== {x}\n{podman.log(f'{pod}-{x}')[-3000:]}\n"
                for x in ("cloud", "submit", "watcher")
            )

        (submitted,) = until(lambda: exited(podman, f"{pod}-submit"), what=logs)
        lines = podman.log(f"{pod}-submit").splitlines()
        if name == "sidecar":
            code = submitted
            podman("stop", "--time=10", f"{pod}-watcher")
            assert exited(podman, f"{pod}-watcher") == (0,), logs()
            assert lines[-1].startswith("finished "), logs()
        else:
            assert submitted == 0, logs()
            (code,) = until(lambda: exited(podman, f"{pod}-watcher"), what=logs)
        job_id = lines[0].removeprefix("submitted ")
        events = [
            json.loads(line)
            for line in podman.log(f"{pod}-watcher").splitlines()
            if line.startswith("{")
        ]
        (end,) = [line for line in events if line["event"] == "job.finished"]
        assert end["job_id"] == job_id
        assert code == (0 if end["phase"] == "succeeded" else 1)
