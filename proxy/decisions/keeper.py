"""Keeps the store up to date with the hot copy, aside from the alert's way, and goes by what the store holds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from proxy.decisions.living import Living
from proxy.decisions.reach import Reach
from proxy.decisions.store import DecisionStore, Kept
from proxy.errors import StoreError

log = structlog.get_logger(__name__)

SLICE: Final = 256
GATHER: Final = 0.05
"""Seconds in which what comes together is written together."""
SWEEP: Final = 60.0
AWAY: Final = 0.5
"""Seconds between looks at whether the store is back."""


class Keeper:
    """Writes what was decided here, in slices, and again after the store has lost it.

    Where a shared store holds another decision than this proxy went by, that one's claim came first: the alert is
    handed over to it, so that all proxies agree again.
    """

    def __init__(
        self,
        living: Living,
        store: DecisionStore,
        reach: Reach,
        *,
        on_handover: Callable[[int], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._living = living
        self._store = store
        self._reach = reach
        self._on_handover = on_handover
        self._monotonic = monotonic
        self._unkept = asyncio.Event()
        self._loading = asyncio.Lock()
        self._loaded = False
        living.on_unkept = self._unkept.set

    async def run(self) -> None:
        """Keep and sweep; the owner cancels it, and calls `finish`."""
        swept = self._monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, swept + SWEEP - self._monotonic())):
                    await self._unkept.wait()
                    await asyncio.sleep(GATHER)
            try:
                if self._reach.up:
                    await self.load()
                await self._write()
                if self._monotonic() >= swept + SWEEP:
                    swept = self._monotonic()
                    for _ in self._living.sweep(SLICE):
                        await asyncio.sleep(0)
            except Exception:
                log.exception("a bug: keeping decisions failed")
            if self._living.unkept or not self._loaded:
                await asyncio.sleep(AWAY)
                self._unkept.set()

    async def load(self) -> None:
        """Take up what the store remembers, once. A store that is away is asked again later."""
        async with self._loading:
            if self._loaded:
                return
            try:
                async for some in self._store.load():
                    for kept in some:
                        self._living.load(kept)
                    await asyncio.sleep(0)
                self._loaded = True
            except StoreError as exc:
                self._reach.lost(exc)

    async def finish(self, at_most: float) -> None:
        """Write what is left, for `at_most` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                await self._write()

    async def _write(self) -> None:
        # Not before it was loaded: what is decided without knowing of it must not take its place.
        while self._loaded and self._reach.up and (taken := self._living.take_unkept(SLICE)):
            try:
                await self.claim(taken)
            except StoreError as exc:
                self._living.not_kept(taken)
                self._reach.lost(exc)
            except asyncio.CancelledError:
                self._living.not_kept(taken)
                raise
            except Exception:
                log.exception("a bug: a slice of decisions is kept one by one")
                await self._one_by_one(taken)
            await asyncio.sleep(0)  # a store in memory suspends nowhere
        self._unkept.clear()

    async def _one_by_one(self, taken: Sequence[Kept]) -> None:
        """Keep what can be kept. What cannot stays in memory alone, and holds nothing up."""
        for kept in taken:
            try:
                await self.claim([kept])
            except StoreError as exc:
                self._living.not_kept([kept])
                self._reach.lost(exc)
            except Exception:
                log.exception("a bug: a decision is not kept", identity=kept.decision.identity.hex())

    async def claim(self, mine: Sequence[Kept]) -> None:
        """Have the store keep `mine`, and go by what it holds in their place. Raises StoreError."""
        held = await self._store.claim(mine, patient=True)
        if not self._store.shared:
            # Nobody else writes there: what is left in it of another life yields.
            yielding = [
                replace(kept, replaces=held[kept.decision.identity].life)
                for kept in mine
                if held[kept.decision.identity].decision.labels != kept.decision.labels
            ]
            held = {**held, **(await self._store.claim(yielding, patient=True) if yielding else {})}
        handed_over = 0
        for kept in mine:
            winner = held[kept.decision.identity]
            if winner.decision.labels == kept.decision.labels:
                self._living.kept(kept, winner)
            else:
                self._living.hand_over(kept, winner)
                handed_over += 1
        if handed_over:
            self._on_handover(handed_over)
            log.warning(
                "alerts are handed over to the labels that another proxy claimed first: each pages once more",
                alerts=handed_over,
            )
