"""What is counted of the models and of the POSTs that they hold up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest
from fakes import FakeModel, an_alert, body, exchange, post, posted, settings, status_of, verdict
from posting import Proxy
from prometheus_client import CollectorRegistry
from workers import FakeProcess, children

from proxy import app, config
from proxy.app.model import ChosenModel
from proxy.app.prompting import chosen_prompts
from proxy.classification.usage import Usage
from proxy.classification.worker.protocol import Answered, Failed, Ready
from proxy.errors import ClassifierError, ClassifierInvalidAnswer, ClassifierOpen
from proxy.telemetry import ADDED, Metrics

MEMBERS = {"severity": "info", "category": "storage", "confidence": "high", "summary": "x", "recommendations": []}
OPENAI, OLLAMA = Usage(2, 480, 90, 0.25), Usage(1, 100, 10, None)
FLAGS = {
    "llm.enabled": ["true"],
    "llm.provider": ["openai"],
    "llm.model": ["gpt-4o"],
    "llm.fallbacks": ["ollama/llama3.2", "openai/gpt-4o-mini"],
    "alertmanager.url": ["http://127.0.0.1:9"],
}


class Asked:
    """Models that are asked through a worker whose child says what the test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.registry = CollectorRegistry()
        given = config.load(environ={"LLM_API_KEY": "sk-1"}, flags=FLAGS).settings
        self.model = ChosenModel(given, chosen_prompts(given), Metrics(self.registry))
        self.answers: list[Usage | tuple[str, Usage]] = []
        """In turn; with a reason it is a failure."""
        children(monkeypatch, lambda: FakeProcess(Ready("1.2.3", ("", "", "")), stays=True, answer=self._answer))

    def _answer(self, asked):
        said = self.answers.pop(0)
        if isinstance(said, Usage):
            return [Answered(asked.call, MEMBERS, said)]
        return [Failed(asked.call, said[0], "x", said[1])]

    async def ask(self, *answers: Usage | tuple[str, Usage]) -> None:
        self.answers += answers
        assert self.model.classifier is not None
        await self.model.classifier.classify(an_alert())

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"aiproxy_model_{name}", labels)

    def attempts(self) -> Mapping[tuple[str, str], float]:
        return {
            (sample.labels["provider"], sample.labels["outcome"]): sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "aiproxy_model_attempt_duration_seconds_count"
        }


@pytest.fixture
async def asked(monkeypatch) -> AsyncIterator[Asked]:
    async with AsyncExitStack() as stack:
        one = Asked(monkeypatch)
        await one.model.open(None, stack)
        yield one


async def test_before_the_first_call_each_provider_is_at_nothing(asked):
    for provider in ("openai", "ollama"):
        assert asked.value("requests_total", provider=provider) == 0
        assert asked.value("tokens_total", provider=provider, direction="input") == 0
        assert asked.value("cost_usd_total", provider=provider) == 0
    assert asked.value("requests_total", provider="anthropic") is None
    assert (asked.attempts(), asked.value("calls_waiting"), asked.value("calls_running")) == ({}, 0, 0)


async def test_what_calls_took_is_counted_by_provider_whatever_became_of_them(asked):
    await asked.ask(OPENAI)
    await asked.ask(("unavailable", OPENAI), OLLAMA)
    await asked.ask(("unavailable", OPENAI), ("timeout", OLLAMA), OPENAI)
    assert asked.value("requests_total", provider="openai") == 4 * 2
    assert asked.value("requests_total", provider="ollama") == 2
    assert asked.value("tokens_total", provider="openai", direction="input") == 4 * 480
    assert asked.value("tokens_total", provider="openai", direction="output") == 4 * 90
    assert asked.value("tokens_total", provider="ollama", direction="output") == 20
    assert asked.value("cost_usd_total", provider="openai") == 1.0
    assert asked.value("cost_usd_total", provider="ollama") == 0
    assert asked.attempts() == {
        ("openai", "ok"): 2,
        ("openai", "unavailable"): 2,
        ("ollama", "ok"): 1,
        ("ollama", "timeout"): 1,
    }


async def test_the_status_has_what_each_model_took(asked):
    await asked.ask(("unavailable", OPENAI), ("timeout", OLLAMA), OPENAI)
    await asked.ask(("unavailable", Usage(requests=1)), OLLAMA)
    taken = [
        (model["name"], model["requests"], model["tokens"], model["cost_usd"])
        for model in asked.model.status()["models"]
    ]
    assert taken == [
        ("openai/gpt-4o", 3, {"input": 480, "output": 90}, 0.25),
        ("ollama/llama3.2", 2, {"input": 200, "output": 20}, None),
        ("openai/gpt-4o-mini", 2, {"input": 480, "output": 90}, 0.25),
    ]


async def test_attempts_that_end_otherwise_are_counted_and_calls_without_one_are_not(asked):
    with pytest.raises(ClassifierInvalidAnswer):
        await asked.ask(("invalid_answer", OPENAI))
    for _ in range(5):
        with pytest.raises(ClassifierError):
            await asked.ask(("unavailable", OPENAI), ("unavailable", OLLAMA), ("unavailable", OPENAI))
    with pytest.raises(ClassifierOpen):
        await asked.ask()
    assert asked.attempts() == {
        ("openai", "invalid_answer"): 1,
        ("openai", "unavailable"): 10,
        ("ollama", "unavailable"): 5,
    }


async def test_calls_that_run_and_that_wait_are_counted_while_they_do(alertmanager):
    model = FakeModel([None])
    given = settings(alertmanager.url, enrichment__mode="enriched", enrichment__budget="1ms", llm__concurrency="2")
    async with app.build(given, model=model) as running:
        proxy = Proxy(alertmanager, running)
        await exchange(running.data_port, post(body(*(posted(f"A{n}") for n in range(5)))))
        async with asyncio.timeout(10):
            while len(model.asked) < 2:
                await asyncio.sleep(0.005)
        assert await proxy.metric("aiproxy_model_calls_running") == 2
        assert await proxy.metric("aiproxy_model_calls_waiting") == 3
        model.release.set()
        async with asyncio.timeout(10):
            while await proxy.metric('aiproxy_model_attempt_duration_seconds_count{outcome="ok",provider="none"}') < 5:
                await asyncio.sleep(0.005)
        assert await proxy.metric("aiproxy_model_calls_running") == 0
        assert await proxy.metric("aiproxy_model_calls_waiting") == 0


async def test_the_share_of_posts_that_waited_can_be_told(alertmanager):
    model = FakeModel([verdict()])
    async with app.build(settings(alertmanager.url, enrichment__mode="enriched"), model=model) as running:
        proxy = Proxy(alertmanager, running)
        await proxy.post(posted("New"))
        await proxy.post(posted("New"))
        await proxy.post(posted("New", instance="other"))
        await proxy.post(posted("Newer"))
        assert await proxy.metric("aiproxy_post_added_seconds_count") == 4
        assert await proxy.metric("aiproxy_post_waited_seconds_count") == 2


async def test_what_is_added_to_a_post_is_at_least_its_wait(alertmanager):
    given = settings(alertmanager.url, enrichment__mode="enriched", enrichment__budget="300ms")
    async with app.build(given, model=FakeModel([None])) as running:
        proxy = Proxy(alertmanager, running)
        await proxy.post(posted("Slow"))
        waited = await proxy.metric("aiproxy_post_waited_seconds_sum")
        assert (
            await proxy.metric("aiproxy_post_added_seconds_sum") >= waited >= 0.29
        )  # a clock of the loop may be a tick early
        assert await proxy.metric('aiproxy_post_added_seconds_bucket{le="0.25"}') == 0


async def test_what_alertmanager_takes_is_not_added_by_the_proxy(alertmanager):
    alertmanager.respond = lambda _: None
    async with app.build(settings(alertmanager.url, enrichment__budget="1ms", alertmanager__timeout="1s")) as running:
        assert status_of(await exchange(running.data_port, post(body(posted())))) == 504
        proxy = Proxy(alertmanager, running)
        assert await proxy.metric("aiproxy_post_added_seconds_count") == 1
        assert await proxy.metric('aiproxy_post_added_seconds_bucket{le="0.5"}') == 1


@pytest.mark.parametrize("mode", ["transparent", "transparent_with_recommendations"])
async def test_every_post_that_was_read_is_counted_in_every_mode_and_other_requests_are_not(alertmanager, mode):
    async with app.build(settings(alertmanager.url, enrichment__mode=mode), model=FakeModel([None])) as running:
        proxy = Proxy(alertmanager, running)
        await proxy.post(posted())
        await exchange(running.data_port, post(b"not json"))
        await exchange(running.data_port, b"GET /api/v2/silences HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert await proxy.metric("aiproxy_post_added_seconds_count") == 2
        assert await proxy.metric("aiproxy_post_waited_seconds_count") == 0


def test_the_buckets_tell_a_millisecond_from_a_budget():
    assert (ADDED[0], 3 in ADDED) == (0.001, True)
    assert all(upper <= 2.5 * lower for lower, upper in itertools.pairwise(ADDED))
