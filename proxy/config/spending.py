"""What may be spent on models, and what their tokens cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from proxy.config.kinds import Between, Kind, Section, setting

PROMPT_TOKENS: Final = 700
"""What the prompt about an ordinary alert is estimated at, with the shipped template."""
CALLS: Final = 100
"""So many calls a day a cap should be worth at least; a fifth of it is there at midnight."""


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """US dollars for a million tokens."""

    model: str
    """`MODEL` as the provider spells it, or `PROVIDER/MODEL`."""
    input: float
    """Of the prompt."""
    output: float
    """Of the answer."""


class ModelPriceKind(Kind[ModelPrice]):
    name = "price of a model"
    metavar = "MODEL=INPUT/OUTPUT"
    want = "want for example my-model=0.15/0.60, US dollars for a million tokens of the prompt and of the answer"

    def _parse(self, text: str) -> ModelPrice:
        found = re.fullmatch(r"(\S+)\s*=\s*([0-9]{1,6}(?:\.[0-9]{1,9})?)\s*/\s*([0-9]{1,6}(?:\.[0-9]{1,9})?)", text)
        if found is None:
            raise ValueError(f"bad price {text!r}, {self.want}")
        return ModelPrice(found[1], float(found[2]), float(found[3]))

    def show(self, value: ModelPrice) -> str:
        return f"{value.model}={_plain(value.input)}/{_plain(value.output)}"


class UsdKind(Kind[float]):
    """An amount of money, more than nothing."""

    name = "US dollars"
    metavar = "USD"
    want = "want US dollars as a number, for example 5 or 0.5"

    def _parse(self, text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
            raise ValueError(f"bad amount {text!r}, {self.want}")
        if not float(text):
            raise ValueError(f"{text!r} is nothing, which llm.enabled: false says better; {self.want}")
        return float(text)

    def show(self, value: float) -> str:
        return _plain(value)


Price = Annotated[ModelPrice, ModelPriceKind()]


class Budget(Section):
    """What all models together may take in a UTC day: [how that is kept](../explanation/spending.md). A fifth of it is
    there at midnight, the rest comes evenly over the day, so that a storm at night does not take it all. What is spent
    is remembered where `store.url` says, and shared by the proxies of one Redis. When it is spent, the rules decide."""

    usd_per_day: Annotated[float | None, UsdKind()] = setting(
        default=None,
        description="The most that may be spent in a day, in US dollars. Counts models whose price is on LiteLLM's "
        "list or in `llm.prices`. Without it money is no limit.",
    )
    tokens_per_day: Annotated[int | None, Between(1000, 10**12)] = setting(
        default=None,
        description="The most tokens in a day, those of prompts and of answers together. Without it they are no limit.",
    )


def doubled_prices(prices: Sequence[ModelPrice]) -> str:
    """Return what is wrong with prices that name a model twice; empty when none does."""
    names = [price.model for price in prices]
    doubled = sorted({name for name in names if names.count(name) > 1})
    return f"llm.prices has two prices of {', '.join(doubled)}, leave one out" if doubled else ""


def per_proxy(budget: Budget, store_url: str, replicas: int) -> str:
    """Return why more may be spent in a day than the budget says; empty when it may not."""
    if budget.usd_per_day is None and budget.tokens_per_day is None:
        return ""
    if store_url == "memory:":
        return "llm.budget begins anew with each restart: store.url is memory:, want sqlite: or redis://…"
    if replicas > 1 and not store_url.startswith("redis"):
        return (
            f"llm.budget is for each of the {replicas} proxies of alertmanager.replicas by itself: store.url "
            f"({store_url}) is not shared; want redis://…, or a share of the budget for each"
        )
    return ""


def too_small(budget: Budget, max_tokens: int) -> str:
    """Return why hardly a call may be made in a day; empty when some may."""
    cap, call = budget.tokens_per_day, PROMPT_TOKENS + max_tokens
    if cap is None or cap >= CALLS * call:
        return ""
    return (
        f"llm.budget.tokens_per_day ({cap}) is worth {cap // call} calls in a day: one is reserved at about {call} "
        f"tokens, llm.max_tokens among them; want {CALLS * call} or more"
    )


def _plain(number: float) -> str:
    """Return a number as people write it, without an exponent."""
    return f"{number:.9f}".rstrip("0").rstrip(".")
