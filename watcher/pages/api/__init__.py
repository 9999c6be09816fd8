"""`/api/v1` and `/-/reload`: what is known as JSON, and what may be changed.

`views` says what a record looks like, `jobs` and `events` show, `actions` change.
"""

from watcher.pages.api.actions import AddJob, Reload, RemoveJob
from watcher.pages.api.config import ShowConfig
from watcher.pages.api.events import EventsPage
from watcher.pages.api.jobs import JobPage, JobsPage

__all__ = [
    "AddJob",
    "EventsPage",
    "JobPage",
    "JobsPage",
    "Reload",
    "RemoveJob",
    "ShowConfig",
]
