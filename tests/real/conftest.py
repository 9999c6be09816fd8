"""What several of these tests need and is costly to make: kept for a session or longer."""

import os
import re
import shutil
import sys
import venv

import pytest

from tests.real import podman as containers
from tests.real.components import ROOT, cached, missing, output, require

__all__ = ["require"]

REQUIREMENTS = ROOT / "requirements"


@pytest.fixture(scope="session")
def tools():
    """The folder of the programs in requirements/tools.txt, in an environment of their own."""
    pins = REQUIREMENTS / "tools.txt"

    def make(place):
        # Scripts name their interpreter, so it is made where it stays; the stamp says
        # that it is whole.
        folder = place.with_name(place.name + ".d")
        venv.create(folder, with_pip=True, clear=True)
        pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet")
        output(*pip, "--require-hashes", "--no-deps", "-r", pins, seconds=300)
        place.touch()

    stamp = cached("tools", pins.read_bytes(), sys.version.encode(), make=make)
    return stamp.with_name(stamp.name + ".d") / "bin"


@pytest.fixture(scope="session")
def wheelhouse():
    """A folder with the wheels of all that the daemon needs, itself left out."""
    pins = REQUIREMENTS / "run.txt"

    def make(place):
        half = place.with_name(place.name + ".half")
        shutil.rmtree(half, ignore_errors=True)
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--dest", half)
        only = ("--require-hashes", "--only-binary", ":all:")
        output(*pip, *only, "-r", pins, seconds=300)
        half.rename(place)

    return cached("wheels", pins.read_bytes(), sys.version.encode(), make=make)


@pytest.fixture(scope="session")
def build_wheelhouse():
    """A folder with the wheels of what makes a wheel of a checkout, by the Dockerfile's choice."""
    pins = (REQUIREMENTS / "dev.txt").read_text()
    names = re.search(r"/\^\((\S+)\)==/", (ROOT / "Dockerfile").read_text()).group(1)
    blocks = re.findall(rf"(?m)^(?:{names})==.*(?:\n .*)*", pins)

    def make(place):
        half = place.with_name(place.name + ".half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        file = half / "requirements.txt"
        file.write_text("\n".join(blocks))
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--dest", half)
        only = ("--require-hashes", "--only-binary", ":all:")
        output(*pip, *only, "-r", file, seconds=300)
        half.rename(place)

    return cached("build-wheels", *map(str.encode, blocks), make=make)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel")
    output(*build, "--outdir", folder, ROOT, cwd=ROOT)
    (found,) = folder.glob("*.whl")
    return found


PACKAGES = (
    "ca-certificates,dbus,procps,python3,python3-pip,python3-venv,systemd,systemd-sysv"
)
"""One Debian is enough: the machine boots it, the image is built on it."""


@pytest.fixture(scope="session")
def debian():
    """A tar of a Debian with these packages."""
    require("root", "mmdebstrap")
    sources = "/etc/apt/sources.list.d/debian.sources"
    if not os.path.exists(sources):  # noqa: PTH110
        missing("Debian 12 with deb822 sources")

    def make(place):
        half = place.with_name(f"half-{place.name}")  # the ending says: a tar
        words = ("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}")
        output(*words, "bookworm", half, sources, seconds=400)
        half.rename(place)

    return cached("debian.tar", PACKAGES.encode(), make=make)


@pytest.fixture(scope="session")
def podman(tmp_path_factory, debian, wheelhouse, build_wheelhouse):
    """Podman, with the image of this checkout."""
    require("root", "podman", "runc")
    it = containers.Podman()
    folder = tmp_path_factory.mktemp("context")
    containers.context(folder, wheelhouse, build_wheelhouse)
    containers.build(it, folder, debian)
    return it
