"""The chosen model: its settings reach the breaker, and what the breaker does is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from fakes import FakeModel, an_alert, body, exchange, post, posted, settings, verdict
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from workers import FakeProcess, children

from proxy import app, config
from proxy.app.model import ChosenModel, said_by_rules
from proxy.app.prompting import chosen_prompts
from proxy.classification import chain
from proxy.classification.classification import Category, Confidence, Severity
from proxy.classification.rules import Rules
from proxy.classification.worker import client
from proxy.classification.worker.protocol import Configure
from proxy.config.catalog import CATALOG
from proxy.config.kinds import Secret
from proxy.config.models import ModelNameKind
from proxy.errors import ClassifierOpen, ClassifierRejected, ClassifierTimeout, ClassifierUnavailable
from proxy.telemetry import Metrics

named = ModelNameKind().parse


def _model(given, metrics):
    return ChosenModel(given, chosen_prompts(given), metrics)


class Chosen:
    def __init__(self, model: FakeModel, **flags: str | list[str]) -> None:
        self.registry = CollectorRegistry()
        self.fake = model
        given = {f"llm__circuit_breaker__{name}": value for name, value in flags.items()}
        self.model = _model(settings("http://127.0.0.1:9", llm__model="m", **given), Metrics(self.registry))

    async def ask(self, times: int = 1, *, about: str = "") -> list[str]:
        """Ask about alerts of different names, unless `about` names them all, and return how the calls ended."""
        assert self.model.classifier is not None
        ended = []
        for _ in range(times):
            try:
                await self.model.classifier.classify(an_alert(about or f"A{len(self.fake.asked)}"))
            except (ClassifierOpen, ClassifierRejected, ClassifierUnavailable) as exc:
                ended.append(exc.reason)
            else:
                ended.append("ok")
        return ended

    @property
    def breaker(self) -> str:
        [model] = self.model.status()["models"]
        return model["breaker"]

    async def due(self) -> None:
        async with asyncio.timeout(10):
            while self.breaker == "open":
                await asyncio.sleep(0.005)

    def series(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"aiproxy_model_breaker_{name}", {"position": "0"})


@pytest.fixture
async def chosen() -> AsyncIterator[Callable[..., object]]:
    async with AsyncExitStack() as stack:

        async def choose(model: FakeModel, **flags: str | list[str]) -> Chosen:
            found = Chosen(model, **flags)
            await found.model.open(model, stack)
            return found

        yield choose


async def test_by_default_five_failures_open_it(chosen):
    one = await chosen(FakeModel([ClassifierUnavailable("x")]))
    assert await one.ask(6) == ["unavailable"] * 5 + ["breaker_open"]
    assert len(one.fake.asked) == 5


@pytest.mark.parametrize(
    ("flags", "answers", "why"),
    [
        ({"max_failures": "2"}, "xx", "failures in a row: 2"),
        ({"failure_rate": "25", "min_calls": "4"}, "...x", "failed: 1 of 4 calls"),
        ({"slow_call": "200ms", "slow_rate": "25", "min_calls": "4"}, "...s", "slow: 1 of 4 calls"),
    ],
)
async def test_its_settings_reach_the_breaker(chosen, flags, answers, why):
    class Model(FakeModel):
        async def classify(self, alert, early=lambda _: None, seconds=None):
            kind = answers[len(self.asked)]
            await asyncio.sleep(0.25 if kind == "s" else 0)
            return await super().classify(alert)

    model = Model([ClassifierUnavailable("x") if kind == "x" else verdict() for kind in answers])
    one = await chosen(model, reset_timeout="1h", **flags)
    await one.ask(len(answers) - 1)
    assert one.breaker == "closed"
    await one.ask()
    [status] = one.model.status()["models"]
    assert (status["breaker"], status["why"]) == ("open", why)


async def test_switched_off_it_never_opens(chosen):
    one = await chosen(FakeModel([ClassifierUnavailable("x")]), enabled="false")
    assert await one.ask(50) == ["unavailable"] * 50


async def test_an_outage_is_one_warning_and_its_end_one_line(chosen):
    one = await chosen(
        FakeModel([ClassifierUnavailable("APIConnectionError")] * 4 + [verdict()]),
        max_failures="2",
        reset_timeout="5ms",
    )
    with capture_logs() as said:
        await one.ask(2)
        assert [entry["log_level"] for entry in said] == ["warning"]
        assert (said[0]["reason"], said[0]["error"]) == ("failures in a row: 2", "unavailable: APIConnectionError")
        assert (said[0]["model"], said[0]["seconds"]) == ("none", 0.005)
        for _ in range(3):
            await one.due()
            await one.ask()
    assert [(entry["log_level"], entry["event"]) for entry in said[1:]] == [("info", "a model is asked again")]
    assert (one.breaker, len(one.fake.asked)) == ("closed", 5)


async def test_metrics_say_what_the_breaker_does(chosen):
    one = await chosen(
        FakeModel([ClassifierUnavailable("x")] * 3 + [verdict()]), max_failures="2", reset_timeout="50ms"
    )
    assert (one.series("state"), one.series("opened_total")) == (0, 0)
    await one.ask(2)
    assert (one.series("state"), one.series("opened_total")) == (2, 1)
    await one.due()
    assert one.series("state") == 1
    await one.ask()
    assert (one.series("state"), one.series("opened_total")) == (2, 1)
    await one.due()
    await one.ask()
    assert (one.series("state"), one.series("opened_total")) == (0, 1)


async def test_one_alert_that_is_refused_does_not_open_it_and_many_do(chosen):
    one = await chosen(FakeModel([ClassifierRejected("x")]))
    assert await one.ask(20, about="Refused") == ["rejected"] * 20
    assert await one.ask(5) == ["rejected"] * 4 + ["breaker_open"]


async def test_a_worker_that_is_ready_again_is_asked_at_once(chosen):
    one = await chosen(FakeModel([ClassifierUnavailable("x")] * 5 + [verdict()]))
    assert await one.ask(6) == ["unavailable"] * 5 + ["breaker_open"]
    one.model._enter("restarting")
    assert one.breaker == "open"
    one.model._enter("ready")
    assert await one.ask() == ["ok"]


class Unstarted:
    """A model worker that is not started, with what it was given."""

    def __init__(self, config, **options):
        self.config, self.options = config, options
        self.why_unusable = ""
        self.asked = []

    def classifier(self, n):
        return FakeModel()

    async def __aenter__(self):
        built.append(self)
        return self

    async def __aexit__(self, *_):
        built.clear()


built: list[Unstarted] = []


@pytest.fixture
async def opened(monkeypatch):
    monkeypatch.setattr(client, "ModelWorker", Unstarted)
    async with AsyncExitStack() as stack:

        async def open_(**flags):
            given = config.load(
                environ={"LLM_API_KEY": "sk-of-the-first"},
                flags={"alertmanager.url": ["http://127.0.0.1:9"], "llm.enabled": ["true"]}
                | {name.replace("__", "."): value for name, value in flags.items()},
            ).settings
            prompts = Checked(chosen_prompts(given))
            model = ChosenModel(given, prompts, Metrics(CollectorRegistry()))
            await model.open(None, stack)
            return built[-1], prompts

        yield open_


class Checked:
    """Prompts that count how often they were checked."""

    def __init__(self, prompts):
        self.render = prompts.render
        self._prompts = prompts
        self.checks = 0

    def check(self):
        self._prompts.check()
        self.checks += 1


async def test_the_key_goes_to_models_of_its_own_provider_alone(opened):
    worker, _ = await opened(
        llm__provider=["anthropic"],
        llm__model=["claude-haiku-4-5"],
        llm__base_url=["http://a.example"],
        llm__fallbacks=["openai/gpt-4o", "anthropic/claude-opus-4-5", "openai/m@http://b.example", "ollama/llama3.2"],
    )
    assert [(one.provider, one.model, one.api_key, one.base_url) for one in worker.config.models] == [
        ("anthropic", "claude-haiku-4-5", "sk-of-the-first", "http://a.example"),
        ("openai", "gpt-4o", "", None),
        ("anthropic", "claude-opus-4-5", "sk-of-the-first", "http://a.example"),
        ("openai", "m", "", "http://b.example"),
        ("ollama", "llama3.2", "", None),
    ]


async def test_the_child_is_given_no_variable_of_a_setting(opened):
    worker, _ = await opened()
    assert {setting.variable for setting in CATALOG} == set(worker.config.withheld)


async def test_answers_are_streamed_unless_they_are_not_to_be(opened):
    assert [(await opened(**flags))[0].config.stream for flags in ({}, {"llm__stream": ["false"]})] == [True, False]


async def test_the_template_is_tried_before_the_first_alert_waits_for_it(opened):
    worker, prompts = await opened()
    assert (prompts.checks, worker.options["prompt"]) == (1, prompts.render)


async def test_a_classifier_of_ones_own_that_takes_the_worker_with_it_is_left_alone():
    given = settings("http://127.0.0.1:9", llm__enabled="true", llm__provider="classifier", llm__model="own")
    one = _model(given, Metrics(CollectorRegistry()))
    async with AsyncExitStack() as stack:
        await one.open(FakeModel([ClassifierUnavailable("the model worker was lost during the call")]), stack)
        for _ in range(5):
            with pytest.raises(ClassifierUnavailable):
                await one.classifier.classify(an_alert())
            one._enter("restarting")
            one._enter("ready")
        with pytest.raises(ClassifierOpen):
            await one.classifier.classify(an_alert())


async def test_a_call_has_the_configured_time(alertmanager, monkeypatch):
    monkeypatch.setattr(chain, "GRACE", 0.0)
    one = _model(settings(alertmanager.url, llm__timeout="10ms"), Metrics(CollectorRegistry()))
    async with AsyncExitStack() as stack:
        await one.open(FakeModel([None]), stack)
        with pytest.raises(ClassifierTimeout):
            await asyncio.wait_for(one.classifier.classify(an_alert()), 10)


async def test_so_many_calls_as_configured_run_at_once(alertmanager):
    model = FakeModel([None])
    given = settings(
        alertmanager.url,
        enrichment__mode="enriched",
        enrichment__budget="1ms",
        llm__concurrency="2",
    )
    async with app.build(given, model=model) as running:
        await exchange(running.data_port, post(body(*(posted(f"A{n}") for n in range(5)))))
        async with asyncio.timeout(10):
            while len(model.asked) < 2:
                await asyncio.sleep(0.005)
        assert len(model.asked) == 2
        model.release.set()
        async with asyncio.timeout(10):
            while len(model.asked) < 5:
                await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("chosen", "keys"),
    [
        (("openai", "a", ["openai/b", "anthropic/c"]), ["sk-1", "sk-1", ""]),
        (("classifier", "own/a", ["classifier/own/b", "classifier/other", "openai/c"]), ["sk-1", "sk-1", "", ""]),
    ],
)
async def test_a_key_is_for_the_provider_or_the_one_classifier_that_it_was_given_to(chosen, keys, monkeypatch):
    told: list[Configure] = []

    class Child(FakeProcess):
        def send(self, message):
            told.append(message)

    children(monkeypatch, lambda: Child(stays=True))
    provider, model, fallbacks = chosen
    given = settings("http://127.0.0.1:9", llm__enabled="true", llm__provider=provider, llm__model=model)
    given = replace(given, llm=replace(given.llm, api_key=Secret("sk-1"), fallbacks=tuple(map(named, fallbacks))))
    async with AsyncExitStack() as stack:
        await _model(given, Metrics(CollectorRegistry())).open(None, stack)
        async with asyncio.timeout(10):
            while not told:
                await asyncio.sleep(0.005)
    assert [one.api_key for one in told[0].models] == keys


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        pytest.param({}, True, id="both labels"),
        pytest.param(
            {"summary": "Anything.", "confidence": Confidence.LOW}, True, id="another text, and another confidence"
        ),
        pytest.param({"severity": Severity.NOISE}, False, id="another severity"),
        pytest.param({"category": Category.SECURITY}, False, id="another category"),
    ],
)
def test_of_a_call_about_several_the_labels_hold_that_the_rules_have_too(said, holds):
    rules, alert = Rules.shipped(), an_alert("DiskFull", severity="critical")
    ruled = rules.classify(alert)
    assert (ruled.severity, ruled.category) == (Severity.CRITICAL, Category.STORAGE)
    assert said_by_rules(rules, alert, replace(ruled, **said)) is holds
