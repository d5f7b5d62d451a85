from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import warnings
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what LiteLLM's hundred imports warn of is not ours to mend
    from proxy.classification.worker import litellm_adapter as adapter

from proxy.classification.worker.asking import CompletionFailed
from proxy.classification.worker.protocol import Configure
from proxy.errors import (
    ClassifierError,
    ClassifierInvalidAnswer,
    ClassifierRateLimited,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
    ClassifierUnusable,
)

litellm = adapter.litellm  # not imported here: the adapter sets its environment first
EX = adapter.theirs
SECRET = "sk-secret"
NOW = datetime(2026, 1, 1, tzinfo=UTC)

EXPECTED: dict[type[Exception], type[ClassifierError]] = {
    EX.AuthenticationError: ClassifierRejected,
    EX.NotFoundError: ClassifierRejected,
    EX.BadRequestError: ClassifierRejected,
    EX.UnprocessableEntityError: ClassifierRejected,
    EX.UnsupportedParamsError: ClassifierRejected,
    EX.Timeout: ClassifierTimeout,
    EX.PermissionDeniedError: ClassifierRejected,
    EX.RateLimitError: ClassifierRateLimited,
    EX.ContextWindowExceededError: ClassifierRejected,
    EX.PaymentRequiredError: ClassifierRejected,
    EX.RejectedRequestError: ClassifierRejected,
    EX.ContentPolicyViolationError: ClassifierRejected,
    EX.InternalServerError: ClassifierUnavailable,
    EX.ServiceUnavailableError: ClassifierUnavailable,
    EX.MidStreamFallbackError: ClassifierUnavailable,
    EX.BadGatewayError: ClassifierUnavailable,
    EX.APIError: ClassifierUnavailable,
    EX.APIConnectionError: ClassifierUnavailable,
    EX.APIResponseValidationError: ClassifierRejected,
    EX.OpenAIError: ClassifierRejected,
    EX.BudgetExceededError: ClassifierRejected,
    EX.JSONSchemaValidationError: ClassifierInvalidAnswer,
}


def raised(kind: type[Exception], *, status: int | None = None, headers: dict[str, str] | None = None) -> Exception:
    """Return an instance whatever its constructor wants, as if a provider had answered `status`."""
    exc = kind.__new__(kind)
    exc.args = (f"refused: {SECRET}",)
    if status is not None:
        exc.status_code = status
        exc.response = httpx.Response(status, headers=headers)
    return exc


def translated(exc: Exception) -> CompletionFailed:
    with pytest.raises(CompletionFailed) as ours, adapter.our_errors():
        raise exc
    return ours.value


@pytest.mark.parametrize("theirs", litellm.LITELLM_EXCEPTION_TYPES, ids=lambda t: f"{t.__module__}.{t.__name__}")
def test_every_litellm_error_becomes_ours(theirs: type[Exception]):
    expected = next(ours for kind, ours in EXPECTED.items() if theirs.__name__ == kind.__name__)
    status = 500 if theirs is EX.APIError else None
    assert type(translated(raised(theirs, status=status)).error) is expected


@pytest.mark.parametrize(
    ("exc", "ours"),
    [
        pytest.param(raised(EX.APIError, status=403), ClassifierRejected, id="APIError below 500"),
        pytest.param(raised(EX.BadRequestError, status=422), ClassifierUnavailable, id="Gemini's bad JSON"),
        pytest.param(raised(EX.MidStreamFallbackError), ClassifierUnavailable, id="a stream that breaks off"),
        pytest.param(raised(EX.BudgetExceededError), ClassifierRejected, id="a LiteLLM error of no list"),
        pytest.param(KeyError(SECRET), ClassifierRejected, id="anything else"),
    ],
)
def test_what_the_status_decides(exc: Exception, ours: type[ClassifierError]):
    assert type(translated(exc).error) is ours


@pytest.mark.parametrize("theirs", [*litellm.LITELLM_EXCEPTION_TYPES, ValueError], ids=lambda t: t.__name__)
def test_their_messages_stay_behind(theirs: type[Exception]):
    failed = translated(raised(theirs, status=401))
    assert SECRET not in f"{failed} {failed.error}"
    assert str(failed.error) == f"{theirs.__name__} 401"
    assert failed.__suppress_context__


@pytest.mark.parametrize(
    ("exc", "refused"),
    [
        (raised(EX.BadRequestError, status=400), True),
        (raised(EX.UnsupportedParamsError, status=400), True),
        (raised(EX.UnprocessableEntityError, status=422), True),
        (raised(EX.ContextWindowExceededError, status=400), False),
        (raised(EX.ContentPolicyViolationError, status=400), False),
        (raised(EX.BadRequestError, status=403), False),
        (raised(EX.AuthenticationError, status=401), False),
        (raised(EX.InternalServerError, status=500), False),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Exception) else str(v),
)
def test_which_refusals_may_be_about_the_schema(exc: Exception, refused: bool):
    assert translated(exc).schema_refused is refused


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After": "-3"}, 0),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:09 GMT"}, 9),
        ({"Retry-After": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_understood(headers: dict[str, str], seconds: float | None):
    assert adapter._retry_after(raised(EX.RateLimitError, status=429, headers=headers), NOW) == seconds
    elsewhere = raised(EX.RateLimitError)
    elsewhere.litellm_response_headers = headers
    assert adapter._retry_after(elsewhere, NOW) == seconds


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
    assert adapter.model_name(provider, model) == name


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
    ],
)
def test_the_base_of_a_provider(provider: str, url: str | None, base: str | None):
    assert adapter.api_base(provider, url) == base


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
    assert adapter.reasoning_effort(provider, model) == effort


def model(provider: str = "openai", base_url: str | None = None, api_key: str = "") -> adapter.LiteLLM:
    return adapter.LiteLLM(Configure(provider, "m", api_key, base_url, 3, 300))


def test_an_unknown_provider_is_unusable():
    with pytest.raises(ClassifierUnusable, match="LiteLLM knows no provider 'opanai'"):
        model("opanai")


@pytest.mark.parametrize(
    ("base_url", "given", "sent"),
    [
        pytest.param("http://h:1", "", "none", id="a server of one's own is not sent the environment's key"),
        pytest.param("http://h:1", SECRET, SECRET, id="a key goes to whom it was given for"),
        pytest.param(None, "", None, id="the provider's own finds the environment's"),
    ],
)
def test_which_key_is_sent(base_url: str | None, given: str, sent: str | None):
    assert model(base_url=base_url, api_key=given)._arguments["api_key"] == sent


def test_nobody_else_retries():
    arguments = model()._arguments
    assert (arguments["max_retries"], arguments["num_retries"]) == (0, 0)


def test_nothing_but_the_provider_is_asked_and_no_env_file_read(tmp_path: Path):
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-of-somebody-else")
    script = textwrap.dedent("""
        import asyncio, json, os, socket
        from contextlib import suppress
        asked = []
        def refuse(*a, **k):
            asked.append(str(a[0]))
            raise OSError("no network here")
        socket.getaddrinfo = socket.socket.connect = refuse
        from proxy.classification.worker import litellm_adapter as adapter
        from proxy.classification.worker.protocol import Configure
        from proxy.classification.worker.asking import CompletionFailed
        async def call():
            model = adapter.LiteLLM(Configure("anthropic", "claude-haiku-4-5", "sk", None, 3, 300))
            loaded = list(asked)
            with suppress(CompletionFailed):
                await model([{"role": "user", "content": "?"}], schema=True, seconds=5)
            await model.close()
            return loaded
        loaded = asyncio.run(call())
        print(json.dumps([loaded, asked, os.environ.get("OPENAI_API_KEY"), adapter.VERSION]))
    """)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LITELLM_", "OPENAI_"))}
    env["PYTHONPATH"] = os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, check=True)
    loaded, asked, key, version = json.loads(done.stdout)
    assert loaded == []
    assert set(asked) == {"api.anthropic.com"}
    assert key is None
    assert version == adapter.VERSION
