"""An event loop without a machine: time is a number, and chance says who runs next.

What is ready at one moment runs in an order that is drawn; time goes on only when nothing
is ready. What a program does in a thread is done in one piece, after a delay that is drawn
too. A *life* is whatever was begun within its context: once it has ended, nothing of it
ever runs again, as after SIGKILL.
"""

import asyncio
import heapq
import itertools
from contextlib import contextmanager
from contextvars import ContextVar

import anyio.to_thread

LIFE = ContextVar("life", default=None)
MOST_STEPS = 100_000
"""Without time going on: more is a loop that spins."""


class Stuck(Exception):  # noqa: N818 - as it reads where it is raised
    """Nothing is ready and nothing ever will be, or it spins."""


class Ended(BaseException):
    """Raised where a life ends in the middle of a piece of work."""


class Life:
    """What can be ended, or held up, at any step.

    Attributes:
        end_at: The step after which it ends; None: none.
        on_end: Called then.
        tasks: All of its tasks, so that nothing of an ended one is ever cleaned up.
    """

    def __init__(self, number, on_end):
        self.number = number
        self.on_end = on_end
        self.ended = False
        self.steps = 0
        self.end_at = None
        self.paused_until = 0.0
        self.tasks = []
        self.left = []

    def end(self):
        if not self.ended:
            self.ended = True
            self.on_end(self)

    @property
    def open_tasks(self):
        return [task for task in self.tasks if not task.done()]


class _Task(asyncio.Task):
    """A task whose place in a set, and in a queue, is the same in each process."""

    def __init__(self, number, coro, **options):
        self.number = number
        super().__init__(coro, **options)

    def __hash__(self):
        return self.number


class WorldLoop(asyncio.BaseEventLoop):
    """Runs on virtual time; every draw comes from one generator.

    Attributes:
        now: Seconds that each monotonic clock shows.
        delays: Returns how long a piece of work takes, given whose it is.
        errors: What nobody caught.
    """

    def __init__(self, draw):
        super().__init__()
        self.draw = draw
        self.now = 0.0
        self.errors = []
        self.delays = lambda _: 0.0
        self._numbers = itertools.count()
        self._busy = {}
        self._still = 0
        self.set_task_factory(self._new_task)
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self):
        return self.now

    def _new_task(self, loop, coro, **options):
        task = _Task(next(self._numbers), coro, loop=loop, **options)
        if life := LIFE.get():
            life.tasks.append(task)
        return task

    def _write_to_self(self):
        """There is nobody to wake: it never sleeps."""

    def _run_once(self):
        for handle in self._batch():
            if handle._cancelled:
                continue
            life = handle._context.get(LIFE)
            if life is None:
                handle._run()
            elif life.ended:
                life.left.append(handle)
            elif life.paused_until > self.now:
                self.call_at(life.paused_until, self._ready.append, handle)
            else:
                life.steps += 1
                handle._run()
                if life.end_at is not None and life.steps >= life.end_at:
                    life.end()

    def _batch(self):
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        self._still += 1
        if not ready:
            if not scheduled:
                raise Stuck("nothing will ever happen any more")
            if scheduled[0]._when > self.now:
                self.now, self._still = scheduled[0]._when, 0
        elif self._still > MOST_STEPS:
            raise Stuck(f"spins at {self.now}")
        while scheduled and scheduled[0]._when <= self.now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        batch = list(ready)
        ready.clear()
        if len(batch) > 1:
            # First an order that no address in memory has a part in, then any.
            batch.sort(key=_number)
            self.draw.shuffle(batch)
        return batch

    def run_in_executor(self, executor, func, *args):
        """Do a piece of work whole; those of one executor one after the other."""
        answer = self.create_future()
        at = self.now + self.delays(executor)
        if executor is not None:
            at = max(at, self._busy.get(executor, 0.0) + 1e-6)
            self._busy[executor] = at
        self.call_at(at, self._work, answer, func, args)
        return answer

    def _work(self, answer, func, args):
        try:
            result, error = func(*args), None
        except Ended:
            return
        except Exception as exc:
            result, error = None, exc
        if answer.cancelled():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)
            answer.exception()  # who asked may be gone

    def close(self):
        self._scheduled.clear()
        self._ready.clear()
        super().close()


def _number(handle):
    return getattr(getattr(handle._callback, "__self__", None), "number", -1)


async def _run_sync(func, *args, abandon_on_cancel=False, **_):
    with anyio.CancelScope(shield=not abandon_on_cancel):
        return await asyncio.get_running_loop().run_in_executor(None, func, *args)


@contextmanager
def no_threads():
    """Let no thread be started: what was for one is a step of the loop."""
    before, anyio.to_thread.run_sync = anyio.to_thread.run_sync, _run_sync
    try:
        yield
    finally:
        anyio.to_thread.run_sync = before
