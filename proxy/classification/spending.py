"""Keeps the calls of models within the day's caps: reserved before a call is made, settled when it has ended.

    reserve ──→ Hold ──→ settle      what the provider counted, and the rest is there for others
       │                             nothing counted: the estimate
       └─ not enough: ClassifierOverBudget, the rules decide

A process does not ask the store for each call. It takes a chunk ahead, which counts as spent there from that moment on,
and reserves from it. So the store's sum is never less than what was spent, whoever was killed meanwhile, and no two
proxies take the same. What a process that was killed had left of its chunk is lost for the day.

With a store that several proxies share and that does not answer, each goes on with what it has taken ahead, and then
the rules decide: to take more, unseen by the others, could exceed the cap. Without such a store, or while a file cannot
be used, the memory of this one process carries on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Protocol

import structlog

from proxy.classification.pacing import (
    DAY,
    NOTHING,
    Amounts,
    Price,
    Unit,
    day_of,
    released,
    released_at,
)
from proxy.classification.tariff import Tariff
from proxy.classification.usage import Usage
from proxy.errors import ClassifierOverBudget, StoreError

log = structlog.get_logger(__name__)

CHUNKS: Final = 500
"""A chunk is this part of the caps. At most two of them, 0.4 %, are in hand: so much a kill costs, and so much a proxy
goes on with while a shared store is away."""
HEADROOM: Final = 4
"""While the cap has so many times as much left as the calls under way may take beyond their estimates, a call reserves
its estimate: others may have calls under way, too. Then it reserves the most that it may take."""
LAST_WORDS: Final = 1.0
"""Seconds at most to give back what is left."""
AWAY: Final = 5.0
"""Seconds in which a store is not asked that has not answered."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A store's answer."""

    granted: Amounts
    total: Amounts
    """What all have taken of that day, what was granted just now included."""


class SpendingStore(Protocol):
    """How much was taken of a day's caps. Raises StoreError when it cannot answer."""

    shared: ClassVar[bool]
    """Whether several proxies take from the same."""

    async def exchange(self, day: int, change: Amounts, take: Amounts, limit: Amounts, known: Amounts) -> Taken:
        """At once: add `change` to the sum of `day`, less than 0 to give back; then take as much of `take` as leaves
        the sum within `limit`. A store that has lost the day begins it with `known`.

        A question that was given up after StoreError may have been carried out or not.
        """
        ...


class Hold:
    """What is reserved for one call. The first `settle` counts, and only that."""

    __slots__ = ("_budget", "alerts", "amounts", "day", "estimate", "is_open", "model", "size")

    def __init__(
        self, budget: Budget, model: int, size: int, alerts: int, day: int, estimate: Amounts, amounts: Amounts
    ) -> None:
        self._budget = budget
        self.model = model
        self.size = size
        """Of its prompt, in bytes."""
        self.alerts = alerts
        """How many it is about."""
        self.day = day
        self.estimate = estimate
        self.amounts = amounts
        """What is reserved, the estimate at least."""
        self.is_open = True

    def settle(self, usage: Usage | None, outcome: str) -> None:
        """The call ended, `ok` or with the reason of a ClassifierError. None: nobody said what it took."""
        self._close(self._budget.tariff.counted(self.model, self.size, usage, outcome, self.alerts))

    def release(self) -> None:
        """The call was not made."""
        self._close(NOTHING)

    def _close(self, spent: Amounts) -> None:
        if self.is_open:
            self.is_open = False
            self._budget.settled(self, spent)


class Budget:
    """The caps of one process, and what it has taken of them. For one event loop; close it to give back what is left.

    Nothing here is on the way of a POST: a call is asked in a task of its own.
    """

    def __init__(
        self,
        caps: Amounts,
        prices: Sequence[Price | None],
        *,
        max_tokens: int,
        store: SpendingStore | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`prices` and `max_tokens` are as the Tariff has them. Without a `store` memory is all there is. `now` is in
        seconds since 1970.
        """
        self._caps = caps
        self.tariff = Tariff(caps, prices, max_tokens)
        self._store = store
        self._now = now
        self._chunk = Amounts(caps.tokens // CHUNKS, caps.nano_usd // CHUNKS)
        self._asking = asyncio.Lock()
        self._tidying: asyncio.Task[None] | None = None
        self._away_until = 0.0
        self._said_on = -1
        """The day on which the log was told that the budget is spent."""
        self._begin(day_of(now()))
        self.error = ""
        """Why the store does not answer; empty while it does."""

    def _begin(self, day: int) -> None:
        self._day = day
        self._total = NOTHING
        """What was taken of the day by all, as far as it is known here."""
        self._free = NOTHING
        """Of that, what this process has left. Below 0: more was spent than was taken."""
        self._untold = NOTHING
        """Of the total, what the store is still to be told."""
        self._asked = NOTHING
        """The estimates of the calls that are under way."""
        self._factor = 1.0
        """How many times its estimate a call has taken today, at most."""
        self._blocked: dict[Unit, float] = {}
        """When there is enough for a call again, of a unit of which there is not."""
        self._ask_at = 0.0
        """When to take a chunk again without need: the last one was not granted in full."""

    async def open(self) -> None:
        """Find out what was spent of this day before."""
        async with self._asking:
            await self._exchange(NOTHING)

    async def close(self) -> None:
        """Give back what is left of the chunk."""
        if self._tidying is not None:
            await asyncio.gather(self._tidying, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # a disk that hangs must not hold up the stop
            async with asyncio.timeout(LAST_WORDS), self._asking:
                self._roll()
                self._chunk = NOTHING  # all of it is more than is needed
                await self._exchange(NOTHING)

    def affords(self, model: int) -> bool:
        """Whether it is worth asking for a reservation for a call of `model`. Does not say that there will be one."""
        self._roll()
        now = self._now()
        needs = self.tariff.estimate(model, 0)
        return not any(needs.of(unit) > 0 and now < until for unit, until in self._blocked.items())

    def refusal(self) -> ClassifierOverBudget:
        """Return the error of a call that is not to be made."""
        return ClassifierOverBudget("what may be spent by now is spent")

    async def reserve(self, model: int, size: int, alerts: int = 1) -> Hold:
        """Return what a call of `model` with a prompt of `size` bytes about so many alerts may take.

        Raises ClassifierOverBudget.
        """
        estimate = self.tariff.estimate(model, size, alerts)
        while True:
            self._roll()
            day, wanted = self._day, self._needed(estimate)
            if self._wants_more(wanted):
                async with self._asking:
                    self._roll()
                    if self._wants_more(wanted):  # else another call has just taken enough for both
                        await self._exchange((wanted - self._free.at_least(NOTHING)).at_least(self._chunk))
                self._roll()
            needed = self._needed(estimate)
            if self._free.covers(needed):
                self._free -= needed
                self._asked += estimate
                return Hold(self, model, size, alerts, self._day, estimate, needed)
            # Else midnight came in between, and there is more; or what others spent meanwhile makes it take more.
            if self._day == day and wanted.covers(needed):
                if alerts == 1:  # else there may be enough for each of them alone
                    self._block(needed)
                raise self.refusal()

    def settled(self, hold: Hold, spent: Amounts) -> None:
        """Take back what was reserved for a call and not spent by it."""
        self._roll()
        if hold.day != self._day:
            # What was left belonged to its own day; what was too much is nobody's but today's.
            self._free -= (spent - hold.amounts).at_least(NOTHING)
            return
        self._asked -= hold.estimate
        for unit in Unit:
            if hold.estimate.of(unit):
                self._factor = max(self._factor, spent.of(unit) / hold.estimate.of(unit))
        self._free += hold.amounts - spent
        if hold.amounts != spent:
            self._blocked.clear()
        if self._is_untidy and self._tidying is None:
            self._tidying = asyncio.create_task(self._tidy(), name="settle the budget")

    def status(self) -> dict[str, Any]:
        """Return the member `budget` of the status."""
        self._roll()
        spent, now = self.spent(), self.released()
        until = [at for at in self._blocked.values() if at > self._now()]
        return {
            "day": _date(self._day * DAY).date().isoformat(),
            "units": {
                unit.value: {
                    "limit": self._caps.shown(unit),
                    "spent": spent.shown(unit),
                    "released": now.shown(unit),
                }
                for unit in self.units
            },
            "next_at": _date(max(until)).isoformat() if until else None,
            "error": self.error,
        }

    @property
    def units(self) -> list[Unit]:
        """Those that have a cap."""
        return [unit for unit in Unit if self._caps.of(unit)]

    def spent(self) -> Amounts:
        """Return what was spent today, with what is reserved; of other proxies also what they have taken ahead."""
        self._roll()
        return self._total - self._free

    def released(self) -> Amounts:
        """Return what may have been spent by now."""
        self._roll()
        return released(self._caps, self._day, self._now())

    def _roll(self) -> None:
        """Begin a new day, with what is known of it: nothing."""
        today = day_of(self._now())
        # A clock that is set back over midnight does not give yesterday's budget a second time.
        if today > self._day or today < self._day - 1:
            self._begin(today)

    def _needed(self, estimate: Amounts) -> Amounts:
        """Return what to reserve for a call."""
        excess = (self._asked + estimate).scaled((self._factor - 1) * HEADROOM)
        # What is too much now is missing later, as long as there is a later.
        return estimate if (self._caps - self._total).covers(excess) else estimate.scaled(self._factor)

    @property
    def _is_away(self) -> bool:
        return 0 < self._away_until - self._now() <= AWAY  # whatever a clock does that is set back

    @property
    def _is_untidy(self) -> bool:
        """Whether the store is to be told of what was spent beyond what was taken, or given what is too much."""
        return any(self._free.of(unit) < 0 or self._free.of(unit) > 2 * self._chunk.of(unit) for unit in self.units)

    def _wants_more(self, needed: Amounts) -> bool:
        now = self._now()
        if not self._free.covers(needed):
            return not any(
                self._free.of(unit) < needed.of(unit) and now < until for unit, until in self._blocked.items()
            )
        # Before it is needed: should the store go away now, there is something to go on with.
        half = self._chunk.each(lambda chunk, _: chunk // 2, NOTHING)
        return now >= self._ask_at and not self._free.covers(half)

    async def _tidy(self) -> None:
        try:
            async with self._asking:
                self._roll()
                if self._is_untidy:
                    await self._exchange(NOTHING)
        finally:
            self._tidying = None

    async def _exchange(self, take: Amounts) -> None:
        """Tell the store what has changed, and take so much of what is left; of a store that is away nothing."""
        day, limit = self._day, released(self._caps, self._day, self._now())
        # More was spent than taken, or so much is left that others should have it.
        change = NOTHING - self._free.at_most(NOTHING)
        for unit in self.units:
            # Not while a call wants more: what is left is part of what it needs.
            if take == NOTHING and self._free.of(unit) > 2 * self._chunk.of(unit):
                spare = self._free.of(unit) - self._chunk.of(unit)
                change -= Amounts(spare) if unit is Unit.TOKENS else Amounts(nano_usd=spare)
        self._free += change
        known, untold = self._total - self._untold, self._untold + change
        self._total += change
        self._untold = NOTHING
        if self._store is None:
            self._untold = untold
            self._take_unseen(take, limit)
            return
        told = False
        try:
            if self._is_away:
                raise StoreError(self.error)
            taken = await self._store.exchange(day, untold, take, limit, known)
            told = True
        except StoreError as exc:
            self._went_away(exc)
            if day == self._day and not self._store.shared:
                self._take_unseen(take, limit)
            return
        finally:
            # It may have been carried out. To have given back twice could exceed the cap, to have spent twice cannot.
            if not told and day == self._day:
                self._untold += untold.at_least(NOTHING)
        if self.error:
            log.info("the store of the budget answers again")
        self.error = ""
        if day == self._day:
            self._total = taken.total + self._untold
            self._free += taken.granted
            if not taken.granted.covers(take):
                self._ask_at = max(
                    released_at(self._caps.of(unit), day, taken.total.of(unit) + self._chunk.of(unit) // 2)
                    for unit in self.units
                )

    def _take_unseen(self, take: Amounts, limit: Amounts) -> None:
        granted = take.at_most((limit - self._total).at_least(NOTHING)).at_least(NOTHING)
        self._total += granted
        self._free += granted
        self._untold += granted

    def _went_away(self, exc: StoreError) -> None:
        if not self.error and self._store is not None:
            goes_on = "what was taken ahead" if self._store.shared else "what this process knows of today"
            log.warning("the store of the budget does not answer", error=str(exc), goes_on_with=goes_on)
        self.error = str(exc) or "it does not answer"
        if not self._is_away:
            self._away_until = self._now() + AWAY

    def _block(self, needed: Amounts) -> None:
        """Note when there is enough for the next call, and say once a day that there is not."""
        short = [unit for unit in self.units if self._free.of(unit) < needed.of(unit)]
        for unit in short:
            total = self._total.of(unit) + needed.of(unit) - self._free.of(unit)
            self._blocked[unit] = released_at(self._caps.of(unit), self._day, total)
            if self.error:
                self._blocked[unit] = max(self._blocked[unit], self._away_until)
        if self._said_on != self._day:
            self._said_on = self._day
            for unit in short[:1]:
                log.error(
                    "the budget is spent as far as the day has come, the rules decide until more of it is released",
                    unit=unit.value,
                    spent=self.spent().shown(unit),
                    released=self.released().shown(unit),
                    limit_of_the_day=self._caps.shown(unit),
                    next_call_at=_date(max(self._blocked[one] for one in short)).isoformat(timespec="seconds"),
                    store=self.error or "answers",
                )


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
