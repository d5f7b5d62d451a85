"""Who is next for one of a few places: by priority, and within one in turns by name.

An alertname with a thousand classes waits as a crowd, and one with a single class is next but one: each name gets a
place in turn. When too many wait, the one goes who has waited longest of the lowest priority, and not who comes: an
alert that has waited so long has long left with what the rules said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from enum import IntEnum
from typing import Final

from proxy.errors import ClassifierBusy

WAITING_LIMIT: Final = 1000
"""Calls that may wait for a place."""


class Priority(IntEnum):
    """The lower the number, the sooner."""

    CRITICAL = 0
    """Its author calls the alert critical."""
    NORMAL = 1


class _Waiter:
    """One that waits, and how it learns what becomes of it."""

    __slots__ = ("name", "place", "priority")

    def __init__(self, priority: Priority, name: str) -> None:
        self.priority = priority
        self.name = name
        self.place: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Row:
    """Those of one priority."""

    def __init__(self) -> None:
        # Dictionaries for their order, and because from the middle of one something can be taken.
        self._by_age: dict[_Waiter, None] = {}
        self._by_name: dict[str, dict[_Waiter, None]] = {}
        """The first name is the next to have its turn."""

    def __len__(self) -> int:
        return len(self._by_age)

    @property
    def oldest(self) -> _Waiter:
        return next(iter(self._by_age))

    def add(self, waiter: _Waiter) -> None:
        self._by_age[waiter] = None
        self._by_name.setdefault(waiter.name, {})[waiter] = None

    def take(self) -> _Waiter:
        """Remove and return the one whose turn it is; its name has the next one after all others."""
        name = next(iter(self._by_name))
        waiter = next(iter(self._by_name[name]))
        self.remove(waiter)
        if (others := self._by_name.pop(name, None)) is not None:
            self._by_name[name] = others
        return waiter

    def remove(self, waiter: _Waiter) -> None:
        """Remove one, wherever it is; without effect when it is not here any more."""
        if waiter not in self._by_age:
            return
        del self._by_age[waiter]
        namesakes = self._by_name[waiter.name]
        del namesakes[waiter]
        if not namesakes:
            del self._by_name[waiter.name]


class Places:
    """So many places at once, and a queue for them. For one event loop."""

    def __init__(
        self,
        places: int,
        *,
        limit: int = WAITING_LIMIT,
        on_drop: Callable[[Priority], None] = lambda _: None,
    ) -> None:
        """At most `limit` may wait; `on_drop` hears of each that is turned away because they are too many."""
        self._places = places
        self._limit = limit
        self._on_drop = on_drop
        self._rows = {priority: _Row() for priority in Priority}
        self._running = 0

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return sum(map(len, self._rows.values()))

    @property
    def running(self) -> int:
        """How many have one."""
        return self._running

    @contextlib.asynccontextmanager
    async def place(self, priority: Priority, name: str) -> AsyncIterator[None]:
        """Have a place for the length of the block, when it is one's turn. Raises ClassifierBusy when turned away."""
        if self._running < self._places:  # then nobody waits
            self._running += 1
        else:
            await self._turn(priority, name)
        try:
            yield
        finally:
            self._leave()

    async def _turn(self, priority: Priority, name: str) -> None:
        if self.waiting >= self._limit:
            self._make_room(priority)
        waiter = _Waiter(priority, name)
        self._rows[priority].add(waiter)
        try:
            await waiter.place
        except asyncio.CancelledError:
            self._rows[priority].remove(waiter)
            if waiter.place.done() and not waiter.place.cancelled() and waiter.place.exception() is None:
                self._leave()  # it was given a place at the same moment
            raise

    def _make_room(self, priority: Priority) -> None:
        """Turn away who has waited longest of the lowest priority, or who comes when that one would be the lowest."""
        lowest = max(one for one, row in self._rows.items() if row)
        error = ClassifierBusy(f"{self._limit} calls wait already")
        if priority > lowest:
            self._on_drop(priority)
            raise error
        dropped = self._rows[lowest].oldest
        self._rows[lowest].remove(dropped)
        if not dropped.place.done():  # else it was cancelled, and has gone by itself
            self._on_drop(lowest)
            dropped.place.set_exception(error)

    def _leave(self) -> None:
        """Hand a place that is not needed any more to whose turn it is."""
        for row in self._rows.values():
            while row:
                waiter = row.take()
                if not waiter.place.done():  # else it was cancelled, and goes by itself
                    waiter.place.set_result(None)
                    return
        self._running -= 1
