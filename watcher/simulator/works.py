"""The kinds of work that simulated jobs do: words, durations and messages.

LOG_COLLECT, ASCEND_SOFTWARE_QUERY and ASCEND_SYSTEM_CONFIG are words of the API; the
upgrade's is a guess, as the API's list of types is open.
"""

from __future__ import annotations

from dataclasses import dataclass

from watcher.simulator.timeline import Item


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of work.

    Attributes:
        shortest: Scenario seconds that a job of this kind takes at least.
        longest: Scenario seconds that it takes at most.
        result: Message of a task that succeeded; `{software}` and `{server}` are
            filled in.
        failures: Messages of tasks that failed.
        progress: Messages of a task that is still going on, in their order.
    """

    type: str
    name: str
    description: str
    items: tuple[Item, ...]
    shortest: float
    longest: float
    result: str
    failures: tuple[str, ...]
    progress: tuple[str, ...] = ()


QUERY = Work(
    type="ASCEND_SOFTWARE_QUERY",
    name="software-query",
    description="Query Huawei Cloud AI software.",
    items=(Item("HDK_QUERY", {}),),
    shortest=2.0,
    longest=40.0,
    result="{software}",
    failures=(
        "dcmi model initialized failed, because the device is used. ret is -8020",
        "The agent on {server} did not answer within 60 seconds.",
        "npu-smi: command not found",
    ),
)
LOG_COLLECT = Work(
    type="LOG_COLLECT",
    name="log-collect",
    description="Collect NPU logs.",
    items=(Item("DEVICE_LOG_COLLECT", {"log_type": "device,host"}),),
    shortest=20.0,
    longest=120.0,
    result="npu-log-{server}.tar.gz uploaded.",
    failures=(
        "No space left on device: /var/log/npu",
        "Upload failed: the bucket does not exist or access to it is denied.",
    ),
)
SYSTEM_CONFIG = Work(
    type="ASCEND_SYSTEM_CONFIG",
    name="system-config",
    description="Configure the system for Ascend workloads.",
    items=(Item("COMMON", {"hugepages": "on"}),),
    shortest=10.0,
    longest=90.0,
    result="Configured.",
    failures=("sysctl: cannot stat /proc/sys/vm/nr_hugepages: permission denied",),
)
UPGRADE = Work(
    type="ASCEND_SOFTWARE_UPGRADE",
    name="driver-upgrade",
    description="Upgrade the Ascend driver and firmware.",
    items=(Item("HDK_UPGRADE", {"driver": "24.1.0.3", "firmware": "7.5.0.5.220"}),),
    shortest=120.0,
    longest=300.0,
    result="Driver: 24.1.0.3 | Firmware: 7.5.0.5.220",
    failures=(
        "Firmware upgrade failed: device 3 is busy. Stop all NPU processes first.",
        "The server did not come back after its restart.",
    ),
    progress=(
        "Installing the driver.",
        "Installing the firmware.",
        "Restarting the server.",
    ),
)

ROTATION = (
    QUERY,
    QUERY,
    LOG_COLLECT,
    QUERY,
    UPGRADE,
    QUERY,
    SYSTEM_CONFIG,
    QUERY,
    QUERY,
    QUERY,
)
"""The kinds of the scenario's jobs, in turn."""


def work_of(type_word: str) -> Work:
    """Return the kind of work that a type word stands for; a query where unknown."""
    return next((work for work in ROTATION if work.type == type_word), QUERY)
