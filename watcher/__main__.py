"""`python -m watcher` does what the `watcher` command does."""

import sys

from watcher.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
