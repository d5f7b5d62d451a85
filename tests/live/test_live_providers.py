"""The real providers, with a key of yours: `pytest -m live`. Each call costs a fraction of a cent."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from workers import ALERT

from proxy.classification.classification import Classification
from proxy.classification.usage import Usage
from proxy.classification.worker.client import ModelWorker
from proxy.classification.worker.configuration import ModelConfig
from proxy.classification.worker.protocol import Model

MODELS = [
    ("openai", "gpt-4o-mini", "OPENAI_API_KEY"),
    ("anthropic", "claude-haiku-4-5", "ANTHROPIC_API_KEY"),
    ("gemini", "gemini-2.5-flash-lite", "GEMINI_API_KEY"),
    ("groq", "llama-3.1-8b-instant", "GROQ_API_KEY"),
    ("mistral", "mistral-small-latest", "MISTRAL_API_KEY"),
    ("ollama", "llama3.2", "OLLAMA_API_BASE"),
]


@pytest.mark.live
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("provider", "model", "variable"), MODELS, ids=[provider for provider, _, _ in MODELS])
async def test_a_real_provider_gives_a_verdict(provider: str, model: str, variable: str, stream: bool):
    given = os.environ.get(variable)
    if not given:
        pytest.skip(f"{variable} is not set")
    chosen = Model(provider, model, "", given) if provider == "ollama" else Model(provider, model, given, None)
    config = ModelConfig([chosen], timedelta(seconds=60), max_retries=1, max_tokens=400, stream=stream, withheld=())
    used: list[Usage] = []
    early: list[Classification] = []
    async with ModelWorker(config, on_usage=lambda _, usage, __: used.append(usage)) as worker:
        found = await worker.classifier(0).classify(ALERT, early.append)
    assert found.summary
    assert used[0].prompt_tokens
    assert len(early) == stream
    for told in early:
        assert (told.severity, told.category, told.confidence) == (found.severity, found.category, found.confidence)
