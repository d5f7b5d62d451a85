"""Alerts that went bare because there is no room for their decisions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from proxy.alert import Identity


class Overflow:
    """Remembers a short hash of each, for `lifetime` to twice `lifetime` seconds after it was seen last."""

    def __init__(
        self,
        capacity: int,
        lifetime: float,
        monotonic: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._capacity = capacity
        self._lifetime = lifetime
        self._monotonic = monotonic
        self._now = now
        self._recent: set[int] = set()
        self._before: set[int] = set()
        self._long: set[int] = set()
        """Those whose endsAt is far away; remembered as long as the proxy runs."""
        self._turned = monotonic()
        self.lost_at: datetime | None = None
        """When one was last too many to be remembered. None: never."""

    def __len__(self) -> int:
        return len(self._recent) + len(self._before) + len(self._long)

    def add(self, identity: Identity, lasts: float = 0.0) -> None:
        """Remember an alert, for `lasts` seconds at least; over the capacity, only that there was one."""
        self._turn()
        if len(self) >= self._capacity:
            self.lost_at = self._now()
        elif lasts > 1.25 * self._lifetime:
            self._long.add(_short(identity))
        else:
            self._recent.add(_short(identity))

    def seen(self, identity: Identity) -> bool:
        """Return whether the alert, which has just arrived, went bare before."""
        if not len(self):
            return False
        self._turn()
        short = _short(identity)
        if short in self._before:
            self._before.discard(short)
            self._recent.add(short)
        return short in self._recent or short in self._long

    def _turn(self) -> None:
        for _ in range(2):
            if self._monotonic() < self._turned + self._lifetime:
                return
            self._before, self._recent = self._recent, set()
            self._turned += self._lifetime
        self._turned = self._monotonic()


def _short(identity: Identity) -> int:
    # Two of a million alerts share their 60 bits with a chance of one in two million; the second goes bare.
    return int.from_bytes(identity[:8], "big") >> 4
