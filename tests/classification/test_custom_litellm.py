"""LiteLLM's CustomLLM as a classifier of a user's own: the real LiteLLM in the real worker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from own_classifiers import LITELLMS, SECRET_WORDS, install, on_path
from workers import Watched, config

from proxy import classifiers
from proxy.alert import Alert
from proxy.classification.classification import Classification
from proxy.classification.usage import Usage
from proxy.classification.worker.configuration import WorkerState
from proxy.classification.worker.protocol import Model
from proxy.errors import ClassifierError, ClassifierUnusable

pytestmark = pytest.mark.asyncio(loop_scope="module")
POINTS = {
    "plain": "handlers:Plain",
    "streams": "handlers:Streams",
    "an-instance": "handlers:handler",
    "synchronous": "handlers:Synchronous",
    "openai": "handlers:Plain",
}
MODELS = ["plain/clf", "plain", "streams/clf", "an-instance", "synchronous", "openai"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def handlers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    directory = tmp_path_factory.mktemp("installed")
    install(directory, LITELLMS, POINTS, "handlers")
    models = [Model(classifiers.PROVIDER, name, "sk-1", "http://127.0.0.1:9/x") for name in MODELS]
    watched = Watched(config(*models, max_retries=0, stream=True))
    with pytest.MonkeyPatch.context() as patch:
        on_path(patch, directory)
        async with watched.worker:
            await watched.reach(WorkerState.READY)
            yield watched


async def ask(handlers: Watched, model: str, name: str = "Good") -> tuple[Classification, list[Classification]]:
    early: list[Classification] = []
    found = await handlers.worker.classifier(MODELS.index(model)).classify(Alert({"alertname": name}), early.append)
    return found, early


@pytest.mark.parametrize(("model", "told"), [("plain/clf", "clf"), ("plain", "plain"), ("an-instance", "an-instance")])
async def test_it_is_asked_as_any_provider(model: str, told: str, handlers: Watched):
    handlers.usage.clear()
    found, early = await ask(handlers, model)
    assert (found.severity, found.model, early) == ("info", model, [])
    assert found.summary.split() == [told, "sk-1", "False"], "the address is taken out of texts"
    assert handlers.usage == [(MODELS.index(model), Usage(1, 700, 90))]


async def test_it_streams_if_it_can(handlers: Watched):
    found, early = await ask(handlers, "streams/clf")
    assert found.summary == "streamed"
    assert [one.summary for one in early] == [""]


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("Fails429", "rate_limited: RateLimitError 429"),
        ("Fails401", "rejected: AuthenticationError 401, the key is refused: check llm.api_key"),
        ("Raises", "unavailable: APIConnectionError 500"),
        ("Exit", "rejected: SystemExit"),
        ("Nonsense", "invalid_answer: no JSON object"),
    ],
)
async def test_its_failures_end_one_call(name: str, outcome: str, handlers: Watched):
    with pytest.raises(ClassifierError) as raised:
        await ask(handlers, "plain/clf", name)
    assert f"{raised.value.reason}: {raised.value}" == outcome
    assert SECRET_WORDS not in repr(raised.value)
    assert handlers.restarts == 0


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("synchronous", "the classifier 'synchronous' is a CustomLLM without acompletion"),
        ("openai", "LiteLLM has a provider 'openai' of its own; give the classifier another name"),
    ],
)
async def test_one_that_cannot_be_used_says_why(model: str, why: str, handlers: Watched):
    with pytest.raises(ClassifierUnusable, match=why):
        await ask(handlers, model)
