"""LiteLLM's list of prices, read without LiteLLM, which would take seconds to import.

What a call has cost says the worker, by the same list. This is for what is to be known before: how much to reserve for
a call, and whether a price is known at all.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

from proxy.classification.worker.providers import model_name

_FILE: Final = "model_prices_and_context_window_backup.json"
_FREE: Final = ("ollama/", "ollama_chat/")


def listed(models: Sequence[tuple[str, str]]) -> list[tuple[float, float] | None]:
    """Return for each provider and model what a million tokens in and out cost in US dollars; None when not on it."""
    prices = _read()
    return [_price(provider, model, prices) for provider, model in models]


def _price(provider: str, model: str, prices: Mapping[str, Any]) -> tuple[float, float] | None:
    name = model_name(provider, model)
    if name.startswith(_FREE):  # as the worker has it: a model on a machine of one's own
        return 0.0, 0.0
    for key in (name, name.partition("/")[2]):
        entry = prices.get(key)
        # The same name without a provider may be another provider's model.
        if not isinstance(entry, dict) or (key != name and entry.get("litellm_provider") != provider):
            continue
        inward, outward = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
        if _is_price(inward) and _is_price(outward):
            return inward * 1e6, outward * 1e6
    return None


def _is_price(found: object) -> TypeGuard[float]:
    return isinstance(found, int | float) and math.isfinite(found) and found >= 0


def _read() -> Mapping[str, Any]:
    """Return the list; an empty one when it is not where LiteLLM had it, and then no price is known in advance."""
    found = importlib.util.find_spec("litellm")  # without importing it
    if found is None or found.origin is None:
        return {}
    try:
        prices = json.loads(Path(found.origin).with_name(_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return prices if isinstance(prices, dict) else {}
