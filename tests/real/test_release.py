"""What is released: the same bytes each time, and a list of everything in it."""

import hashlib
import json
import os
import re
import sys

import pytest

from tests.real.components import ROOT, output

PINS = ROOT / "requirements" / "run.txt"


def built(folder, epoch):
    environ = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", folder)
    output(*command, ROOT, cwd=ROOT, env=environ)
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
    }


def test_wheel_and_sdist_are_reproducible(tmp_path):
    first = built(tmp_path / "a", "1700000000")
    assert len(first) == 2
    assert built(tmp_path / "b", "1700000000") == first
    assert built(tmp_path / "c", "1700086400") != first


def test_the_bill_of_materials_lists_every_pin_with_its_hashes(tools, tmp_path):
    file = tmp_path / "sbom.json"
    words = (
        "requirements",
        "--output-reproducible",
        "--of=JSON",
        f"--output-file={file}",
    )
    project = f"--pyproject={ROOT / 'pyproject.toml'}"
    output(tools / "cyclonedx-py", *words, project, PINS)
    sbom = json.loads(file.read_text())
    assert sbom["metadata"]["component"]["name"] == "devserver-watcher"
    listed = {
        f"{each['name']}=={each['version']}": {
            each_hash["content"]
            for reference in each["externalReferences"]
            for each_hash in reference["hashes"]
        }
        for each in sbom["components"]
    }
    pinned = {
        name: set(re.findall(r"sha256:(\w+)", hashes))
        for name, hashes in re.findall(
            r"(?m)^([\w.-]+==[\w.]+)(.*(?:\n .*)*)", PINS.read_text()
        )
    }
    assert listed == pinned


@pytest.mark.parametrize("name", ["run", "dev", "tools"])
def test_requirements_have_hashes_and_no_address(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    blocks = re.findall(r"(?m)^\S.*(?:\n .*)*", text)
    assert blocks
    assert all("--hash=sha256:" in block for block in blocks)
