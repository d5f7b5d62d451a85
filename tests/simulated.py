"""Time in the test's hands: clocks that are set, and an event loop that skips what would be waited for."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Time:
    """A monotonic clock and a wall clock that go together unless one is set."""

    def __init__(self) -> None:
        self.monotonic = 1000.0
        self.now = NOW

    def passes(self, **by: float) -> None:
        self.monotonic += timedelta(**by).total_seconds()
        self.now += timedelta(**by)


class TimeOfTheLoop:
    """The clocks of whoever lives in the running loop, which begin with it at NOW."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun = self.loop.time()

    def at(self) -> float:
        """Seconds since the beginning."""
        return self.loop.time() - self.begun

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.at())


class _Skip(selectors.SelectSelector):
    time = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen any more")
        self.time += max(timeout, 0)
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """A loop without sockets whose clock jumps to the next thing to do."""

    def __init__(self) -> None:
        self._skip = _Skip()
        super().__init__(self._skip)

    def time(self) -> float:
        return self._skip.time


def run_simulated(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        runner.run(scenario)


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in simulated time."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_simulated(test(*args, **kwargs))

    return run
