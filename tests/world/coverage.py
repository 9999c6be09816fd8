"""What a world can meet, so that what is never met can be named."""

from tests.world.script import ANSWERS, OPS, POINTS

ACTIONS = (
    "AddJob.200",
    "AddJob.201",
    "RemoveJob.204",
    "RemoveJob.404",
    "RemoveJob.409",
)
MOODS = ("taken", "500", "404", "410", "429", "hangs", "lost", "taken_and_lost")
LINES = (
    "clock.skewed",
    "clock.agreed",
    "config.reload_failed",
    "config.reloaded",
    "credentials.locked",
    "credentials.accepted",
    "job.finished_with_open_tasks",
    "job.unknown_status",
    "jobs.changed",
    "jobs.unreadable",
    "jobs.not_kept",
    "poll.failing",
    "poll.recovered",
    "poll.mode",
    "poll.trust",
    "sink.failing",
    "sink.recovered",
    "sink.undeliverable",
    "store.failing",
    "store.recovered",
)
TOLD = (
    "job.first_seen",
    "task.transition",
    "task.vanished",
    "job.transition",
    "job.abnormal_count",
    "job.reappeared",
    "job.finished",
)


def never_met(met):
    """Return what no world has met."""
    all_there_is = {
        *(f"op.{name}" for name in OPS),
        *(f"cloud.{answer.partition(':')[0]}" for answer in ANSWERS),
        *(f"kill.{name}" for name in POINTS),
        *(f"point.{name}" for name in POINTS),
        *(f"action.{name}" for name in ACTIONS),
        *(f"receiver.{name}" for name in MOODS),
        *(f"line.{name}" for name in LINES),
        *(f"told.{name}" for name in TOLD),
        "disk.full",
        "disk.hangs",
        "disk.slow",
        "disk.true",
        "stdout.broken",
        "net.lost",
        "power lost",
        "probe",
        "replayed",
        "life",
        "sent again",
    }
    return sorted(all_there_is - met.keys())
