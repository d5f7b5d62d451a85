"""The calls of the model worker's child, without a child: what it hears and what it says."""

from __future__ import annotations

import asyncio
import signal
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from workers import a_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what LiteLLM's hundred imports warn of is not ours to mend
    from proxy.classification.worker import litellm_adapter as adapter

from proxy.classification.usage import NO_USAGE, Usage
from proxy.classification.worker import child, keys, protocol
from proxy.classification.worker.asking import CompletionFailed, Tally
from proxy.classification.worker.making import Making
from proxy.classification.worker.protocol import Ask, Cancel, Configure, Failed, Message, Model, Ready, Streaming
from proxy.errors import ClassifierUnavailable


class Slow:
    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, messages: object, seconds: float, early: object, tally: Tally) -> None:
        self.asked += 1
        tally.usage += Usage(1)
        await asyncio.Event().wait()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[list[Message]]]:
    monkeypatch.setattr(signal, "alarm", lambda _: None)

    async def serve(model: Slow, *batches: list[Message]) -> list[Message]:
        """Let each batch be read at once, and return what was said until the last was heard."""
        reader, sent = asyncio.StreamReader(), []
        making = Making(Configure([], 0, 100, stream=False), AsyncExitStack(), on_stuck=lambda: None)
        serving = asyncio.create_task(child._serve_calls([model], making, reader, sent.append))
        for batch in batches:
            reader.feed_data(b"".join(map(protocol.encode, batch)))
            for _ in range(20):
                await asyncio.sleep(0)
        said = list(sent)
        reader.feed_eof()
        await serving
        assert len(sent) == len(said)
        return said

    return serve


ASK = Ask(1, 0, [], 30)


async def test_a_call_that_is_given_up_in_the_same_breath_is_answered(serve):
    model = Slow()
    assert await serve(model, [ASK, Cancel(1)]) == [Failed(1, "cancelled", "", NO_USAGE)]
    assert model.asked == 0


async def test_a_call_that_is_given_up_later_tells_what_it_took(serve):
    assert await serve(Slow(), [ASK], [Cancel(1)]) == [Failed(1, "cancelled", "", Usage(1))]


async def test_a_call_is_given_up_once_and_others_go_on(serve):
    model = Slow()
    said = await serve(model, [ASK, Ask(2, 0, [], 30)], [Cancel(1), Cancel(1), Cancel(7)], [Cancel(1), Cancel(2)])
    assert said == [Failed(1, "cancelled", "", Usage(1)), Failed(2, "cancelled", "", Usage(1))]


async def test_what_models_lack_is_told_each_in_its_place(monkeypatch):
    for name in (*keys.VARIABLES["anthropic"], *keys.VARIABLES["azure"]):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(signal, "alarm", lambda _: None)
    models = [Model("anthropic", "m", "", None), a_model(), Model("azure", "m", "", "http://h:1"), a_model("opanai")]
    reader, sent = asyncio.StreamReader(), []
    reader.feed_eof()
    await child._answer_calls(Configure(models, 0, 100, False), reader, sent.append)
    [ready] = sent
    assert ready == Ready(
        adapter.VERSION,
        ["no API key; set ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN", "", "", "LiteLLM knows no provider 'opanai'"],
        ["", "", "no API key in AZURE_API_KEY or AZURE_OPENAI_API_KEY or AZURE_AD_TOKEN", ""],
    )


async def test_a_model_whose_streams_break_is_told_by_its_place(monkeypatch):
    async def breaks(self, messages, **_):
        raise CompletionFailed(ClassifierUnavailable("x"), stream_broken=True)

    monkeypatch.setattr(signal, "alarm", lambda _: None)
    monkeypatch.setattr(adapter.LiteLLM, "__call__", breaks)
    reader, sent = asyncio.StreamReader(), []
    serving = asyncio.create_task(child._answer_calls(Configure([a_model()] * 3, 0, 100, True), reader, sent.append))
    for call in (1, 2):
        reader.feed_data(protocol.encode(Ask(call, 1, [], 30)))
        while not any(isinstance(message, Failed) and message.call == call for message in sent):
            await asyncio.sleep(0)
    reader.feed_eof()
    await serving
    assert [message for message in sent if isinstance(message, Streaming)] == [Streaming(1, False)]
