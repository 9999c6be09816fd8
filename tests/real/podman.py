"""Podman with a storage of its own, and the project's image in it."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from tests.real.components import ROOT, cache, output, run

BASE = "docker.io/library/python:3.11-slim-bookworm"
IMAGE = "localhost/devserver-watcher:0.1.0"
SETTINGS = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def _digest(folder):
    return hashlib.sha256(str(folder).encode()).hexdigest()[:8]


class Podman:
    """Commands of a podman whose images and containers nobody else sees."""

    def __init__(self):
        self._folder = cache() / "podman"
        self._folder.mkdir(exist_ok=True)
        settings = self._folder / "containers.conf"
        settings.write_text(SETTINGS)
        self._environ = os.environ | {"CONTAINERS_CONF": str(settings)}
        # The run root's path may have 50 characters, and a storage knows but one.
        run_root = Path(tempfile.gettempdir()) / f"podman-run-{_digest(self._folder)}"
        root = self._folder / f"root-{_digest(run_root)}"
        self._words = ("podman", f"--root={root}", f"--runroot={run_root}")

    def __call__(self, *words, seconds=120, **options):
        options = {"env": self._environ, **options}
        return output(*self._words, *words, seconds=seconds, **options)

    def tried(self, *words, seconds=120):
        return run(*self._words, *words, seconds=seconds, env=self._environ)

    def inspect(self, name):
        return json.loads(self("inspect", name))[0]

    def log(self, name):
        done = self.tried("logs", name)
        return done.stdout + done.stderr


def context(folder, *houses):
    """Copy what the image is built from to a folder, with wheels in place of a network."""
    for name in (
        "Dockerfile",
        ".dockerignore",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    ):
        shutil.copy(ROOT / name, folder)
    for name in ("requirements", "watcher"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for house in houses:
        shutil.copytree(house, folder / "wheels", dirs_exist_ok=True)
    return folder


def build(podman, folder, base: Path):
    """Build the image without a network, on a stand-in for its base image."""
    known = f"localhost/base:{base.name.partition('-')[0]}"
    if podman.tried("image", "exists", known).returncode:
        podman("import", "--quiet", base, BASE)
        podman("tag", BASE, known)
    podman("image", "prune", "--force", "--filter=until=24h")
    podman(
        "build",
        "--quiet",
        "--pull=never",
        "--format=docker",
        "--network=none",
        "--build-arg=PIP_NO_INDEX=1",
        f"--tag={IMAGE}",
        folder,
        seconds=300,
    )
