"""`memory:`: decisions end with the process. What Alertmanager holds is recovered at the next start."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from proxy.alert import Identity
from proxy.decisions.store import Beat, Change, Kept
from proxy.decisions.stores.claims import SLICE, settle


class MemoryStore:
    """A DecisionStore for one proxy alone."""

    kind: ClassVar[str] = "memory"
    shared: ClassVar[bool] = False

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._kept: dict[Identity, tuple[Kept, float]] = {}
        """Each with the moment on the monotonic clock when it ends."""
        self._generation = secrets.token_hex(8)
        self._state: str | None = None

    async def load(self) -> AsyncIterator[Sequence[Kept]]:
        identities = list(self._kept)
        for n in range(0, len(identities), SLICE):
            yield list((await self.get(identities[n : n + SLICE])).values())

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Kept]:
        now = self._monotonic()
        return {i: kept for i in identities if (kept := self._held(i, now))}

    async def claim(self, new: Sequence[Kept], *, patient: bool = False) -> Mapping[Identity, Kept]:
        now = self._monotonic()
        held = {}
        for kept in new:
            identity = kept.decision.identity
            holds = held[identity] = settle(self._held(identity, now), kept, shared=self.shared)
            self._kept[identity] = holds, now + holds.left
        return held

    async def forget(self, identities: Collection[Identity]) -> None:
        for i in identities:
            self._kept.pop(i, None)

    async def beat(self, name: str, me: str) -> Beat:
        now = self._monotonic()
        for i in [i for i, (_, until) in self._kept.items() if until <= now]:
            del self._kept[i]
        return Beat({"": self._generation}, self._state, {name: me})

    async def write_state(self, state: str) -> None:
        self._state = state

    async def changes(self) -> AsyncGenerator[Change, None]:
        await asyncio.Event().wait()  # there is nobody else
        yield Change()

    def _held(self, identity: Identity, now: float) -> Kept | None:
        kept, until = self._kept.get(identity, (None, 0.0))
        return replace(kept, left=until - now) if kept and until > now else None
