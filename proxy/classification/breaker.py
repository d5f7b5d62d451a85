"""Stops asking a model that fails, and finds out when it works again.

                      too many failures, or slow calls
    CLOSED ──────────────────────────────────────────→ OPEN
      ↑                                                │  ↑
      │                          reset_timeout is over │  │ the probe fails: twice as long, up to LONGEST_RESET
      │       the probe answers                        ↓  │
      └─────────────────────────────────────────── HALF_OPEN

While it is half open one call is let through, the probe. An outcome counts only in the era, between two changes of
state, in which its call was admitted: what was asked before the breaker opened says nothing about the time after.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

LONGEST_RESET: Final = timedelta(minutes=5)
"""Between probes, unless `reset_timeout` itself is longer: an outage of hours costs 12 calls an hour."""


class BreakerState(StrEnum):
    """See the module for the way from one to the other."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"

    @property
    def number(self) -> int:
        """As a metric: 0 closed, 1 half open, 2 open."""
        return list(BreakerState).index(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too much."""

    max_failures: int
    """In a row."""
    failure_rate: int
    """Share of the window, in percent."""
    slow_rate: int
    """As above, of calls that took longer than `slow_call`, whether they failed or not."""
    slow_call: timedelta | None
    """None: no call is slow."""
    min_calls: int
    """Before there are so many in the window, shares mean nothing. The window is twice as long."""
    reset_timeout: timedelta
    """Until the first probe."""


class CircuitBreaker:
    """Admits calls, one by one, by how those before went. Synchronous, for one thread."""

    def __init__(
        self,
        limits: Limits | None,
        *,
        on_change: Callable[[BreakerState, BreakerState], None] = lambda _was, _now: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `limits` it never opens. `on_change` hears the former and the new state."""
        self._limits = limits
        self._on_change = on_change
        self._monotonic = monotonic
        self._state = BreakerState.CLOSED
        self._why = ""
        self._era = 0
        self._probing = False
        self._pause = timedelta()
        self._until = 0.0
        # Long enough for `max_failures` too: a window full of failures is above every share.
        self._window: deque[_Outcome] = deque(maxlen=2 * limits.min_calls if limits is not None else 0)

    @property
    def state(self) -> BreakerState:
        """HALF_OPEN from the moment the next call would be the probe."""
        if self._state is BreakerState.OPEN and self._monotonic() >= self._until:
            return BreakerState.HALF_OPEN
        return self._state

    @property
    def ready(self) -> bool:
        """Whether `admit` would let a call through now."""
        return self.state is not BreakerState.OPEN and not self._probing

    @property
    def why(self) -> str:
        """What opened it, for the operator; empty while it is closed."""
        return self._why

    @property
    def pause(self) -> timedelta:
        """How long the last opening lasts."""
        return self._pause

    def admit(self) -> Permit | None:
        """Return leave for one call, or None. Whoever gets one says how the call went, or abandons it."""
        if not self.ready:
            return None
        if self._state is BreakerState.OPEN:
            self._enter(BreakerState.HALF_OPEN)
        # Half open, this caller is the only probe.
        self._probing = self._state is BreakerState.HALF_OPEN
        return Permit(self, self._era)

    def reset(self) -> None:
        """Close it and forget everything: what failed has been replaced."""
        self._close()

    def _given_back(self, era: int) -> None:
        if era == self._era:
            self._probing = False

    def _landed(self, era: int, outcome: _Outcome) -> None:
        limits = self._limits
        if limits is None or era != self._era:
            return
        slow = limits.slow_call is not None and outcome.seconds > limits.slow_call.total_seconds()
        if self._state is BreakerState.HALF_OPEN:
            if outcome.failed or slow:
                longest = max(LONGEST_RESET, limits.reset_timeout)
                self._open(self._why, min(2 * self._pause, longest))
            else:
                self._close()
            return
        if outcome.subject and any(outcome.subject == one.subject for one in self._window):
            return
        self._window.append(outcome)
        if why := self._too_much(limits):
            self._open(why, limits.reset_timeout)

    def _too_much(self, limits: Limits) -> str:
        """Return what is wrong with the calls of the window; empty when nothing is."""
        calls = list(self._window)
        if len(calls) >= limits.max_failures and all(one.failed for one in calls[-limits.max_failures :]):
            return f"failures in a row: {limits.max_failures}"
        if len(calls) < limits.min_calls:
            return ""
        failed = sum(one.failed for one in calls)
        if 100 * failed >= limits.failure_rate * len(calls):
            return f"failed: {failed} of {len(calls)} calls"
        if limits.slow_call is not None:
            slow = sum(one.seconds > limits.slow_call.total_seconds() for one in calls)
            if 100 * slow >= limits.slow_rate * len(calls):
                return f"slow: {slow} of {len(calls)} calls"
        return ""

    def _open(self, why: str, pause: timedelta) -> None:
        self._why, self._pause = why, pause
        self._until = self._monotonic() + pause.total_seconds()
        self._enter(BreakerState.OPEN)

    def _close(self) -> None:
        self._why = ""
        self._enter(BreakerState.CLOSED)

    def _enter(self, state: BreakerState) -> None:
        was, self._state = self._state, state
        self._era += 1
        self._probing = False
        self._window.clear()
        if state is not was:
            self._on_change(was, state)


class Permit:
    """Leave for one call. The first of the three to be called counts, and only that."""

    __slots__ = ("_breaker", "_era", "_used")

    def __init__(self, breaker: CircuitBreaker, era: int) -> None:
        self._breaker = breaker
        self._era = era
        self._used = False

    def succeeded(self, seconds: float) -> None:
        """The call ended with an answer after `seconds`."""
        if self._first():
            self._breaker._landed(self._era, _Outcome(False, seconds))

    def failed(self, seconds: float, subject: str = "") -> None:
        """The call failed after `seconds`.

        A failure that may be due to what was asked about names it as `subject`. The same subject counts once in the
        window: a provider that refuses one alert over and over works, one that refuses many does not. A probe that
        fails is a failure whatever it was about.
        """
        if self._first():
            self._breaker._landed(self._era, _Outcome(True, seconds, subject))

    def abandoned(self) -> None:
        """Nothing is known about the call, and nothing will be: it was cancelled. A probe is given back."""
        if self._first():
            self._breaker._given_back(self._era)

    def _first(self) -> bool:
        first, self._used = not self._used, True
        return first


@dataclass(frozen=True, slots=True)
class _Outcome:
    failed: bool
    seconds: float
    subject: str = ""
