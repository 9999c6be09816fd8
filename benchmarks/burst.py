"""Ten thousand transitions within one second: until all are told, and what waits."""

import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from benchmarks.processes import cloud, daemon, job_of, now, settings
from benchmarks.row import Row

JOBS, TASKS = 200, 50
PATIENCE = 60.0


class World:
    """The jobs of the burst, before it and after."""

    def prepare(self, folder):
        self._folder = folder
        for state, word in (("before", "PROCESSING"), ("after", "SUCCESS")):
            (folder / state).mkdir()
            for number in range(JOBS):
                body = job_of(f"burst-{number}", [word] * TASKS)
                (folder / state / f"burst-{number}.json").write_text(body)
        (folder / "now").symlink_to("before")

    def change(self):
        """Let every task of every job end, at once."""
        (self._folder / "next").symlink_to("after")
        (self._folder / "next").rename(self._folder / "now")


class Probe(threading.Thread):
    """Asks /healthz forty times a second, as a kubelet would, until it is told to stop."""

    def __init__(self, url):
        super().__init__()
        self._url, self.took, self.over = url, [], threading.Event()

    def run(self):
        while not self.over.wait(0.025):
            began = now()
            with urllib.request.urlopen(f"{self._url}/healthz", timeout=30):
                self.took.append(now() - began)

    def slowest(self, share=0.99):
        return sorted(self.took)[int(len(self.took) * share)]


def told(file):
    return file.read_bytes().count(b'"task.transition"')


def measure():
    """Return seconds until all was told, and the probes' 99th percentile, in ms."""
    world = World()
    jobs = [f"burst-{number}" for number in range(JOBS)]
    values = settings("", jobs, 1.0, log={"level": "info", "format": "json"})
    with tempfile.NamedTemporaryFile() as output, cloud(prepare=world.prepare) as url:
        values["targets"]["prod"]["endpoint"] = url
        with daemon(values, output=output) as watcher:
            watcher.ready()
            time.sleep(3)
            probe = Probe(watcher.url)
            probe.start()
            world.change()
            began, file = now(), Path(output.name)
            while told(file) < JOBS * TASKS and now() < began + PATIENCE:
                time.sleep(0.05)
            took = now() - began
            probe.over.set()
            probe.join()
    return took, 1000 * probe.slowest()


def rows(hasty):
    """Measure the burst, and the probes beside it."""
    found = [measure() for _ in range(1 if hasty else 3)]
    took, slowest = (min(each) for each in zip(*found, strict=True))
    yield Row(
        "10,000 transitions within a second",
        5.0,
        "s until all are committed and logged",
        took,
        note="200 jobs of 50 tasks, looked at once a second; best of three",
        tried=BURST,
    )
    yield Row(
        "the same, `/healthz` meanwhile",
        50.0,
        "ms, the 99th percentile",
        slowest,
        note="a new connection 40 times a second; best of three",
        tried="",
    )


BURST = """A store that commits a tick's transitions in one transaction, and a sink that writes a
batch in one write, leave the work of making the transitions themselves."""
