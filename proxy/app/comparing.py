"""Asks several models about the same classes of alerts: as a proxy would ask them, each by itself.

Nothing is remembered and nothing stands in for anything: what a model says, and how it fails, is what is wanted.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from proxy import classifiers
from proxy.alert import Alert
from proxy.app.model import worker_config
from proxy.app.prompting import chosen_prompts
from proxy.classification.classes import by_class
from proxy.classification.classification import Classification
from proxy.classification.classifier import Classifier, Early, unheard
from proxy.classification.comparison import Call, Spent
from proxy.classification.rules import Rules
from proxy.classification.usage import Usage
from proxy.classification.worker.keys import KNOWN, missing_key, refuses_for_sure
from proxy.classification.worker.listed import may_be_known
from proxy.config import Settings, closest
from proxy.config.models import ModelName, ModelNameKind
from proxy.errors import ClassifierError, ClassifierUnusable

if TYPE_CHECKING:
    from proxy.classification.worker.client import ModelWorker
    from proxy.classification.worker.configuration import ModelConfig, WorkerState
    from proxy.classification.worker.protocol import Model

RULES: Final = "rules"
"""What the rules are called among the models."""
_FOR_NOTHING: Final = Usage(0, 0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class Subject:
    """A class of alerts that the models are asked about."""

    alert: Alert
    """The first one of it: the one that is shown."""
    alerts: int
    """How many there are."""


def read_models(text: str) -> list[ModelName | None]:
    """Return the models that a list like `openai/gpt-4o,rules` names; None for the rules.

    Raises ValueError with a message for the operator.
    """
    found = [_model(name.strip()) for name in text.split(",")]
    for n, one in enumerate(found):
        if one in found[:n]:
            raise ValueError(f"{one or RULES} is named twice")
    return found


def _model(name: str) -> ModelName | None:
    if name == RULES:
        return None
    model = ModelNameKind().parse(name)
    known = KNOWN | {classifiers.PROVIDER}
    near = closest(model.provider, known)
    if near and model.provider not in known and not may_be_known(model.provider):
        raise ValueError(f"unknown provider {model.provider!r}; did you mean {near}?")
    return model


def subjects(settings: Settings, alerts: Sequence[Alert]) -> list[Subject]:
    """Return the classes of `alerts`, in the order in which they come first."""
    return [Subject(alerts[places[0]], len(places)) for places in by_class(alerts, settings.llm.object_labels)]


class Comparing:
    """Asks, and keeps what is known so far for whoever is impatient."""

    def __init__(
        self,
        settings: Settings,
        rules: Rules,
        models: Sequence[ModelName | None],
        about: Sequence[Subject],
        repeat: int,
    ) -> None:
        """Raise ConfigError (the template)."""
        self._llm = settings.llm
        self._rules = rules
        self._prompts = chosen_prompts(settings)
        self._about = about
        self._repeat = repeat
        self.on_call: Callable[[], object] = lambda: None
        """Hears that another call has ended."""
        named = tuple(model for model in models if model is not None)
        # As fallbacks they share an address and a key with the configured model where that is theirs, too.
        settled = iter(replace(self._llm, fallbacks=named).models[1:])
        self._models = [None if model is None else next(settled) for model in models]
        self.planned = len(models) * len(about) * repeat
        self.calls: list[Call] = []
        """Those that have ended, whatever became of them."""
        self.spent = [Spent() for _ in models]

    async def run(self) -> None:
        """Ask each model about each class, so often, `llm.concurrency` calls at once. Cancelling it ends it soon."""
        async with AsyncExitStack() as stack:
            asked = await self._open(stack)
            # Once all of it, then again: who is interrupted knows something of each.
            plan = iter(
                [
                    (model, subject)
                    for _ in range(self._repeat)
                    for subject in range(len(self._about))
                    for model in range(len(self._models))
                ]
            )
            async with asyncio.TaskGroup() as lanes:
                for _ in range(self._llm.concurrency):
                    lanes.create_task(self._ask_in_turn(asked, plan))

    async def _open(self, stack: AsyncExitStack) -> list[Classifier]:
        """Return what asks each model, once it can be asked or there is no hope that it will."""
        asked: list[Classifier] = [_ByRules(self._rules, partial(self._used, n)) for n in range(len(self._models))]
        named = [n for n, model in enumerate(self._models) if model is not None]
        config = worker_config(self._llm, [model for model in self._models if model is not None])
        owners, models = [], []
        for n, model in zip(named, config.models, strict=True):
            if why := self._keyless(model):
                asked[n] = _Unusable(why)
            else:
                owners.append(n)
                models.append(model)
        if models:
            worker = await self._worker(replace(config, models=models), owners, stack)
            for place, n in enumerate(owners):
                asked[n] = worker.classifier(place)
        return asked

    def _keyless(self, model: Model) -> str:
        """Return why a model cannot be asked that lacks its key; empty when it does not, or nobody knows.

        The worker finds out the same, after it has loaded.
        """
        names = "" if model.api_key else missing_key(model.provider, model.base_url, os.environ)
        if not names or not refuses_for_sure(model.provider, model.base_url):
            return ""
        return f"no API key; set {'LLM_API_KEY or ' if model.provider == self._llm.provider else ''}{names}"

    async def _worker(self, config: ModelConfig, owners: Sequence[int], stack: AsyncExitStack) -> ModelWorker:
        from proxy.classification.worker.client import ModelWorker  # late: the rules need none of it

        settled = asyncio.Event()

        def entered(state: WorkerState) -> None:
            if state.value != "starting":
                settled.set()

        self._prompts.check()
        worker = ModelWorker(
            config,
            prompt=self._prompts.render,
            on_state=entered,
            on_usage=lambda place, usage, _alerts: self._used(owners[place], usage),
        )
        await stack.enter_async_context(worker)
        await settled.wait()  # else the first calls would spend their time on a worker that loads
        return worker

    def _used(self, model: int, usage: Usage) -> None:
        self.spent[model] = self.spent[model].plus(usage)

    async def _ask_in_turn(self, asked: Sequence[Classifier], plan: Iterator[tuple[int, int]]) -> None:
        for model, subject in plan:
            begun, verdict, reason, error = time.monotonic(), None, "", ""
            try:
                verdict = await asked[model].classify(self._about[subject].alert)
            except ClassifierError as exc:
                reason, error = exc.reason, str(exc)
            except Exception as exc:  # noqa: BLE001 # a bug in one call is a result like any other
                reason, error = "bug", type(exc).__name__  # without its text, which may hold a key
            self.calls.append(Call(model, subject, time.monotonic() - begun, verdict, reason, error))
            self.on_call()


@dataclass(frozen=True, slots=True)
class _ByRules:
    """A Classifier."""

    _rules: Rules
    _on_usage: Callable[[Usage], None]

    async def classify(self, alert: Alert, early: Early = unheard, seconds: float | None = None) -> Classification:
        self._on_usage(_FOR_NOTHING)
        return self._rules.classify(alert)


@dataclass(frozen=True, slots=True)
class _Unusable:
    """A Classifier that never has a verdict."""

    _why: str

    async def classify(self, alert: Alert, early: Early = unheard, seconds: float | None = None) -> Classification:
        raise ClassifierUnusable(self._why)
