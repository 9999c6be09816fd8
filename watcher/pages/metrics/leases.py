"""The leases of this replica, for who scrapes it: only where replicas share a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from watcher.ports import LeaseState, Whose


class LeaseCollector(Collector):
    """Reads the state of the leases at every scrape."""

    def __init__(self, leases: LeaseState) -> None:
        """Show these."""
        self._leases = leases

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        held = GaugeMetricFamily(
            "watcher_lease_held",
            "Whether this replica watches a unit: an access key with its targets.",
            labels=["unit"],
        )
        states = GaugeMetricFamily(
            "watcher_leases", "Units by whose they are.", labels=["state"]
        )
        losses = CounterMetricFamily(
            "watcher_lease_losses", "Units that were lost, not given back."
        )
        units = self._leases.units
        counts = Counter(units.values())
        for unit, whose in units.items():
            held.add_metric([unit], whose is Whose.HELD)
        for state in Whose:
            states.add_metric([state], counts[state])
        losses.add_metric([], self._leases.losses)
        return [held, states, losses]
