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
        self._long: dict[int, float] = {}
        """Those whose endsAt is far away, and until when on the monotonic clock they are remembered at least."""
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
        else:
            self._remember(_short(identity), lasts)

    def seen(self, identity: Identity, lasts: float = 0.0) -> bool:
        """Return whether the alert, which has just arrived, went bare before; then remember it for `lasts` seconds."""
        if not len(self):
            return False
        self._turn()
        short = _short(identity)
        if not any(short in some for some in (self._recent, self._before, self._long)):
            return False
        self._remember(short, lasts)
        return True

    def _remember(self, short: int, lasts: float) -> None:
        self._before.discard(short)
        if lasts > 1.25 * self._lifetime or short in self._long:
            self._recent.discard(short)
            until = self._monotonic() + max(lasts, self._lifetime)
            self._long[short] = max(until, self._long.get(short, until))
        else:
            self._recent.add(short)

    def _turn(self) -> None:
        now = self._monotonic()
        if now < self._turned + self._lifetime:
            return
        self._long = {short: until for short, until in self._long.items() if until > now}
        for _ in range(2):
            if now < self._turned + self._lifetime:
                return
            self._before, self._recent = self._recent, set()
            self._turned += self._lifetime
        self._turned = now


def _short(identity: Identity) -> int:
    # Two of a million alerts share their 60 bits with a chance of one in two million; the second goes bare.
    return int.from_bytes(identity[:8], "big") >> 4
