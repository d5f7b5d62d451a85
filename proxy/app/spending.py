"""The budget of the settings' choice, and what is known of prices."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import structlog

from proxy.app.storage import open_spending
from proxy.classification.pacing import NANO, Amounts, Price
from proxy.classification.spending import Budget
from proxy.config import Settings
from proxy.telemetry import Metrics

if TYPE_CHECKING:
    from proxy.config.models import ModelName
    from proxy.config.spending import ModelPrice

log = structlog.get_logger(__name__)


def price_of(model: ModelName, prices: Sequence[ModelPrice]) -> tuple[float, float] | None:
    """Return what `llm.prices` says a model takes for a million tokens in and out, in US dollars; None for nothing."""
    # The more exact name first: it is there to tell one provider's model from another's.
    for name in (f"{model.provider}/{model.model}", model.model):
        for price in prices:
            if price.model == name:
                return price.input, price.output
    return None


def unpriced(settings: Settings) -> list[str]:
    """Return a warning for each model whose calls a cap in US dollars cannot count."""
    llm = settings.llm
    if llm.budget.usd_per_day is None or not llm.enabled:
        return []
    return [
        f"llm.budget.usd_per_day: the price of {one.provider}/{one.model} is not known, its calls are not counted in US"
        f" dollars; give it in llm.prices, for example {one.model}=0.15/0.60, or set llm.budget.tokens_per_day"
        for one, price in zip(llm.models, _prices(settings), strict=True)
        if price is None
    ]


async def chosen_budget(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> Budget | None:
    """Return what keeps calls within the caps; None without caps. It knows what was spent before it is returned."""
    given = settings.llm.budget
    if given.usd_per_day is None and given.tokens_per_day is None:
        return None
    caps = Amounts(given.tokens_per_day or 0, round((given.usd_per_day or 0) * NANO))
    budget = Budget(
        caps, _prices(settings), max_tokens=settings.llm.max_tokens, store=await open_spending(settings, stack)
    )
    await budget.open()
    stack.push_async_callback(budget.close)
    for unit in budget.units:
        metrics.budget_limit.labels(unit.value).set(caps.shown(unit))
        metrics.budget_spent.labels(unit.value).set_function(partial(lambda one: budget.spent().shown(one), unit))
        metrics.budget_released.labels(unit.value).set_function(partial(lambda one: budget.released().shown(one), unit))
        metrics.budget_remaining.labels(unit.value).set_function(
            partial(lambda one: max(0.0, (caps - budget.spent()).shown(one)), unit)
        )
    return budget


def _prices(settings: Settings) -> list[Price | None]:
    """Return the models' prices, as far as they are known."""
    llm = settings.llm
    known: Sequence[tuple[float, float] | None] = [None] * len(llm.models)
    if llm.budget.usd_per_day is not None:
        from proxy.classification.worker.prices import listed  # late: reading LiteLLM's list takes 30 ms

        known = listed([(one.provider, one.model) for one in llm.models])
    found = [price_of(one, llm.prices) or on_list for one, on_list in zip(llm.models, known, strict=True)]
    return [None if price is None else Price.per_million(*price) for price in found]
