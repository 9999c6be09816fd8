"""A folder of job files that somebody else may write into, and the daemon that reads it."""

import os
import signal

from tests.whole.daemon import ACCESS_KEY, SECRET_KEY, running, target
from watcher.simulator import SimulatorOptions, simulate


async def test_whoever_may_write_there_learns_no_secret_and_holds_nothing_up(tmp_path):
    options = SimulatorOptions(jobs=1, credentials={ACCESS_KEY: SECRET_KEY})
    folder, secrets = tmp_path / "jobs.d", tmp_path / "secrets"
    folder.mkdir()
    secrets.mkdir()
    secret = secrets / "targets__prod__credentials__secret_key"
    secret.write_text(f"{SECRET_KEY}\n")
    os.mkfifo(folder / "pipe.txt")
    (folder / "link.txt").symlink_to(secret)
    (folder / "copy.txt").write_text(f"{SECRET_KEY}\n")
    (folder / "zero.txt").symlink_to("/dev/zero")
    async with simulate(options) as sim:
        (folder / "good.txt").write_text(f"{sim.job_ids[0]}\nsk {SECRET_KEY}\n")
        prod = target(sim.url, [], job_files=[f"{folder}/*.txt"])
        del prod["credentials"]["secret_key"]
        values = {"targets": {"prod": prod}, "poll": {"interval": "200ms"}}
        environ = {"WATCHER_SECRETS_DIR": str(secrets)}
        async with running(tmp_path, values, environ=environ) as daemon:
            await daemon.started()
            await daemon.until(lambda: daemon.events("job.first_seen"))
            daemon.process.send_signal(signal.SIGHUP)
            await daemon.until(lambda: daemon.events("config.reloaded"))
            shown = [
                (await daemon.get(path))[1]
                for path in ("/metrics", "/api/v1/jobs", "/api/v1/events", "/")
            ]
            code, _ = await daemon.end()
        asked = {request.job_id for request in sim.requests}
    assert code == 0
    assert len(daemon.events("jobs.unreadable")) == 5
    assert asked == {sim.job_ids[0]}
    assert SECRET_KEY not in daemon.output + "".join(shown)
