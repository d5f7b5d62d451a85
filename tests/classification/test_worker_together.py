"""Several alerts in one prompt, through every provider's wire: the real LiteLLM in a real worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from itertools import product

import pytest
import pytest_asyncio
from batched import MISCHIEF, Model, Verdicts, backwards, own, strangers
from fake_provider import FakeProvider, Hang, Request, Status, Text
from fakes import an_alert
from workers import PROVIDERS, Pool, a_model, config

from proxy.alert import Alert
from proxy.classification import batches
from proxy.classification.breaker import CircuitBreaker
from proxy.classification.chain import Batching, Chain, Link
from proxy.classification.classifier import BatchClassifier
from proxy.classification.prompts import Prompt, Prompts
from proxy.classification.worker.client import ModelWorker
from proxy.classification.worker.configuration import WorkerState
from proxy.errors import ClassifierInvalidAnswer, ClassifierRejected, ClassifierTimeout, ClassifierUnusable

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = [f"Alert{n}" for n in range(10)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(far_end: FakeProvider) -> AsyncIterator[Pool]:
    # Streams, as it does by default: a call about several does not.
    pool = Pool(dict.fromkeys(PROVIDERS, far_end.url), stream=True, max_retries=1)
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("OLLAMA_API_BASE", far_end.url)
        pool.worker.start()
        await pool.watched.reach(WorkerState.READY)
    yield pool
    await pool.worker.close()


@pytest.fixture
def pool(shared: Pool) -> Pool:
    shared.watched.usage.clear()
    return shared


def chain(classifier: BatchClassifier, size: int, concurrency: int = 4) -> Chain:
    batching = Batching(size, kind=lambda _: True, holds=lambda *_: True) if size > 1 else None
    link = Link("m", classifier, CircuitBreaker(None))
    return Chain([link], timeout=timedelta(seconds=30), concurrency=concurrency, batching=batching)


async def together(classifier: BatchClassifier, *alerts: Alert, seconds: float | None = None) -> list[str | None]:
    found = await classifier.classify_together(alerts or [an_alert(name) for name in NAMES[:5]], seconds)
    return [verdict and verdict.summary for verdict in found]


# Mischief is done to answers about several: one at a time there is only one way to be answered.
@pytest.mark.parametrize(("size", "mischief"), [(1, backwards), *product((5, 10), MISCHIEF)])
@pytest.mark.parametrize("name", PROVIDERS)
async def test_no_alert_gets_anothers_verdict(
    name: str, size: int, mischief: Callable[[Verdicts], Verdicts], pool: Pool, provider: FakeProvider
):
    provider.answers = model = Model(mischief)
    asked = chain(pool.fresh(name), size)
    found = await asyncio.gather(*(asked.classify(an_alert(alert)) for alert in NAMES))
    for alert, verdict in zip(NAMES, found, strict=True):
        told = {name: getattr(verdict, name) for name in own(alert)}
        assert told | {"recommendations": list(verdict.recommendations)} == own(alert)
    # By their size: what is missing in one answer may be asked for before the next question is.
    first = [call for call in model.calls if len(call) == size]
    assert sorted(alert for call in first for alert in call) == NAMES
    again = [call for call in model.calls if len(call) != size]
    assert all(len(call) == 1 for call in again)
    assert bool(again) is (size > 1 and mischief not in (strangers, backwards))


@pytest.mark.parametrize("name", PROVIDERS)
async def test_the_question_is_one_call(name: str, pool: Pool, provider: FakeProvider):
    provider.answers = Model()
    classifier = pool.fresh(name)
    assert await together(classifier) == [f"Concerns {name}." for name in NAMES[:5]]
    [request] = provider.requests
    assert not request.streamed
    assert '"1500"' in json.dumps(request.json).replace("1500", '"1500"'), "five times the 300 tokens of one answer"
    [(_, usage)] = pool.watched.usage
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (1, 480, 90)


async def test_openai_is_asked_to_keep_to_the_schema(pool: Pool, provider: FakeProvider):
    provider.answers = Model()
    await together(pool.fresh("openai"))
    asked = provider.requests[0].json["response_format"]["json_schema"]
    assert (asked["name"], asked["strict"], asked["schema"]) == ("verdicts", True, batches.schema(5))


@pytest.mark.parametrize("name", ["openai", "ollama"])
async def test_a_refused_form_of_several_says_nothing_of_the_form_of_one(name: str, pool: Pool, provider: FakeProvider):
    model = Model()

    def refusing(request: Request) -> Text | Status:
        return Status(400) if '"verdicts"' in json.dumps(request.json) else model(request)

    classifier = pool.fresh(name)
    provider.answers = refusing
    assert await together(classifier) == [f"Concerns {name}." for name in NAMES[:5]]
    assert len(provider.requests) == 2
    await together(classifier)
    assert len(provider.requests) == 3, "it knows by now"
    provider.forget(model)
    await classifier.classify(an_alert("Alone"))
    asked = provider.requests[0].json
    assert "confidence" in json.dumps(asked.get("response_format") or asked["format"]), "the strictest form"


@pytest.mark.parametrize("name", PROVIDERS)
async def test_an_answer_that_is_none_is_not_asked_for_again(name: str, pool: Pool, provider: FakeProvider):
    provider.answers = [Text("I cannot do that.")]
    with pytest.raises(ClassifierInvalidAnswer):
        await together(pool.fresh(name))
    assert len(provider.requests) == 1


async def test_a_bad_verdict_is_missing_and_its_neighbours_are_not(pool: Pool, provider: FakeProvider):
    def spoil(verdicts: Verdicts) -> Verdicts:
        return [{**verdicts[0], "severity": "fatal"}, {**verdicts[1], "confidence": 0.9}, *verdicts[2:]]

    provider.answers = Model(spoil)
    assert (await together(pool.fresh("openai")))[:3] == [None, None, "Concerns Alert2."]


async def test_what_is_cut_off_is_missing(pool: Pool, provider: FakeProvider):
    model = Model()
    provider.answers = lambda request: Text(model(request).text[:-100], cut_off=True)
    found = await together(pool.fresh("openai"))
    assert found == ["Concerns Alert0.", "Concerns Alert1.", "Concerns Alert2.", "Concerns Alert3.", None]


async def test_each_alert_has_its_own_placeholders_back(pool: Pool, provider: FakeProvider):
    def naming(verdicts: Verdicts) -> Verdicts:
        return [{**one, "summary": "At IP_1 and IP_2."} for one in verdicts]

    provider.answers = Model(naming)
    alerts = [an_alert("A", cluster="10.1.1.1"), an_alert("B", cluster="10.2.2.2", zone="10.3.3.3"), an_alert("C")]
    assert await together(pool.fresh("openai"), *alerts) == [
        "At 10.1.1.1 and an IP address.",
        "At 10.2.2.2 and 10.3.3.3.",
        "At an IP address and an IP address.",
    ]
    assert "10.1.1.1" not in provider.requests[0].prompt


async def test_those_that_do_not_fit_in_are_left_to_be_asked_alone(pool: Pool, provider: FakeProvider):
    provider.answers = model = Model()
    alerts = [an_alert("A"), an_alert("A", job="x"), an_alert("B" * 101), an_alert("C"), Alert({"job": "nameless"})]
    assert await together(pool.fresh("openai"), *alerts) == ["Concerns A.", None, None, "Concerns C.", None]
    assert model.calls == [["A", "C"]]


async def test_nobody_is_asked_about_several_of_which_one_is_left(pool: Pool, provider: FakeProvider):
    assert await together(pool.fresh("openai"), an_alert("A"), an_alert("A", job="x")) == [None, None]
    assert provider.requests == []


async def test_an_alert_that_the_template_cannot_cope_with_is_left_out(far_end: FakeProvider):
    def prompt(alert: Alert) -> Prompt:
        if alert.name == "B":
            raise ClassifierUnusable("the template of the prompt, line 7: x")
        return Prompts().render(alert)

    far_end.forget(Model())
    async with ModelWorker(config(a_model("openai", far_end.url)), prompt=prompt) as worker:
        found = await together(worker.classifier(0), *map(an_alert, "ABC"))
    assert found == ["Concerns A.", None, "Concerns C."]


async def test_a_call_about_several_has_its_time_and_ends(pool: Pool, provider: FakeProvider):
    provider.answers = [Hang()]
    with pytest.raises(ClassifierTimeout):
        await together(pool.fresh("anthropic"), seconds=0.3)
    await asyncio.wait_for((await provider.request(0)).hung_up.wait(), 10)


async def test_a_call_about_several_that_is_given_up_is_counted(pool: Pool, provider: FakeProvider):
    provider.answers = [Hang()]
    call = asyncio.create_task(together(pool.fresh("gemini")))
    request = await provider.request(0)
    call.cancel()
    await asyncio.wait_for(request.hung_up.wait(), 10)
    async with asyncio.timeout(10):
        while not pool.watched.usage:
            await asyncio.sleep(0.01)
    assert [usage.requests for _, usage in pool.watched.usage] == [1]


async def test_a_question_that_is_too_long_for_the_worker_is_refused(pool: Pool):
    long = {f"label_{n}": "\N{PILE OF POO}" * 450 for n in range(60)}
    with pytest.raises(ClassifierRejected, match="too long"):
        await together(pool.fresh("openai"), *(an_alert(name, **long) for name in NAMES))
