"""A thread that does one thing after another, and that nobody has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThread(Executor):
    """An executor for `run_in_executor`, of one thread.

    ThreadPoolExecutor's threads are joined when the interpreter ends, so that work which hangs keeps the process alive.
    """

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do it after all that was submitted before."""
        future: Future[T] = Future()
        self._work.put(partial(_carry_out, future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Have the thread end after what was submitted. Nobody waits for that, and nothing is cancelled."""
        self._work.put(None)

    def _run(self) -> None:
        while work := self._work.get():
            work()
            del work  # what it holds may be large, and the next may be long in coming


def _carry_out(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as exc:  # noqa: BLE001 # whoever submitted it hears of it
        future.set_exception(exc)
    else:
        future.set_result(result)
