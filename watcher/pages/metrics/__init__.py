"""`/metrics`: `families` says what a record looks like, `page` keeps and joins it."""

from watcher.pages.metrics.page import MetricsPage

__all__ = ["MetricsPage"]
