"""`/api/v1` and `/-/reload`: what is known as JSON, and what may be changed.

`views` says what a record looks like; `jobs`, `events`, `stream` and `watcher` show;
`actions` change.
"""

from watcher.pages.api.actions import AddJob, Reload, RemoveJob
from watcher.pages.api.config import ShowConfig
from watcher.pages.api.events import EventsPage
from watcher.pages.api.jobs import JobPage, JobsPage
from watcher.pages.api.rows import Rows
from watcher.pages.api.stream import StreamPage
from watcher.pages.api.watcher import WatcherPage

__all__ = [
    "AddJob",
    "EventsPage",
    "JobPage",
    "JobsPage",
    "Reload",
    "RemoveJob",
    "Rows",
    "ShowConfig",
    "StreamPage",
    "WatcherPage",
]
