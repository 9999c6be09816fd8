"""The DevServer jobs API as a server: for demonstrations, tests, load and faults.

It imports nothing of the rest of the watcher, so that no error is shared with it.
"""

from __future__ import annotations

from watcher.simulator.clock import REAL_CLOCK, Clock
from watcher.simulator.faults import CALLS, KINDS, Fault, load_faults, parse_faults
from watcher.simulator.options import Dialect, SimulatorOptions
from watcher.simulator.requests import Request
from watcher.simulator.server import serve, simulate
from watcher.simulator.simulation import Simulator
from watcher.simulator.timeline import JobTruth, TrueTransition

__all__ = [
    "CALLS",
    "KINDS",
    "REAL_CLOCK",
    "Clock",
    "Dialect",
    "Fault",
    "JobTruth",
    "Request",
    "Simulator",
    "SimulatorOptions",
    "TrueTransition",
    "load_faults",
    "parse_faults",
    "serve",
    "simulate",
]
