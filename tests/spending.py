"""Days of storms for budgets: a clock that a test moves, calls that take what they like, and what that came to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from proxy.classification.pacing import DAY, Amounts, Price, Unit, released
from proxy.classification.spending import Budget, Hold, SpendingStore, Taken
from proxy.classification.usage import Usage
from proxy.errors import ClassifierOverBudget, StoreError

TODAY = 20_000
"""A day since 1970; it is in 2024."""
MIDNIGHT = TODAY * DAY
PROMPT = 3000
"""Bytes, which are estimated as 1000 tokens."""
MAX_TOKENS = 400
ESTIMATE = PROMPT // 3 + MAX_TOKENS
PRICE = Price.per_million(0.15, 0.60)
IN_USD = PRICE.of(PROMPT // 3, MAX_TOKENS)
"""The same in nano-dollars."""
CAP = 1_000_000
CHUNK = CAP // 500
CAPS = Amounts(tokens=CAP)
NOON = MIDNIGHT + DAY / 2


class Clock:
    def __init__(self, now: float = MIDNIGHT) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class MemoryStore:
    """A SpendingStore that can be away, and remembers what it was asked."""

    shared = True

    def __init__(self) -> None:
        self.days: dict[int, Amounts] = {}
        self.away = False
        self.asked = 0

    async def exchange(self, day, change, take, limit, known):
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreError("away")
        total = self.days.get(day, known) + change
        granted = Amounts(
            max(0, min(take.tokens, limit.tokens - total.tokens)),
            max(0, min(take.nano_usd, limit.nano_usd - total.nano_usd)),
        )
        self.days[day] = total + granted
        return Taken(granted, self.days[day])


def a_budget(
    caps: Amounts,
    clock: Callable[[], float],
    store: SpendingStore | None = None,
    prices: Sequence[Price | None] = (PRICE,),
) -> Budget:
    return Budget(caps, prices, max_tokens=MAX_TOKENS, store=store, now=clock)


Takes = Callable[[random.Random], Usage | None]


def held(budget: Budget) -> int:
    return budget.spent().tokens


async def spend(budget: Budget, tokens: int) -> None:
    (await budget.reserve(0, PROMPT)).settle(Usage(1, tokens - 1, 1), "ok")


async def refused(budget: Budget, model: int = 0) -> bool:
    try:
        (await budget.reserve(model, PROMPT)).release()
    except ClassifierOverBudget:
        return True
    return False


async def tidied(budget: Budget) -> None:
    """Return once the store was told what it is told when a call has ended."""
    while budget._tidying is not None:
        await asyncio.sleep(0)


async def exhaust(budget: Budget) -> int:
    """Make calls as estimated until one is refused; return how many that were."""
    calls = 0
    while not await refused(budget):
        await spend(budget, ESTIMATE)
        calls += 1
    return calls


def as_estimated(_: random.Random) -> Usage:
    return Usage(1, PROMPT // 3, MAX_TOKENS)


def unknown(_: random.Random) -> Usage:
    return Usage(1)


def unheard(_: random.Random) -> None:
    """What a call of which nothing was heard took."""
    return


def less(chance: random.Random) -> Usage:
    return Usage(1, chance.randint(100, PROMPT // 3), chance.randint(1, MAX_TOKENS))


def wild(chance: random.Random) -> Usage:
    """From nearly nothing to five times the estimate, as after retries."""
    times = 5 * chance.random() ** 4
    return Usage(1, max(1, int(times * PROMPT / 3)), max(1, int(times * MAX_TOKENS)))


@dataclass
class Storm:
    """Proxies that would ask for ever, on a day that goes by in steps."""

    caps: Amounts
    clock: Clock
    open_budget: Callable[[], Budget]
    """A proxy's, on the same store."""
    takes: Takes = as_estimated
    chance: random.Random = field(default_factory=lambda: random.Random(5))
    at_once: int = 4
    """Calls of a proxy."""
    spent: Counter[Unit] = field(default_factory=Counter)
    """By the providers' count, in tokens and nano-dollars."""
    most: float = 0.0
    """The most that was spent of what was released, at any moment."""
    refused: int = 0

    def settle(self, hold: Hold, usage: Usage | None) -> None:
        hold.settle(usage, "ok")
        self.bill(usage)

    def bill(self, usage: Usage | None) -> None:
        # The providers of which nothing is heard take what is estimated.
        prompt, completion = PROMPT // 3, MAX_TOKENS
        if usage is not None and usage.prompt_tokens is not None:
            prompt, completion = usage.prompt_tokens, usage.completion_tokens or 0
        self.spent[Unit.TOKENS] += prompt + completion
        self.spent[Unit.USD] += PRICE.of(prompt, completion)
        limit = released(self.caps, TODAY, self.clock.now)
        self.most = max(
            [self.most, *(self.spent[unit] / limit.of(unit) for unit in Unit if self.caps.of(unit))],
        )

    async def ask_all(self, budgets: Sequence[Budget]) -> None:
        """Make calls until each of the proxies is refused."""
        asking = list(budgets)
        while asking:
            holds: list[Hold] = []
            for budget in tuple(asking):
                for n in range(self.at_once):
                    try:
                        if not budget.affords(0):
                            raise budget.refusal()
                        holds.append(await budget.reserve(0, PROMPT))
                    except ClassifierOverBudget:
                        self.refused += 1
                        if not n:  # else there may be enough again when those have ended that are under way
                            asking.remove(budget)
                        break
            self.chance.shuffle(holds)
            for hold in holds:
                self.settle(hold, self.takes(self.chance))

    async def die(self, budget: Budget) -> Budget:
        """Kill a proxy with calls under way, and start another in its place."""
        for _ in range(self.at_once):
            try:
                await budget.reserve(0, PROMPT)
            except ClassifierOverBudget:
                break
            self.bill(as_estimated(self.chance))  # the provider works on, and nobody hears of it
        return self.open_budget()

    async def day(self, proxies: int = 1, *, step: float = 120, deaths: int = 0) -> Sequence[Budget]:
        budgets = [self.open_budget() for _ in range(proxies)]
        moments = sorted(self.chance.uniform(0, DAY) for _ in range(deaths))
        for second in range(0, DAY, int(step)):
            self.clock.now = MIDNIGHT + second
            if moments and second >= moments[0]:
                del moments[0]
                dies = self.chance.randrange(proxies)
                budgets[dies] = await self.die(budgets[dies])
            await self.ask_all(budgets)
        self.clock.now = MIDNIGHT + DAY - 1
        await self.ask_all(budgets)
        return budgets

    def share(self, unit: Unit) -> float:
        """Return what was spent of a cap."""
        return self.spent[unit] / self.caps.of(unit)
