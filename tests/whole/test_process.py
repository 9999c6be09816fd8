"""What the process leaves to others on its host."""

from pathlib import Path

from tests.whole.daemon import running, target
from watcher.simulator import SimulatorOptions, simulate


async def test_no_core_dump_holds_a_key(tmp_path):
    """Neither as a file, nor for a program that the kernel would hand it to."""
    async with simulate(SimulatorOptions(jobs=1)) as sim:
        values = {"targets": {"prod": target(sim.url, sim.job_ids)}}
        async with running(tmp_path, values) as daemon:
            await daemon.started()
            limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    (line,) = [each for each in limits.splitlines() if "core file" in each]
    assert {line.split()[4], line.split()[5]} <= {"0", "1"}
