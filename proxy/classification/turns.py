"""What is said to the second tier of the class cache: verdicts to keep, and whose turn it is to ask about a class.

One question at a time, for all classes that wait for its answer: a storm of new classes is a few round trips to the
store, and not a herd that keeps it from answering anybody, the decisions that are claimed there among them.

Nobody waits for what is told. A turn is a lease that is renewed until there is something to tell.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from proxy.classification.classes import ClassKey
from proxy.classification.verdicts import Cached, VerdictStore
from proxy.errors import StoreError

log = structlog.get_logger(__name__)

AWAY: Final = 5.0
"""Seconds in which a store is not asked that has not answered. Nothing is lost but a call. What there is to tell it is
told all the same: nobody waits for that, and a store that is full may still be read."""
LEASE: Final = 15.0
"""Seconds after which others may ask about a class when the proxy that did so is gone. While it is there it renews its
lease: in a storm a call waits in line for longer than any lease should last."""
POLL: Final = 0.25
SLOWEST: Final = 2.0
"""Seconds between two looks at whether another proxy has its answer, in the beginning and after a while."""
AT_ONCE: Final = 256
"""Classes in one question. When more are waited for, each is looked at less often."""

_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class _Want:
    """Somebody waits for his turn, or for what another proxy finds out."""

    answer: asyncio.Future[Cached | None]
    begun: float
    due: float
    """When to look."""
    is_anothers: bool = False
    """Whether another proxy was asking when we looked last: its answer is worth waiting for."""


class Turns:
    """Speaks with `store`. Never raises: a store that does not answer has nothing, and leaves every turn to us.

    `lease` in seconds.
    """

    def __init__(
        self, store: VerdictStore, *, lease: float = LEASE, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._lease = lease
        self._monotonic = monotonic
        self._holder = secrets.token_hex(8)
        self._away_until = 0.0
        self._wants: dict[ClassKey, _Want] = {}
        self._held: dict[ClassKey, float] = {}
        """Our turns, and when to renew them."""
        self._news: dict[ClassKey, Cached | None] = {}
        """What there is to tell of classes. Of one without a verdict: that it is not our turn any more."""
        self._changed = asyncio.Event()
        self._speaking: asyncio.Task[None] | None = None

    async def find(self, keys: Collection[ClassKey]) -> Mapping[ClassKey, Cached]:
        """Return what the store holds of `keys`."""
        if self._is_away:
            return {}
        return await self._asked(self._store.get(keys)) or {}

    def leave_alone(self) -> None:
        """Do not ask the store for a while: somebody has waited too long."""
        self._away_until = self._monotonic() + AWAY

    async def take(self, key: ClassKey) -> Cached | None:
        """Return what another proxy of the same store finds out meanwhile; None when it is our turn to ask.

        Whoever got the turn says `tell` in the end. One at a time may wait for a class.
        """
        if not self._store.shared:
            return None
        now = self._monotonic()
        want = self._wants[key] = _Want(asyncio.get_running_loop().create_future(), now, now)
        self._speak()
        try:
            return await want.answer
        except asyncio.CancelledError:
            if self._wants.get(key) is want:
                del self._wants[key]
            self.tell(key, None)  # it may have been granted at the same moment
            raise

    def tell(self, key: ClassKey, verdict: Cached | None) -> None:
        """Have a verdict kept, if there is one, and the turn given back."""
        self._held.pop(key, None)
        if verdict is not None or (self._store.shared and key not in self._news):
            self._news[key] = verdict
            self._speak()

    async def close(self) -> None:
        """Give back what is held, and wait for what the store is still being told."""
        for key, want in list(self._wants.items()):
            self._settle(key, want, None)
            self.tell(key, None)
        for key in list(self._held):
            self.tell(key, None)
        if self._speaking is not None:
            await asyncio.wait({self._speaking})

    @property
    def _is_away(self) -> bool:
        return self._monotonic() < self._away_until

    def _speak(self) -> None:
        self._changed.set()
        if self._speaking is None:
            self._speaking = asyncio.create_task(self._speak_on(), name="verdicts of other proxies")

    async def _speak_on(self) -> None:
        """Say and ask what is due, until there is nothing left."""
        try:
            while self._wants or self._held or self._news:
                self._changed.clear()
                await self._tell()
                await self._look()
                await self._renew()
                due = min((*self._held.values(), *(want.due for want in self._wants.values())), default=0.0)
                await self._sleep(due - self._monotonic())
        finally:
            self._speaking = None

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _tell(self) -> None:
        news = dict(self._news)
        if not news:
            return
        verdicts = {key: verdict for key, verdict in news.items() if verdict is not None}
        if verdicts:
            await self._tried(self._store.put(verdicts))
        if self._store.shared:
            await self._tried(self._store.release(list(news), self._holder))
        for key, told in news.items():
            if self._news.get(key, self) is told:
                del self._news[key]

    async def _look(self) -> None:
        """See whose turn it is, for the classes that are waited for; and what has been found out, even about those
        whose turn is ours: another proxy may have answered between our last look and our turn."""
        now = self._monotonic()
        due = {key: want for key, want in self._wants.items() if want.due <= now}
        keys = list(due)[:AT_ONCE]
        if not keys:
            return
        ours = found = None
        if not self._is_away:
            ours = await self._asked(self._store.lease(keys, self._holder, self._lease))
            found = None if ours is None else await self._asked(self._store.get(keys))
        for key in keys:
            want, cached = self._wants.get(key), (found or {}).get(key)
            is_ours = ours is not None and key in ours
            if want is None or want is not due[key]:
                continue  # given up meanwhile, and perhaps wanted again
            if cached is not None:
                self._settle(key, want, cached)
                if is_ours:
                    self.tell(key, None)
            elif is_ours:
                self._held[key] = self._monotonic() + self._lease / 3
                self._settle(key, want, None)
            elif found is None and not want.is_anothers:
                self._settle(key, want, None)
            else:
                self._wait_on(want, answered=found is not None)

    def _wait_on(self, want: _Want, *, answered: bool) -> None:
        """Look again later. A store that falls silent is waited for once: the other proxy has its answer soon."""
        now, want.is_anothers = self._monotonic(), answered
        often = min(POLL + (now - want.begun) / 4, SLOWEST)
        want.due = now + often * max(1.0, len(self._wants) / AT_ONCE) if answered else max(now, self._away_until)

    async def _renew(self) -> None:
        now = self._monotonic()
        due = [key for key, at in self._held.items() if at <= now][:AT_ONCE]
        if not due:
            return
        for key in due:
            self._held[key] = now + self._lease / 3
        await self._tried(self._store.lease(due, self._holder, self._lease))

    def _settle(self, key: ClassKey, want: _Want, answer: Cached | None) -> None:
        del self._wants[key]
        if not want.answer.done():
            want.answer.set_result(answer)

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
