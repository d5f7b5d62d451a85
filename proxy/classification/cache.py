"""What models said of classes of alerts before: in memory, and behind it in a store that outlives the process."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import structlog
from cachetools import TLRUCache, TTLCache

from proxy.classification.classes import ClassKey
from proxy.classification.classification import Classification, Source
from proxy.classification.verdicts import VerdictStore
from proxy.errors import StoreError

log = structlog.get_logger(__name__)

CLASSES: Final = 10_000
"""Verdicts in memory; thousands of alerts share one."""
FAILED: Final = 30.0
"""Seconds in which a class is not asked about again after its call failed: a storm would ask for each of its POSTs."""
AWAY: Final = 5.0
"""Seconds in which a store is not asked that has not answered. Nothing is lost but a call. What there is to tell it is
told all the same: nobody waits for that, and a store that is full may still be read."""
LEASE: Final = 15.0
"""Seconds after which others may ask about a class when the proxy that did so is gone. While it is there it renews its
lease: in a storm a call waits in line for longer than any lease should last."""
POLL: Final = 0.25
SLOWEST: Final = 2.0
"""Seconds between two looks at whether another proxy has its answer, in the beginning and after a while."""

_T = TypeVar("_T")


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
        self._store = store
        self._lease = lease
        self._monotonic = monotonic
        self._memory: TLRUCache[ClassKey, tuple[Classification, float]] = TLRUCache(
            CLASSES, ttu=lambda _, kept, now: now + kept[1], timer=monotonic
        )
        self._failed: TTLCache[ClassKey, str] = TTLCache(CLASSES, FAILED, timer=monotonic)
        self._away_until = 0.0
        self._holder = secrets.token_hex(8)
        self._turns: dict[ClassKey, asyncio.Future[Classification | None]] = {}
        """The leases that this proxy holds. Done when there is something to tell."""
        self._telling: dict[ClassKey, asyncio.Task[None]] = {}
        """What holds a lease, or tells the store. The last one of a class waits for those before."""

    @property
    def is_stored(self) -> bool:
        """Whether there is a second tier, which `find` asks."""
        return self._store is not None

    def known(self, key: ClassKey) -> Classification | None:
        """Return what is in memory, with the source `cache`."""
        kept = self._memory.get(key)
        return kept[0] if kept else None

    def failed(self, key: ClassKey) -> str:
        """Return why a call about this class failed a moment ago; empty when none did."""
        return self._failed.get(key, "")

    async def find(self, keys: Collection[ClassKey]) -> None:
        """Take into memory what the store holds of `keys`."""
        if self._store is None or self._is_away:
            return
        found = await self._asked(self._store.get(keys))
        for key, cached in (found or {}).items():
            self._remember(key, cached.classification, min(cached.left, self._ttl))

    def leave_alone(self) -> None:
        """Do not ask the store for a while: somebody has waited too long."""
        self._away_until = self._monotonic() + AWAY

    async def turn(self, key: ClassKey) -> Classification | None:
        """Return what another proxy of the same store finds out meanwhile; None when it is this one's turn to ask."""
        store = self._store
        if store is None or not store.shared:
            return None
        if (last := self._telling.get(key)) is not None:
            await asyncio.wait({last})  # else its release would end the new lease
        begun = self._monotonic()
        try:
            while not self._is_away:
                is_ours = await self._asked(store.lease(key, self._holder, self._lease))
                if is_ours is False:
                    await asyncio.sleep(min(POLL + (self._monotonic() - begun) / 4, SLOWEST))
                # Even when the turn is ours: it may have answered between our look and our turn.
                await self.find([key])
                if (held := self.known(key)) is not None:
                    if is_ours:
                        self.give_up(key)
                    return held
                if is_ours:
                    said = self._turns[key] = asyncio.get_running_loop().create_future()
                    self._tell_in_turn(key, self._hold(store, key, said))
                    return None
        except asyncio.CancelledError:
            self.give_up(key)  # it may have been granted at the same moment
            raise
        return None

    def keep(self, key: ClassKey, verdict: Classification) -> None:
        """Remember a verdict that a model gave; for a moment only if it is labels without a text.

        The store is told aside: nobody waits for it.
        """
        self._failed.pop(key, None)
        self._remember(key, verdict, self._ttl if verdict.summary else FAILED)
        self._tell(key, verdict if verdict.summary else None)

    def keep_failure(self, key: ClassKey, reason: str) -> None:
        """Remember for a moment that there is no verdict, and why."""
        self._failed[key] = reason
        self._tell(key, None)

    def give_up(self, key: ClassKey) -> None:
        """Let another proxy ask: this one does not any more."""
        self._tell(key, None)

    async def close(self) -> None:
        """Give back what is held, and wait for what the store is still being told."""
        for key in list(self._turns):
            self.give_up(key)
        await asyncio.gather(*self._telling.values(), return_exceptions=True)

    @property
    def _is_away(self) -> bool:
        return self._monotonic() < self._away_until

    def _remember(self, key: ClassKey, verdict: Classification, seconds: float) -> None:
        self._memory[key] = replace(verdict, source=Source.CACHE), seconds  # once, and not for each alert

    def _tell(self, key: ClassKey, verdict: Classification | None) -> None:
        store, said = self._store, self._turns.pop(key, None)
        if said is not None:
            said.set_result(verdict)
        elif store is not None:
            self._tell_in_turn(key, self._told(store, key, verdict, self._telling.get(key)))

    def _tell_in_turn(self, key: ClassKey, telling: Coroutine[Any, Any, None]) -> None:
        task = self._telling[key] = asyncio.create_task(telling, name=f"tell of {key.hex()}")
        task.add_done_callback(partial(self._has_told, key))

    def _has_told(self, key: ClassKey, task: asyncio.Task[None]) -> None:
        if self._telling.get(key) is task:
            del self._telling[key]

    async def _hold(self, store: VerdictStore, key: ClassKey, said: asyncio.Future[Classification | None]) -> None:
        """Renew the lease until there is something to tell."""
        while not (await asyncio.wait({said}, timeout=self._lease / 3))[0]:
            await self._tried(store.lease(key, self._holder, self._lease))
        await self._told(store, key, said.result())

    async def _told(
        self,
        store: VerdictStore,
        key: ClassKey,
        verdict: Classification | None,
        after: asyncio.Task[None] | None = None,
    ) -> None:
        if after is not None:
            await asyncio.wait({after})
        if verdict is not None:
            await self._tried(store.put(key, verdict, self._ttl))
        if store.shared:
            await self._tried(store.release(key, self._holder))

    async def _asked(self, question: Awaitable[_T]) -> _T | None:
        """Return the answer; None when there is none, and then there will be none for a while."""
        answer = await self._tried(question)
        if answer is None:
            self.leave_alone()
        return answer

    async def _tried(self, question: Awaitable[_T]) -> _T | None:
        try:
            return await question
        except StoreError as exc:
            log.debug("the store of verdicts does not answer", error=str(exc))
        except Exception:
            log.exception("a bug: the store of verdicts is done without")
        return None
