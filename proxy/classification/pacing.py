"""What may be spent of a day's caps, and from when on. Pure: no clock, no store.

A day is a UTC day. AT_ONCE of a cap is there from midnight on, the rest comes evenly, the last of it with the next
midnight:

    cap ┤                          ╱
        │                  ╱
        │          ╱                   what may have been spent by then, all proxies together
    1/5 ┤  ╱
        └──┬───────────────────────┬
         00:00                   24:00

What is not spent stays there until midnight. So a first storm gets a fifth and what quiet hours have left; one that
lasts all night has used half by 09:00, and not all; and a day on which much fires to its end is spent to its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DAY: Final = 86_400
AT_ONCE: Final = 0.2
"""Share of a cap that is there at midnight. A storm's classes come in its first minutes, and each is asked about once:
less would have it wait when verdicts are worth most, more would leave too little for the next one."""
NANO: Final = 1_000_000_000
"""Money is counted in whole nano-dollars: sums of binary fractions would drift, and differ between stores."""


class Unit(StrEnum):
    """What caps are in."""

    TOKENS = "tokens"
    USD = "usd"


@dataclass(frozen=True, slots=True)
class Amounts:
    """So much in each unit; 0 in one that has no cap."""

    tokens: int = 0
    nano_usd: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return self.each(lambda one, two: one + two, other)

    def __sub__(self, other: Amounts) -> Amounts:
        return self.each(lambda one, two: one - two, other)

    def each(self, what: Callable[[int, int], int], other: Amounts) -> Amounts:
        """Return what `what` makes of both amounts in each unit."""
        return Amounts(what(self.tokens, other.tokens), what(self.nano_usd, other.nano_usd))

    def at_least(self, other: Amounts) -> Amounts:
        return self.each(max, other)

    def at_most(self, other: Amounts) -> Amounts:
        return self.each(min, other)

    def covers(self, other: Amounts) -> bool:
        """Whether it is as much as `other` in each unit that `other` needs."""
        return all(self.of(unit) >= other.of(unit) for unit in Unit if other.of(unit) > 0)

    def scaled(self, factor: float) -> Amounts:
        """Return it times `factor`, rounded up."""
        return Amounts(math.ceil(self.tokens * factor), math.ceil(self.nano_usd * factor))

    def of(self, unit: Unit) -> int:
        return self.tokens if unit is Unit.TOKENS else self.nano_usd

    def shown(self, unit: Unit) -> float:
        """Return the amount for people and metrics: tokens, or US dollars."""
        return self.tokens if unit is Unit.TOKENS else self.nano_usd / NANO


NOTHING: Final = Amounts()


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost, in nano-dollars each; that is a thousandth of the US dollars for a million."""

    input: float
    output: float

    @classmethod
    def per_million(cls, input: float, output: float) -> Price:  # noqa: A002 # what price lists call it
        """Return the price of a model that takes so many US dollars for a million tokens."""
        return cls(input * 1000, output * 1000)

    def of(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return the price of a call in nano-dollars, rounded up."""
        return math.ceil(prompt_tokens * self.input + completion_tokens * self.output)

    @property
    def is_free(self) -> bool:
        return not (self.input or self.output)


def day_of(now: float) -> int:
    """Return the UTC day of `now`, in days since 1970."""
    return int(now // DAY)


def released(caps: Amounts, day: int, now: float) -> Amounts:
    """Return how much of the caps of `day` may have been spent at `now`, in seconds since 1970."""
    passed = min(max(now / DAY - day, 0.0), 1.0)
    share = AT_ONCE + (1 - AT_ONCE) * passed
    return Amounts(int(caps.tokens * share), int(caps.nano_usd * share))


def released_at(cap: int, day: int, amount: int) -> float:
    """Return when `amount` of a `cap` of `day` may have been spent; the next midnight when that is more than there is.

    In seconds since 1970.
    """
    if amount > cap:
        return float((day + 1) * DAY)
    # A token more, so that rounding does not leave one missing at that moment.
    passed = ((amount + 1) / cap - AT_ONCE) / (1 - AT_ONCE)
    return (day + min(max(passed, 0.0), 1.0)) * DAY
