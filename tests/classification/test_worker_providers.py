"""What each provider is handed."""

from __future__ import annotations

import pytest

from proxy.classification.worker import providers
from proxy.classification.worker.asking import Form


@pytest.mark.parametrize(
    ("provider", "model", "name"),
    [
        ("openai", "gpt-4o", "openai/gpt-4o"),
        ("openai", "openai/gpt-4o", "openai/gpt-4o"),
        ("openai", "openai/openai/gpt-oss-20b", "openai/openai/gpt-oss-20b"),
        ("anthropic", "claude-haiku-4-5", "anthropic/claude-haiku-4-5"),
        ("gemini", "gemini-2.5-flash", "gemini/gemini-2.5-flash"),
        ("ollama", "llama3.2", "ollama_chat/llama3.2"),
        ("ollama", "ollama/llama3.2", "ollama_chat/llama3.2"),
        ("ollama", "ollama_chat/llama3.2", "ollama_chat/llama3.2"),
        ("openrouter", "openai/gpt-4o", "openrouter/openai/gpt-4o"),
        ("mistral", "mistral-small", "mistral/mistral-small"),
    ],
)
def test_the_name_of_a_model(provider: str, model: str, name: str):
    assert providers.model_name(provider, model) == name


@pytest.mark.parametrize(
    ("provider", "url", "base"),
    [
        ("openai", None, None),
        ("openai", "", None),
        ("openai", "http://h:1", "http://h:1/v1"),
        ("openai", "http://h:1/", "http://h:1/v1"),
        ("openai", "http://h:1/v1/", "http://h:1/v1"),
        ("openai", "http://h:1/llm", "http://h:1/llm"),
        ("gemini", "http://h:1", "http://h:1/v1beta"),
        ("gemini", "http://h:1/v1beta", "http://h:1/v1beta"),
        ("anthropic", "http://h:1", "http://h:1"),
        ("anthropic", "http://h:1/v1/", "http://h:1"),
        ("anthropic", "http://h:1/claude/v1", "http://h:1/claude"),
        ("ollama", "http://h:1", "http://h:1"),
        ("ollama", "http://h:1/v1", "http://h:1"),
        ("ollama", "http://h:1/api/", "http://h:1"),
        ("mistral", "http://h:1/x/", "http://h:1/x"),
        pytest.param(
            "azure", "https://r.openai.azure.com/", "https://r.openai.azure.com", id="Azure has its own paths"
        ),
        pytest.param("bedrock", "https://h/", "https://h", id="Bedrock too"),
        pytest.param("groq", "https://api.groq.com/openai/v1", "https://api.groq.com/openai/v1", id="Groq's are whole"),
    ],
)
def test_the_base_of_a_provider(provider: str, url: str | None, base: str | None):
    assert providers.api_base(provider, url) == base


@pytest.mark.parametrize(
    ("provider", "model", "effort"),
    [
        ("ollama", "qwen3", "none"),
        ("gemini", "gemini-2.5-flash", "none"),
        ("gemini", "gemini-2.5-pro", None),
        ("openai", "gpt-5-mini", "minimal"),
        ("openai", "gpt-5-nano-2025-08-07", "minimal"),
        ("openai", "gpt-5.1", None),
        ("openai", "gpt-4o", None),
        ("anthropic", "claude-haiku-4-5", None),
    ],
)
def test_how_much_a_model_thinks(provider: str, model: str, effort: str | None):
    assert providers.reasoning_effort(provider, model) == effort


@pytest.mark.parametrize(
    ("provider", "forms"),
    [("openai", list(Form)), ("gemini", list(Form)), ("anthropic", [Form.SCHEMA, Form.TEXT])],
)
def test_the_forms_that_differ_at_a_provider(provider: str, forms: list[Form]):
    assert providers.forms(provider) == forms
