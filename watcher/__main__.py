"""What `watcher` and `python -m watcher` do; nothing slow is imported before it begins."""

import signal
import sys

HEEDED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals that the daemon answers."""


def main() -> int:
    """Run the command that was typed and return its exit code."""
    if sys.argv[1:2] == ["run"]:
        # They wait until the daemon can answer them, which takes it a moment.
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
    from watcher.commands import cli  # noqa: PLC0415 - see above

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
