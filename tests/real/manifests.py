"""What is asked of every manifest, from whatever it was rendered."""

import json

import yaml

from tests.real.components import output, run

OPERATOR_KINDS = {"PodMonitor", "PrometheusRule", "ServiceMonitor"}
VERSIONS = ("1.29", "1.37")


def objects(text):
    return [each for each in yaml.safe_load_all(text) if each]


def pods(text):
    """Yield the Pod specs in a rendering."""
    for each in objects(text):
        if each["kind"] in {"Deployment", "Job"}:
            yield each["spec"]["template"]["spec"]


def check_kinds(tools, folder, found, version):
    """Let a version of Kubernetes look at all kinds that are its own."""
    file = folder / "own.yaml"
    own = [x for x in found if x["kind"] not in OPERATOR_KINDS]
    file.write_text(yaml.safe_dump_all(own))
    command = (tools / "kubernetes-validate", "-k", version, "--strict", file)
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("passed") == len(own)


def check_operator_kinds(tools, folder, found):
    """Let the models of the Prometheus operator look at its kinds; return which were there."""
    file = folder / "monitoring.json"
    those = [x for x in found if x["kind"] in OPERATOR_KINDS]
    file.write_text(json.dumps(those))
    script = (
        "import json, sys; from cloudcoil.models.prometheus_operator import v1\n"
        "for each in json.load(open(sys.argv[1])):\n"
        "    model = getattr(v1, each['kind'])\n"
        "    seen = model.model_validate(each).model_dump(\n"
        "        by_alias=True, exclude_none=True, mode='json')\n"
        "    lost = set(each['spec']) - set(seen['spec'])\n"
        "    assert not lost, lost\n"
    )
    output(tools / "python", "-c", script, file)
    return {x["kind"] for x in those}


def check_restricted(spec):
    """Hold a Pod against the Pod security standard `restricted`."""
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    allowed = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "name"}
    assert {key for volume in spec["volumes"] for key in volume} <= allowed
