"""Joins the rooms that watch: the same for the daemon and for `watcher wait`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from watcher.core.model import JobKey
from watcher.daemon.fleet import Fleet, OpenDoor
from watcher.daemon.holding import Holding
from watcher.daemon.watch_list import WatchList
from watcher.polling.board import Board
from watcher.polling.committer import Committer
from watcher.polling.poller import Poller
from watcher.ports import ALWAYS_HELD, Observer, Store


@dataclass(frozen=True, slots=True)
class Watching:
    """What watches: asks, concludes, commits and shows."""

    fleet: Fleet
    committer: Committer
    poller: Poller
    watch_list: WatchList


def join(  # noqa: PLR0913 - one for each thing that a room is handed
    board: Board,
    store: Store,
    open_door: OpenDoor,
    observer: Observer,
    *,
    wall: Callable[[], float],
    chance: Callable[[], float] = random.random,
    served: Callable[[JobKey], bool] = lambda _: False,
    turned: Callable[[float], None] = lambda _: None,
    fault_point: Callable[[str], None] = lambda _: None,
    holding: Holding | None = None,
) -> Watching:
    """Make what watches, each part handed what it needs; nothing is asked yet.

    Args:
        board: Where the jobs are shown.
        store: Where they are kept, and what is told of them.
        open_door: Opens the API of a target.
        observer: Told how the work goes.
        wall: Wall clock, Unix seconds.
        chance: Draws a number in [0, 1).
        served: Whether somebody was shown a job's final state.
        turned: Called at each turn of the poller's loop.
        fault_point: Called with the name of each step of a commit.
        holding: What is this replica's own; None: everything.
    """
    fleet = Fleet(open_door, holding.until) if holding else Fleet(open_door)
    committer = Committer(
        board,
        store,
        observer,
        wall=wall,
        fence=holding.fence if holding else lambda: ALWAYS_HELD,
        lost=holding.lose if holding else lambda _: None,
        fault_point=fault_point,
    )
    poller = Poller(
        fleet.targets, board, committer, observer, chance=chance, turned=turned
    )
    watch_list = WatchList(
        fleet.targets,
        board,
        committer,
        store,
        store.known,
        wake=poller.wake,
        served=served,
        wall=wall,
        configured=(lambda: fleet.settings) if holding else None,
    )
    return Watching(fleet, committer, poller, watch_list)
