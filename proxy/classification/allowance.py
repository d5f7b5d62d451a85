"""How long POSTs may wait for models, taken together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

REFILL: Final = 0.1
"""Seconds of waiting that become available per second."""


class WaitingAllowance:
    """Seconds of waiting that the whole process may spend; refills slowly.

    A wait that is short for one POST is ruinous for a stream of them: with 3 s on each, a real Prometheus dropped
    16,800 of 20,000 alerts, because it sends one batch at a time. So the first POSTs of a storm may wait, and when
    what they used up has not been refilled, the next ones go on at once.
    """

    def __init__(self, capacity: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._monotonic = monotonic
        self._left = capacity
        self._at = monotonic()

    def take(self, wanted: float) -> float:
        """Take up to `wanted` seconds out and return how many there were."""
        now = self._monotonic()
        self._left = min(self._capacity, self._left + (now - self._at) * REFILL)
        self._at = now
        granted = max(0.0, min(wanted, self._left))
        self._left -= granted
        return granted

    def give_back(self, unused: float) -> None:
        """Return what was taken and not needed."""
        self._left = min(self._capacity, self._left + max(0.0, unused))
