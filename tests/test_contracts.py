"""Each import contract, broken on purpose, is found broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def copy(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree("watcher", tmp_path / "watcher", ignore=ignored)
    shutil.copy("pyproject.toml", tmp_path)
    return tmp_path


def broken(folder):
    done = subprocess.run(
        [LINT, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return {
        line.partition(" BROKEN")[0]
        for line in done.stdout.splitlines()
        if " BROKEN" in line
    }


def test_all_are_kept(copy):
    assert broken(copy) == set()


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("ports.py", "import watcher.polling.poller", "floors: "),
        ("daemon/watch_list.py", "import watcher.commands", "floors: "),
        ("sinks/courier.py", "import watcher.daemon.app", "floors: "),
        ("polling/sources.py", "import watcher.logs", "floors: "),
        ("core/errors.py", "import watcher.core.model", "floors of the core"),
        ("core/wire.py", "import watcher.core.schedule", "floors of the core"),
        ("core/tracker.py", "import time", "the core does no I/O"),
        ("core/schedule.py", "import random", "the core does no I/O"),
        ("core/model.py", "import msgspec", "the core decodes JSON in one place"),
        ("polling/poller.py", "import aiohttp", "each third party has its homes"),
        (
            "settings/schema.py",
            "import prometheus_client",
            "each third party has its homes",
        ),
        ("simulator/jobs.py", "import watcher.sinks.courier", "floors: "),
        ("simulator/jobs.py", "import watcher.core.model", "floors: "),
        ("daemon/app.py", "import watcher.simulator", "the simulator is"),
        ("pages/health.py", "import watcher.pages.ui", "sinks do not know"),
        ("sinks/webhook.py", "import watcher.sinks.log", "sinks do not know"),
        ("sinks/webhook.py", "import watcher.sinks.kinds", "sinks do not know"),
        ("sinks/post.py", "import watcher.sinks.courier", "sinks do not know"),
        ("sinks/base.py", "import watcher.settings.schema", "floors: "),
        ("fields.py", "import watcher.ports", "floors: "),
    ],
)
def test_a_breach_is_found(copy, module, line, contract):
    file = copy / "watcher" / module
    file.write_text(
        file.read_text().replace(
            "from __future__ import annotations\n",
            f"from __future__ import annotations\n\n{line}\n",
            1,
        )
    )
    assert any(name.startswith(contract) for name in broken(copy))


def test_a_module_on_no_floor_is_found(copy):
    (copy / "watcher" / "somewhere.py").write_text('"""New."""\n')
    done = subprocess.run(
        [LINT, "--no-cache"], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "somewhere" in done.stdout
