"""The model of the settings' choice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from proxy import classifiers
from proxy.alert import Alert
from proxy.app.spending import chosen_budget, price_of
from proxy.classification.breaker import BreakerState, CircuitBreaker, Limits
from proxy.classification.chain import BATCHED, Batching, Chain, Link
from proxy.classification.classification import Classification, Severity
from proxy.classification.classifier import Classifier
from proxy.classification.prompts import Prompts
from proxy.classification.queue import Priority
from proxy.classification.savings import Savings
from proxy.classification.service import Rulebook
from proxy.classification.usage import NO_USAGE, Usage
from proxy.classification.worker.keys import KNOWN, missing_key, needs_key
from proxy.config import Llm, Secret, Settings, closest, variables
from proxy.telemetry import Metrics

if TYPE_CHECKING:
    from proxy.classification.spending import Budget
    from proxy.classification.worker.client import ModelWorker
    from proxy.classification.worker.configuration import ModelConfig
    from proxy.config.models import ModelName

log = structlog.get_logger(__name__)

NO_KEY: Final = "no API key; set LLM_API_KEY, llm.api_key or llm.api_key_file"


class ChosenModel:
    """The model as the rest of the proxy sees it: a classifier or none, and why."""

    def __init__(
        self,
        settings: Settings,
        prompts: Prompts,
        metrics: Metrics,
        rules: Rulebook | None = None,
    ) -> None:
        """By `rules` some alerts are asked about before others, and several in one call. None: neither is done."""
        self._settings = settings
        self._llm = settings.llm
        self._rules = rules
        self.budget: Budget | None = None
        """None: no caps."""
        self.savings = Savings(metrics.saved)
        self._prompts = prompts
        self._metrics = metrics
        self.classifier: Classifier | None = None
        self.key = "not needed" if not self._llm.enabled else "set" if self._llm.api_key else "missing"
        self.state = "disabled"
        self._worker: ModelWorker | None = None
        self._chain: Chain | None = None
        self._links: tuple[Link, ...] = ()
        self._providers: tuple[str, ...] = ()
        self._used: list[Usage] = []
        self._settled = asyncio.Event()
        metrics.model_enabled.set(self._llm.enabled)

    @property
    def name(self) -> str:
        return f"{self._llm.provider}/{self._llm.model}" if self._llm.enabled else "none"

    async def open(self, given: Classifier | None, stack: AsyncExitStack) -> None:
        """Start what the settings ask for. A model that cannot be used is loud, and alerts flow all the same."""
        if given is not None:
            self.classifier = self._chained([self.name], lambda _: given)
            self._enter("ready")
            return
        if not self._llm.enabled:
            return
        base_url = self._llm.base_url
        if not needs_key(self._llm.provider, base_url):
            self.key = "set" if self._llm.api_key else "not needed"
        elif not self._llm.api_key:
            self._enter("unusable")
            log.error("the model cannot be used, the rules decide alone", reason=NO_KEY, model=self.name)
            return
        # Late: the rules need none of it.
        from proxy.classification.worker.client import ModelWorker

        self._prompts.check()  # now: the first use of its template takes longer than alerts should wait
        self.budget = await chosen_budget(self._settings, self._metrics, stack)
        worker = ModelWorker(
            worker_config(self._llm, self._llm.models),
            prompt=self._prompts.render,
            on_state=lambda state: self._enter(state.value),
            on_restart=self._metrics.worker_restarts.inc,
            on_usage=self._count,
            budget=self.budget,
        )
        self._worker = await stack.enter_async_context(worker)
        self.classifier = self._chained(self._names, worker.classifier)

    async def use_key(self, key: Secret) -> bool:
        """Ask from now on with another key. Return whether that is in effect.

        It is not where no model could be asked from the start, for want of a key. And none is not in effect in the
        place of one: a file that is empty for a moment is no wish.
        """
        if self._worker is None or not key:
            return False
        first = self._llm.models[0]
        self._llm = replace(self._llm, api_key=key)
        self.key = "set"
        await self._worker.use_keys(worker_config(self._llm, self._llm.models).models)
        for model, link in zip(self._llm.models, self._links, strict=True):
            if model.door == first.door:
                link.breaker.reset()  # what the old key was refused says nothing about this one
        return True

    async def settled(self) -> None:
        """Return once the model can be asked, or its worker has failed to start; at once when none is to be asked."""
        if self._worker is not None:
            await self._settled.wait()

    def status(self) -> dict[str, Any]:
        why = self._worker.why_unusable if self._worker else ""
        return {
            "enabled": self._llm.enabled,
            "name": self.name,
            "key": self.key,
            "state": self.state,
            "why": why,
            "calls": {"running": self._chain.running, "waiting": self._chain.waiting} if self._chain else None,
            "models": [
                {
                    "name": link.name,
                    "breaker": link.breaker.state.value,
                    "why": link.breaker.why,
                    "last_error": link.last_error,
                    "requests": used.requests,
                    "tokens": {"input": used.prompt_tokens, "output": used.completion_tokens},
                    "cost_usd": used.cost_usd,
                }
                for link, used in zip(self._links, self._used, strict=True)
            ],
        }

    @property
    def _names(self) -> list[str]:
        return [self.name, *map(str, self._llm.fallbacks)]

    def _chained(self, names: list[str], classifier: Callable[[int], Classifier]) -> Chain:
        """Return the models with `names` as one; `classifier` gives the n-th."""
        self._links = tuple(
            Link(name, classifier(n), self._breaker(n), partial(self._affordable, n)) for n, name in enumerate(names)
        )
        # Only those that are asked: the label stays as short as the configuration.
        self._providers = tuple(name.partition("/")[0] for name in names)
        self._used = [NO_USAGE] * len(names)
        for n, link in enumerate(self._links):
            self._metrics.breaker_state.labels(n).set_function(partial(_state_of, link.breaker))
            self._metrics.breaker_opened.labels(n)
            self._count(n, NO_USAGE)
        chain = Chain(
            self._links,
            timeout=self._llm.timeout,
            concurrency=self._llm.concurrency,
            priority=partial(priority_of, self._rules) if self._rules else lambda _: Priority.NORMAL,
            batching=self._batching(),
            on_attempt=self._attempted,
            on_drop=lambda priority: self._metrics.calls_dropped.labels(priority.name.lower()).inc(),
        )
        self._chain = chain
        for priority in Priority:
            self._metrics.calls_dropped.labels(priority.name.lower())
        self._metrics.calls_waiting.set_function(lambda: chain.waiting)
        self._metrics.calls_running.set_function(lambda: chain.running)
        return chain

    def _batching(self) -> Batching | None:
        """Return how alerts share calls; None when each has its own, as those have that a classifier of the user's own
        is asked about."""
        size = self._llm.batch_size
        if size == 1 or self._worker is None or self._rules is None:
            return None
        if any(one.provider == classifiers.PROVIDER for one in self._llm.models):
            return None
        for outcome in BATCHED:
            self._metrics.batched_verdicts.labels(outcome)
        return Batching(
            size,
            kind=self._prompts.frame,
            holds=partial(said_by_rules, self._rules),
            on_verdict=lambda outcome: self._metrics.batched_verdicts.labels(outcome).inc(),
        )

    def _attempted(self, model: int, outcome: str, seconds: float) -> None:
        self._metrics.model_attempts.labels(self._providers[model], outcome).observe(seconds)

    def _affordable(self, model: int) -> bool:
        return self.budget is None or self.budget.affords(model)

    def _count(self, model: int, usage: Usage, alerts: int = 1) -> None:
        self._used[model] += usage
        self.savings.made(usage, alerts)
        self._metrics.used(
            self._providers[model],
            requests=usage.requests,
            tokens={"input": usage.prompt_tokens or 0, "output": usage.completion_tokens or 0},
            usd=usage.cost_usd or 0.0,
        )

    def _breaker(self, n: int) -> CircuitBreaker:
        given = self._llm.circuit_breaker
        limits = Limits(
            max_failures=given.max_failures,
            failure_rate=given.failure_rate,
            slow_rate=given.slow_rate,
            slow_call=given.slow_call,
            min_calls=given.min_calls,
            reset_timeout=given.reset_timeout,
        )

        def changed(was: BreakerState, now: BreakerState) -> None:
            # A probe that fails is no news: an outage is one line at its begin and one at its end.
            link = self._links[n]
            if was is BreakerState.CLOSED:
                self._metrics.breaker_opened.labels(n).inc()
                log.warning(
                    "a model is not asked for a while: too many of its calls failed or were slow",
                    model=link.name,
                    reason=link.breaker.why,
                    error=link.last_error,
                    seconds=link.breaker.pause.total_seconds(),
                )
            elif now is BreakerState.CLOSED:
                log.info("a model is asked again", model=link.name)

        return CircuitBreaker(limits if given.enabled else None, on_change=changed)

    def _enter(self, state: str) -> None:
        self.state = state
        if state not in {"starting", "stopped"}:
            self._settled.set()
        self._metrics.model_usable.set(state == "ready")
        if state == "ready":
            # What failed while the worker loaded, or died, says nothing about the providers. A classifier of the user's
            # own may be what it died of, and would take it with it for ever.
            for link, provider in zip(self._links, self._providers, strict=True):
                if provider != classifiers.PROVIDER:
                    link.breaker.reset()


def worker_config(llm: Llm, models: Sequence[ModelName]) -> ModelConfig:
    """Return what a worker is to know that asks `models`, whose addresses are settled."""
    from proxy.classification.worker.configuration import ModelConfig
    from proxy.classification.worker.protocol import Model

    key, first = llm.api_key.reveal(), llm.models[0]
    return ModelConfig(
        models=[
            # Another provider's key is its own, which LiteLLM finds in the environment.
            Model(
                one.provider,
                one.model,
                key if one.door == first.door else "",
                one.base_url,
                price_of(one, llm.prices),
            )
            for one in models
        ],
        timeout=llm.timeout,
        max_retries=llm.max_retries,
        max_tokens=llm.max_tokens,
        stream=llm.stream,
        # All, and not only the secret ones: an address may hold a password. The child is told what it needs.
        withheld=variables(),
    )


def doubts(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield why models that the settings name could not be asked, as far as that is known without asking."""
    llm = settings.llm
    for n, model in enumerate(llm.models if llm.enabled else ()):
        where = f"llm.fallbacks: {model.provider}/{model.model}" if n else "llm"
        if (near := closest(model.provider, KNOWN)) and model.provider not in KNOWN:
            yield f"{where}: the provider {model.provider}; did you mean {near}?"
        if model.provider == llm.provider and llm.api_key:
            continue
        if n == 0 and needs_key(model.provider, model.base_url):
            yield NO_KEY
        elif n and (names := missing_key(model.provider, model.base_url, environ)):
            yield f"{where}: no API key; set {names}"


def _state_of(breaker: CircuitBreaker) -> float:
    return breaker.state.number


def priority_of(rules: Rulebook, alert: Alert) -> Priority:
    """Return whether `alert` is asked about before others: its author calls it critical."""
    return Priority.CRITICAL if rules.author_severity(alert) is Severity.CRITICAL else Priority.NORMAL


def said_by_rules(rules: Rulebook, alert: Alert, verdict: Classification) -> bool:
    """Return whether a verdict has the labels that `alert` would have without a model.

    A verdict from a call about several alerts is used as far as that: an alert that talks a model into something could
    else choose its neighbours' labels.
    """
    ruled = rules.classify(alert)
    return (verdict.severity, verdict.category) == (ruled.severity, ruled.category)
