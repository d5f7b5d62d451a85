"""What models said of classes of alerts before: in memory, and behind it in a store that outlives the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Final

from cachetools import TLRUCache, TTLCache

from proxy.classification.classes import ClassKey
from proxy.classification.classification import Classification, Source
from proxy.classification.turns import LEASE, Turns
from proxy.classification.verdicts import Cached, VerdictStore

CLASSES: Final = 10_000
"""Verdicts in memory; thousands of alerts share one."""
FAILED: Final = 30.0
"""Seconds in which a class is not asked about again after its call failed: a storm would ask for each of its POSTs."""
SECOND_BEST: Final = 900.0
"""Seconds for which the verdict of a model that stood in for the first one is used."""


class ClassCache:
    """Two tiers. Neither ever raises: what cannot be read is not there.

    `ttl` and `lease` in seconds. Who is given the `turn` to ask says what came of it: `keep`, `keep_failure` or
    `give_up`.
    """

    def __init__(
        self,
        ttl: float,
        *,
        store: VerdictStore | None = None,
        lease: float = LEASE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl = ttl
        self._turns = Turns(store, lease=lease, monotonic=monotonic) if store is not None else None
        self._memory: TLRUCache[ClassKey, tuple[Classification, float]] = TLRUCache(
            CLASSES, ttu=lambda _, kept, now: now + kept[1], timer=monotonic
        )
        self._failed: TTLCache[ClassKey, str] = TTLCache(CLASSES, FAILED, timer=monotonic)

    @property
    def is_stored(self) -> bool:
        """Whether there is a second tier, which `find` asks."""
        return self._turns is not None

    def known(self, key: ClassKey) -> Classification | None:
        """Return what is in memory, with the source `cache`."""
        kept = self._memory.get(key)
        return kept[0] if kept else None

    def failed(self, key: ClassKey) -> str:
        """Return why a call about this class failed a moment ago; empty when none did."""
        return self._failed.get(key, "")

    async def find(self, keys: Collection[ClassKey]) -> None:
        """Take into memory what the store holds of `keys`."""
        if self._turns is not None:
            for key, cached in (await self._turns.find(keys)).items():
                self._take_in(key, cached)

    def leave_alone(self) -> None:
        """Do not ask the store for a while: somebody has waited too long."""
        if self._turns is not None:
            self._turns.leave_alone()

    async def turn(self, key: ClassKey) -> Classification | None:
        """Return what another proxy of the same store finds out meanwhile; None when it is this one's turn to ask.

        One at a time may wait for a class.
        """
        if self._turns is None or (cached := await self._turns.take(key)) is None:
            return None
        return self._take_in(key, cached)

    def keep(self, key: ClassKey, verdict: Classification, *, first_choice: bool = True) -> None:
        """Remember a verdict that a model gave; for a moment only if it is labels without a text, and not for long if
        the model is not the `first_choice`.

        The store is told aside: nobody waits for it.
        """
        self._failed.pop(key, None)
        left = (self._ttl if first_choice else min(self._ttl, SECOND_BEST)) if verdict.summary else FAILED
        self._remember(key, Cached(verdict, left))
        self._tell(key, Cached(verdict, left) if verdict.summary else None)

    def keep_failure(self, key: ClassKey, reason: str) -> None:
        """Remember for a moment that there is no verdict, and why."""
        self._failed[key] = reason
        self._tell(key, None)

    def give_up(self, key: ClassKey) -> None:
        """Let another proxy ask: this one does not any more."""
        self._tell(key, None)

    async def close(self) -> None:
        """Give back what is held, and wait for what the store is still being told."""
        if self._turns is not None:
            await self._turns.close()

    def _tell(self, key: ClassKey, verdict: Cached | None) -> None:
        if self._turns is not None:
            self._turns.tell(key, verdict)

    def _take_in(self, key: ClassKey, cached: Cached) -> Classification:
        return self._remember(key, replace(cached, left=min(cached.left, self._ttl)))

    def _remember(self, key: ClassKey, cached: Cached) -> Classification:
        verdict = replace(cached.classification, source=Source.CACHE)  # once, and not for each alert
        self._memory[key] = verdict, cached.left
        return verdict
