"""Verdicts for a command: asked for once, as a proxy would, and nothing is left behind.

No cache, so that no store is opened; no caps, which are those of a running proxy; and no budget of time but the
model's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from prometheus_client import CollectorRegistry

from proxy.alert import Alert
from proxy.app.model import NO_KEY, ChosenModel
from proxy.app.prompting import chosen_prompts
from proxy.app.rules import CurrentRules
from proxy.app.service import chosen_service
from proxy.classification.allowance import WaitingAllowance
from proxy.classification.classes import by_class
from proxy.classification.rules import Rules
from proxy.classification.service import Verdict
from proxy.config import Settings
from proxy.config.spending import Budget
from proxy.errors import ClassifierUnusable
from proxy.telemetry import Metrics

_PATIENCE: Final = 30 * 86_400.0
"""Seconds, and rather more than any number of calls takes: each of them has its own end."""
_AT_ONCE: Final = 250
"""Classes that are asked about together. Where more wait than a proxy lets wait, the oldest would go to the rules."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What asking has come to."""

    verdicts: Sequence[Verdict]
    """One for each alert, in their order, with its whole text."""
    errors: Mapping[str, str]
    """For each model whose last call failed, how; also where another one answered in its place."""


Ask = Callable[[Sequence[Alert]], Awaitable[Asked]]


@asynccontextmanager
async def one_off(settings: Settings, rules: Rules) -> AsyncIterator[Ask]:
    """Yield what asks the model of `settings`, and `rules` where it says nothing.

    Raises ConfigError (the template).
    """
    settings = replace(settings, llm=replace(settings.llm, budget=Budget()))
    async with AsyncExitStack() as stack:
        metrics, current, prompts = Metrics(CollectorRegistry()), CurrentRules(rules), chosen_prompts(settings)
        model = ChosenModel(settings, prompts, metrics, current)
        await model.open(None, stack)
        allowance = WaitingAllowance(_PATIENCE)
        service = chosen_service(settings, current, prompts, model, metrics, cache=None, allowance=allowance)
        stack.push_async_callback(service.close)
        await model.settled()  # else the first calls would spend their time on a worker that loads

        async def ask(alerts: Sequence[Alert]) -> Asked:
            found: dict[int, Verdict] = {}
            for places in _parts(alerts, settings):
                allowance.give_back(_PATIENCE)
                verdicts = await service.classify([alerts[n] for n in places], _PATIENCE)
                found.update(zip(places, [await _whole(verdict) for verdict in verdicts], strict=True))
            errors = {one["name"]: one["last_error"] for one in model.status()["models"] if one["last_error"]}
            return Asked([_explained(found[n], model) for n in range(len(alerts))], errors)

        yield ask


def _parts(alerts: Sequence[Alert], settings: Settings) -> list[list[int]]:
    """Return the places of `alerts` in parts that are asked about one after the other; a class is in one of them."""
    groups = by_class(alerts, settings.llm.object_labels)
    return [
        [n for group in groups[first : first + _AT_ONCE] for n in group] for first in range(0, len(groups), _AT_ONCE)
    ]


async def _whole(verdict: Verdict) -> Verdict:
    """Return `verdict` with the text of an answer whose labels came first."""
    later = await verdict.later if verdict.later is not None else None
    if later is None or verdict.now is None:
        return verdict
    return replace(
        verdict, now=replace(verdict.now, summary=later.summary, recommendations=later.recommendations), later=None
    )


def _explained(verdict: Verdict, model: ChosenModel) -> Verdict:
    """Return `verdict`, with the reason why the model that was wanted is not there."""
    if model.classifier is not None:
        return verdict
    return replace(verdict, reason=ClassifierUnusable.reason, error=NO_KEY)
