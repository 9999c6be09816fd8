"""`/metrics`: `families` says how a record looks, `blocks` keep it, `page` joins it."""

from watcher.pages.metrics.page import MetricsPage

__all__ = ["MetricsPage"]
