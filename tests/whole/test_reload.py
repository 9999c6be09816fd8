"""Reloads without end: a difference each time, and nothing left behind."""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import anyio
import yaml

from tests.whole.daemon import ACCESS_KEY, SECRET_KEY, running, target, until
from watcher.simulator import SimulatorOptions, simulate

RELOADS = int(os.environ.get("WATCHER_RELOADS", "500"))
WARM = 60
NOTICED_WITHIN = 5.0
POLL = {"interval": "250ms", "requests_per_second": 60, "max_in_flight": 4}
FAULTY = (sys.executable, "-m", "tests.whole.faulty")
FREE = {"kind": "none"}


class Reloads:
    """Changes a daemon's configuration and waits until it took note."""

    def __init__(self, daemon, file, sim):
        self.daemon = daemon
        self.done = 0
        self._file = file
        self._first, self._second = sim.job_ids[:20], sim.job_ids[20:]
        self._url = sim.url

    def values(self, number):
        """Each is another: with and without the second target, poll settings in turn."""
        targets = {"prod": target(self._url, self._first, credentials=FREE)}
        if number % 4:
            targets["second"] = target(self._url, self._second, credentials=FREE)
        poll = POLL | {"timeout": f"{5 + number % 3}s", "max_in_flight": 4 + number % 2}
        server = {"listen": "127.0.0.1:0"}
        return {"targets": targets, "poll": poll, "server": server}

    async def one(self, number):
        """Reload once: an odd one is invalid, and every 25th is not asked for."""
        valid = number % 2 == 0
        text = yaml.safe_dump(self.values(number // 2))
        self._file.write_text(text if valid else text + "poll: nonsense\n")
        before = self._count()
        if number % 25:
            self.daemon.process.send_signal(signal.SIGHUP)
        name = "config.reloaded" if valid else "config.reload_failed"
        await self.daemon.until(lambda: self._count()[name] > before[name])
        self.done += 1
        return valid

    def _count(self):
        names = ("config.reloaded", "config.reload_failed")
        return {name: len(self.daemon.events(name)) for name in names}


async def traces(daemon):
    """Count what a daemon holds of the system, of tasks and of jobs."""
    process = Path(f"/proc/{daemon.process.pid}")
    told = len(daemon.errors)
    daemon.process.send_signal(signal.SIGUSR1)
    await until(lambda: len(daemon.errors) > told)
    metrics = await daemon.metrics()
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines()
    )
    return {
        "files": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
        "tasks": int(daemon.errors[-1]),
        "jobs": sum(name[0] == "devserver_job_info" for name in metrics),
        "kilobytes": int(status["VmRSS"].split()[0]),
    }


async def test_many_reloads_leave_nothing_behind(tmp_path, capsys):
    options = SimulatorOptions(jobs=24, tasks=4, speed=1.0, failing=0.3)
    async with simulate(options) as sim:
        reloads = Reloads(None, tmp_path / "watcher.yaml", sim)
        async with running(tmp_path, reloads.values(2), command=FAULTY) as daemon:
            reloads.daemon = daemon
            await daemon.started()
            added = 1
            for number in range(RELOADS):
                if number == WARM:
                    before = await traces(daemon)
                valid = await reloads.one(number)
                added += valid and number // 2 % 4 == 1
                if number % 50 < 2:
                    metrics = await daemon.metrics()
                    shown = metrics["watcher_config_last_reload_successful",]
                    assert shown == valid
            sim.clock.set(speed=60)
            await daemon.until(lambda: ended(daemon) >= set(sim.job_ids[:20]))
            after = await traces(daemon)
            code, _ = await daemon.end()
            truth = sim.truth()
    assert code == 0
    assert after["jobs"] == len(sim.job_ids)
    assert after["tasks"] <= before["tasks"]
    assert after["threads"] <= before["threads"] + 2, "the pool of idle ones may grow"
    assert after["files"] <= before["files"] + 8, "connections may be open or not"
    assert after["kilobytes"] <= before["kilobytes"] + 12_000
    seen = Counter(line["job_id"] for line in daemon.events("job.first_seen"))
    assert all(seen[job_id] == 1 for job_id in sim.job_ids[:20])
    assert all(seen[job_id] <= added for job_id in sim.job_ids[20:])
    told = Counter(
        (line["job_id"], line["task_id"], line["to"])
        for line in daemon.events("task.transition")
        if line["target"] == "prod"
    )
    assert told == Counter(
        (job_id, each.task_id, each.to_status)
        for job_id in sim.job_ids[:20]
        for each in truth[job_id].transitions
    )
    with capsys.disabled():
        print(f"\n{reloads.done} reloads: {before} -> {after}")


def ended(daemon):
    return {line["job_id"] for line in daemon.events("job.finished")}


async def test_an_invalid_configuration_keeps_the_old_one_working(tmp_path):
    async with simulate(SimulatorOptions(jobs=1, tasks=2, speed=0)) as sim:
        prod = target(sim.url, sim.job_ids, credentials=FREE)
        values = {"targets": {"prod": prod}, "poll": POLL}
        async with running(tmp_path, values) as daemon:
            await daemon.started()
            await daemon.until(lambda: daemon.events("job.first_seen"))
            (tmp_path / "watcher.yaml").write_text("targets: {}\n")
            await daemon.until(lambda: daemon.events("config.reload_failed"))
            metrics = await daemon.metrics()
            assert metrics["watcher_config_last_reload_successful",] == 0
            sim.jobs.patch(sim.job_ids[0], "*", "FAILED")
            sim.jobs.say(sim.job_ids[0], "FINISHED")
            await daemon.until(lambda: daemon.events("job.finished"))


async def test_a_right_key_takes_effect_at_once(tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    secret = secrets / "targets__prod__credentials__secret_key"
    secret.write_text("x" * 40)
    options = SimulatorOptions(
        jobs=3, tasks=2, speed=0, credentials={ACCESS_KEY: SECRET_KEY}
    )
    async with simulate(options) as sim:
        half = {"kind": "static", "access_key": ACCESS_KEY}
        prod = target(sim.url, sim.job_ids, credentials=half)
        values = {"targets": {"prod": prod}, "poll": POLL}
        environ = {"WATCHER_SECRETS_DIR": str(secrets)}
        async with running(tmp_path, values, environ=environ) as daemon:
            await daemon.started()
            await daemon.until(lambda: daemon.events("credentials.locked"))
            assert (await daemon.metrics())[LOCKED] == 1
            await anyio.sleep(3)
            assert sim.requests.total == 3
            secret.write_text(SECRET_KEY)
            await daemon.until(lambda: len(daemon.events("job.first_seen")) == 3, 8)
            assert daemon.events("poll.recovered")
            assert (await daemon.metrics())[LOCKED] == 0
    assert SECRET_KEY not in daemon.output


LOCKED = ("watcher_credentials_locked", ("target", "prod"))


async def test_a_swapped_config_map_is_noticed(tmp_path):
    """Kubernetes swaps a link to a folder, through which every file is reached."""
    mount = tmp_path / "mount"
    mount.mkdir()
    async with simulate(SimulatorOptions(jobs=3, tasks=2, speed=0)) as sim:
        first, second, third = sim.job_ids

        def swap(number, interval, *job_ids):
            folder = mount / f"..{number}"
            folder.mkdir()
            files = [str(mount / "jobs.txt")]
            prod = target(sim.url, [first], credentials=FREE, job_files=files)
            values = {"targets": {"prod": prod}, "poll": POLL | {"interval": interval}}
            values["server"] = {"listen": "127.0.0.1:0"}
            (folder / "watcher.yaml").write_text(yaml.safe_dump(values))
            (folder / "jobs.txt").write_text("\n".join(job_ids))
            (mount / "..data_tmp").symlink_to(folder.name)
            (mount / "..data_tmp").rename(mount / "..data")

        swap(1, "250ms")
        for name in ("watcher.yaml", "jobs.txt"):
            (mount / name).symlink_to(Path("..data") / name)
        config = ("--config", str(mount / "watcher.yaml"))
        async with running(tmp_path, {}, *config) as daemon:
            await daemon.started()
            await daemon.until(lambda: daemon.events("job.first_seen"))
            for number, job_id in ((2, second), (3, third)):
                swap(number, f"{number}00ms", job_id)
                await daemon.until(
                    lambda n=number: len(daemon.events("config.reloaded")) == n - 1,
                    NOTICED_WITHIN,
                )
                await daemon.until(
                    lambda j=job_id: daemon.events("job.first_seen")[-1]["job_id"] == j,
                    NOTICED_WITHIN,
                )
            _, text = await daemon.get("/metrics")
            assert second not in text


async def test_a_target_that_comes_back_is_watched_as_if_new(tmp_path):
    """What is told of it then has other ids, so that nothing is taken for known."""
    async with simulate(SimulatorOptions(jobs=2, tasks=1, speed=0)) as sim:
        sim.clock.set(advance=0.1)  # by then the last job has its task
        both = {
            name: target(sim.url, [job_id], credentials=FREE)
            for name, job_id in zip(("prod", "second"), sim.job_ids, strict=True)
        }
        one = {"prod": both["prod"]}
        again = sim.job_ids[1]
        (task,) = sim.jobs.tasks(again)
        file = tmp_path / "watcher.yaml"

        async def put(daemon, targets):
            file.write_text(yaml.safe_dump({"targets": targets, "poll": POLL}))
            count = len(daemon.events("config.reloaded"))
            daemon.process.send_signal(signal.SIGHUP)
            await daemon.until(lambda: len(daemon.events("config.reloaded")) > count)

        async with running(tmp_path, {"targets": both, "poll": POLL}) as daemon:
            await daemon.started()
            for round_ in (1, 2):
                await daemon.until(
                    lambda n=round_: len(daemon.events("job.first_seen")) == n + 1
                )
                sim.jobs.patch(again, task.id, "FAILED")
                sim.jobs.say(again, "FINISHED")
                await daemon.until(
                    lambda n=round_: len(daemon.events("job.finished")) == n
                )
                await put(daemon, one)
                assert again not in (await daemon.get("/metrics"))[1]
                sim.jobs.patch(again, task.id, "PROCESSING")
                sim.jobs.say(again, "PROCESSING")
                await put(daemon, both)
            ids = [line["event_id"] for line in daemon.lines if "event_id" in line]
            assert len(ids) == len(set(ids))
            transitions = daemon.events("task.transition")
            assert [(x["from"], x["to"]) for x in transitions] == [
                ("PROCESSING", "FAILED")
            ] * 2
