"""Calls that cannot be interrupted, such as a look-up of a name, hold up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import ParamSpec, TypeVar

import anyio

_Result = TypeVar("_Result")
_Given = ParamSpec("_Given")


class DaemonThreads(ThreadPoolExecutor):
    """Runs each call in a thread of its own, which the end of the process ends.

    An event loop and the interpreter wait for the threads of the ordinary executor, so
    that one name server that does not answer would hold the process up for minutes.
    """

    def submit(
        self,
        call: Callable[_Given, _Result],
        /,
        *args: _Given.args,
        **kwargs: _Given.kwargs,
    ) -> Future[_Result]:
        """Start a call."""
        done: Future[_Result] = Future()

        def work() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(call(*args, **kwargs))
            except BaseException as exc:  # noqa: BLE001 - handed to who waits for it
                done.set_exception(exc)

        Thread(target=work, name="doctor", daemon=True).start()
        return done


async def call(function: Callable[[], _Result], seconds: float) -> _Result:
    """Return what a function returns, in the executor of the running loop.

    Raises:
        TimeoutError: It takes longer, and was left to itself.
    """
    with anyio.fail_after(seconds):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, function)
