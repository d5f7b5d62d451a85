from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what LiteLLM's hundred imports warn of is not ours to mend
    from proxy.classification.worker import litellm_adapter as adapter

from proxy.classification.usage import Usage
from proxy.classification.worker import keys, prices
from proxy.classification.worker.asking import CompletionFailed
from proxy.classification.worker.protocol import Model
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
SESSION: Any = None
"""Of aiohttp; none is opened."""
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
    EX.ImageFetchError: ClassifierRejected,
    EX.VectorStoreSearchError: ClassifierRejected,
    EX.InvalidRequestError: ClassifierRejected,
    EX.LiteLLMUnknownProvider: ClassifierRejected,
    EX.MockException: ClassifierRejected,
    EX.ModelNotMappedError: ClassifierRejected,
    EX.GuardrailRaisedException: ClassifierRejected,
    EX.BlockedPiiEntityError: ClassifierRejected,
    EX.ModifyResponseException: ClassifierRejected,
    EX.SensitiveDataRouteException: ClassifierRejected,
}
PUBLIC = {
    thing
    for name, thing in vars(EX).items()
    if not name.startswith("_") and isinstance(thing, type) and issubclass(thing, Exception)
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


@pytest.mark.parametrize(
    "theirs",
    sorted(PUBLIC | set(litellm.LITELLM_EXCEPTION_TYPES), key=lambda theirs: theirs.__name__),
    ids=lambda theirs: theirs.__name__,
)
def test_every_litellm_error_becomes_ours(theirs: type[Exception]):
    status = 500 if theirs is EX.APIError else None
    assert type(translated(raised(theirs, status=status)).error) is EXPECTED[theirs]


@pytest.mark.parametrize(
    ("exc", "ours"),
    [
        pytest.param(raised(EX.APIError, status=200), ClassifierUnavailable, id="an answer that is no model's"),
        pytest.param(raised(EX.APIError, status=403), ClassifierRejected, id="APIError below 500"),
        pytest.param(raised(EX.BadRequestError, status=422), ClassifierUnavailable, id="Gemini's bad JSON"),
        pytest.param(raised(EX.MidStreamFallbackError), ClassifierUnavailable, id="a stream that breaks off"),
        pytest.param(raised(EX.BudgetExceededError), ClassifierRejected, id="a LiteLLM error of no list"),
        pytest.param(KeyError(SECRET), ClassifierRejected, id="anything else"),
    ],
)
def test_what_the_status_decides(exc: Exception, ours: type[ClassifierError]):
    assert type(translated(exc).error) is ours


def test_what_breaks_a_stream_counts_as_itself():
    wrapped = raised(EX.MidStreamFallbackError, status=503)
    wrapped.original_exception = raised(EX.RateLimitError, status=429, headers={"Retry-After": "7"})
    failed = translated(wrapped)
    assert type(failed.error) is ClassifierRateLimited
    assert (str(failed.error), failed.retry_after) == ("RateLimitError 429", 7)


def priced(model: adapter.LiteLLM, prompt: object, completion: object) -> Usage:
    counted = litellm.Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2)
    counted.prompt_tokens, counted.completion_tokens = prompt, completion
    return model._usage(counted)


@pytest.mark.parametrize("prompt", [0, None, -1, True, "480"])
def test_what_is_no_count_of_tokens_is_none(prompt: object):
    assert priced(model(), prompt, 90) == Usage()


def test_a_model_of_no_known_price_counts_tokens():
    assert priced(model(), 480, 90) == Usage(0, 480, 90, None)


def test_a_price_of_the_operators_own_is_taken_in_the_place_of_the_list():
    own = adapter.LiteLLM(Model("openai", "gpt-4o", SECRET, None, [2.0, 30.0]), 400, SESSION)
    assert priced(own, 1000, 100) == Usage(0, 1000, 100, 0.005)
    assert priced(own, 1000, None) == Usage(0, 1000, None, 0.002)


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "gpt-4o"),
        ("openai", "gpt-4o-mini"),
        ("anthropic", "claude-haiku-4-5"),
        ("gemini", "gemini-2.5-flash"),
        ("mistral", "mistral-small-latest"),
        ("ollama", "llama3.2"),
    ],
)
def test_the_price_that_is_known_before_a_call_is_the_one_that_litellm_counts(provider: str, name: str):
    ((inward, outward),) = prices.listed([(provider, name)])
    counted = priced(adapter.LiteLLM(Model(provider, name, SECRET, None), 400, SESSION), 1000, 100)
    assert counted.cost_usd == pytest.approx((1000 * inward + 100 * outward) / 1e6)
    assert (inward > 0) is (provider != "ollama")


@pytest.mark.parametrize(("provider", "name"), [("openai", "gpt-9-of-tomorrow"), ("openai", "claude-haiku-4-5")])
def test_a_model_that_is_not_on_the_list_has_no_price(provider: str, name: str):
    assert prices.listed([(provider, name)]) == [None]


def test_nobody_is_asked_for_the_price_of_an_ollama():
    assert priced(model("ollama"), 480, 90) == Usage(0, 480, 90, 0)


@pytest.mark.parametrize("theirs", [*litellm.LITELLM_EXCEPTION_TYPES, ValueError], ids=lambda t: t.__name__)
def test_their_messages_stay_behind(theirs: type[Exception]):
    failed = translated(raised(theirs, status=401))
    assert SECRET not in f"{failed} {failed.error}"
    assert str(failed.error) == f"{theirs.__name__} 401, the key is refused: check llm.api_key"
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
def test_which_refusals_may_be_about_the_form(exc: Exception, refused: bool):
    assert translated(exc).form_refused is refused


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


def model(provider: str = "openai", base_url: str | None = None, api_key: str = SECRET) -> adapter.LiteLLM:
    return adapter.LiteLLM(Model(provider, "m", api_key, base_url), 300, SESSION)


def test_an_unknown_provider_is_unusable():
    with pytest.raises(ClassifierUnusable, match="LiteLLM knows no provider 'opanai'"):
        model("opanai")


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (name for names in keys.VARIABLES.values() for name in names):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("keyless")
@pytest.mark.parametrize("provider", sorted(set(keys.VARIABLES) - {"azure"}))
def test_without_a_key_that_it_wants_a_model_is_unusable_and_the_variable_named(
    provider: str, monkeypatch: pytest.MonkeyPatch
):
    first, *_ = names = keys.VARIABLES[provider]
    with pytest.raises(ClassifierUnusable, match=rf"^no API key; set {first}\b"):
        model(provider, api_key="")
    assert set(litellm.validate_environment(f"{provider}/m")["missing_keys"]) <= set(names)
    for name in names:
        monkeypatch.setenv(name, "sk-1")
        assert model(provider, api_key="").doubt == ""
        monkeypatch.delenv(name)
    monkeypatch.setenv(first, "")
    with pytest.raises(ClassifierUnusable):
        model(provider, api_key="")


@pytest.mark.usefixtures("keyless")
@pytest.mark.parametrize(
    ("provider", "base_url", "doubt"),
    [
        pytest.param("azure", "https://a.example", "AZURE_API_KEY or", id="a machine may have an identity"),
        pytest.param("azure", None, "AZURE_API_KEY or", id="at the address that the environment names too"),
        pytest.param("mistral", "http://h:1", "MISTRAL_API_KEY or", id="a server of one's own may let anybody in"),
        pytest.param("openai", "http://h:1", "", id="the usual one does"),
        pytest.param("hosted_vllm", "http://h:1", "", id="vLLM"),
        pytest.param("ollama", None, "", id="Ollama"),
        pytest.param("bedrock", None, "", id="the cloud's own credentials"),
        pytest.param("vertex_ai", None, "", id="the other cloud's"),
        pytest.param("nvidia_nim", None, "", id="a provider that we know nothing about"),
    ],
)
def test_a_model_that_may_do_without_a_key_is_asked(provider: str, base_url: str | None, doubt: str):
    found = model(provider, base_url, "").doubt
    assert found.startswith(f"no API key in {doubt}") if doubt else found == ""


@pytest.mark.usefixtures("keyless")
def test_the_providers_own_address_wants_the_key_too():
    with pytest.raises(ClassifierUnusable, match="set OPENAI_API_KEY"):
        model("openai", "https://api.openai.com/v1", "")
    assert model("openai", "https://api.openai.com/v1", SECRET).doubt == ""


@pytest.mark.parametrize(
    ("base_url", "given", "sent"),
    [
        pytest.param("http://h:1", "", "none", id="a server of one's own is not sent the environment's key"),
        pytest.param("http://h:1", SECRET, SECRET, id="a key goes to whom it was given for"),
        pytest.param(None, "", None, id="the provider's own finds the environment's"),
    ],
)
def test_which_key_is_sent(base_url: str | None, given: str, sent: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
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
        from proxy.classification.worker.protocol import Model
        from proxy.classification.worker.asking import CompletionFailed, Form
        async def call():
            async with adapter.connections() as session:
                models = [
                    adapter.LiteLLM(Model("anthropic", "claude-haiku-4-5", "sk", None), 300, session),
                    adapter.LiteLLM(Model("ollama", "llama3.2", "", "http://ollama.example:11434"), 300, session),
                ]
                loaded = list(asked)
                for model in models:
                    with suppress(CompletionFailed):
                        await model([{"role": "user", "content": "?"}], form=Form.SCHEMA, seconds=5, heard=None)
            return loaded
        loaded = asyncio.run(call())
        print(json.dumps([loaded, asked, os.environ.get("OPENAI_API_KEY"), adapter.VERSION]))
    """)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LITELLM_", "OPENAI_"))}
    env["PYTHONPATH"] = os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, check=True)
    loaded, asked, key, version = json.loads(done.stdout)
    assert loaded == []
    assert set(asked) == {"api.anthropic.com", "ollama.example"}
    assert key is None
    assert version == adapter.VERSION
