"""What calls of models take: before they are made by estimate, and afterwards as their providers say. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from proxy.classification import batches
from proxy.classification.pacing import NANO, NOTHING, Amounts, Price
from proxy.classification.usage import Usage

PER_TOKEN: Final = 3
"""Bytes of a prompt that are estimated as one token. In English there are more than four: rather too many tokens than
too few, and in scripts of three bytes a character is often a token."""
_REFUSED: Final = frozenset({"rejected", "rate_limited", "unusable"})
"""Outcomes of calls that no provider worked on, so that none charges for them."""
_ANSWERED: Final = frozenset({"ok", "invalid_answer"})


class Tariff:
    """Prices calls, in the units that have a cap; in the others they take 0."""

    def __init__(self, caps: Amounts, prices: Sequence[Price | None], max_tokens: int) -> None:
        """`prices` are the models', by their position; None is unknown, and such a model's calls cost no money.

        `max_tokens` bounds an answer about one alert.
        """
        self._caps = caps
        self._prices = list(prices)
        self._max_tokens = max_tokens

    def estimate(self, model: int, size: int, alerts: int = 1) -> Amounts:
        """Return what a call of `model` with a prompt of `size` bytes about so many alerts takes, rather too much than
        too little."""
        price, prompt, answer = self._prices[model], _tokens(size), batches.max_tokens(alerts, self._max_tokens)
        return self._capped(Amounts(prompt + answer, price.of(prompt, answer) if price else 0))

    def counted(self, model: int, size: int, usage: Usage | None, outcome: str, alerts: int = 1) -> Amounts:
        """Return what a call counts as that ended with `outcome`: `ok`, or the reason of a ClassifierError.

        What the provider says it took. Where it says nothing: the estimate, for each request that was answered and
        once for a call that may have been; nothing for one that was turned away. Without a `usage` nobody knows.
        """
        estimate = self.estimate(model, size, alerts)
        if usage is None:
            return estimate
        if usage.prompt_tokens is None and usage.completion_tokens is None:
            if outcome in _ANSWERED:
                return estimate.scaled(max(usage.requests, 1))
            return NOTHING if outcome in _REFUSED or not usage.requests else estimate
        price = self._prices[model]
        prompt = _tokens(size) if usage.prompt_tokens is None else usage.prompt_tokens
        longest = batches.max_tokens(alerts, self._max_tokens)
        completion = longest if usage.completion_tokens is None else usage.completion_tokens
        cost = price.of(prompt, completion) if price else 0
        if usage.cost_usd is not None:
            cost = math.ceil(usage.cost_usd * NANO)
            if price is None and prompt + completion:  # known after all: the next ones are reserved at it
                self._prices[model] = Price(each := cost / (prompt + completion), each)
        return self._capped(Amounts(prompt + completion, cost))

    def _capped(self, amounts: Amounts) -> Amounts:
        return amounts.each(lambda amount, cap: amount if cap else 0, self._caps)


def _tokens(size: int) -> int:
    return math.ceil(size / PER_TOKEN)
