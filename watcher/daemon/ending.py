"""When the daemon ends by itself, and what its exit code says."""

from __future__ import annotations

from collections.abc import Callable

from watcher.core.model import JobKey, Phase
from watcher.daemon.signals import Wishes
from watcher.polling.board import Board
from watcher.settings.schema import Finished


class Ending:
    """Decides whether all is done, where that is to end the daemon."""

    def __init__(
        self,
        board: Board,
        finished: Finished,
        wishes: Wishes,
        served: Callable[[JobKey], bool],
    ) -> None:
        """Decide by what a board shows.

        Args:
            board: The jobs.
            finished: What becomes of finished jobs.
            wishes: Where the end is asked for.
            served: Whether a scrape was sent what is known of a job.
        """
        self._served = served
        self._done_at: float | None = None
        self._board = board
        self._finished = finished
        self._wishes = wishes
        self._last: dict[JobKey, Phase] = {}
        self._done = False

    def change(self, finished: Finished) -> None:
        """Decide by other settings."""
        self._finished = finished

    def look(self, now: float, *, complete: bool, scraped: bool) -> None:
        """Take note of how jobs ended, and ask for the end once all have.

        Args:
            now: Monotonic seconds.
            complete: Whether all jobs that there are to watch are watched.
            scraped: Whether anybody scrapes: then the last state waits to be seen.
        """
        phases = self._board.phases
        over = [phase for phase in phases if phase.finished]
        # Of each job the last, as one that failed may leave before the others are over.
        self._last.update(self._board.phase_of)
        all_over = complete and over and len(over) == len(phases)
        if not self._finished.exit_when_done or not all_over:
            self._done_at = None
            return
        self._done_at = now if self._done_at is None else self._done_at
        if not scraped or self._is_seen or now - self._done_at >= self._finished.linger:
            self._done = True
            self._wishes.ask_for_end(self.exit_code)

    @property
    def _is_seen(self) -> bool:
        return all(map(self._served, self._board.records))

    @property
    def exit_code(self) -> int:
        """1 where all was done and a job did not succeed, else 0."""
        failed = (
            it.finished and it is not Phase.SUCCEEDED for it in self._last.values()
        )
        return int(self._done and any(failed))
