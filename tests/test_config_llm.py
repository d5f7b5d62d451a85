"""Settings of the models and their breaker."""

from __future__ import annotations

from datetime import timedelta

import pytest
from configuring import load

from proxy.config import models
from proxy.errors import ConfigError

pytestmark = pytest.mark.usefixtures("a_directory_of_its_own")


@pytest.mark.parametrize(
    ("text", "provider", "model", "base_url"),
    [
        ("anthropic/claude-haiku-4-5", "anthropic", "claude-haiku-4-5", None),
        ("classifier/runbooks/2@http://a:1", "classifier", "runbooks/2", "http://a:1"),
        ("openai/openai/gpt-oss-20b", "openai", "openai/gpt-oss-20b", None),
        ("ollama/llama3.2:1b@http://127.0.0.1:11434/", "ollama", "llama3.2:1b", "http://127.0.0.1:11434"),
        ("vertex_ai/claude@20251001@https://eu.example.com", "vertex_ai", "claude@20251001", "https://eu.example.com"),
    ],
)
def test_models(text, provider, model, base_url):
    found = models.ModelNameKind().parse(text)
    assert found == models.ModelName(provider, model, base_url)
    assert models.ModelNameKind().parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    ["", "gpt-4o", "/gpt-4o", "openai/", "open ai/x", "openai/a b", "openai/x@http://", "http://a/b", "a@ftp://b"],
)
def test_what_is_no_model(text):
    with pytest.raises(ValueError, match="want"):
        models.ModelNameKind().parse(text)


def test_the_circuit_breaker_has_the_variables_people_look_for():
    breaker = load(
        LLM_CIRCUIT_BREAKER_ENABLED="false",
        LLM_CIRCUIT_BREAKER_MAX_FAILURES="7",
        LLM_CIRCUIT_BREAKER_FAILURE_RATE="60",
        LLM_CIRCUIT_BREAKER_SLOW_RATE="70",
        LLM_CIRCUIT_BREAKER_SLOW_CALL="4s",
        LLM_CIRCUIT_BREAKER_MIN_CALLS="8",
        LLM_CIRCUIT_BREAKER_RESET_TIMEOUT="1m",
    ).settings.llm.circuit_breaker
    assert (breaker.enabled, breaker.max_failures, breaker.failure_rate) == (False, 7, 60)
    assert (breaker.slow_rate, breaker.slow_call, breaker.min_calls) == (70, timedelta(seconds=4), 8)
    assert breaker.reset_timeout == timedelta(minutes=1)


def test_no_call_is_slow_unless_somebody_says_what_that_is():
    assert load().settings.llm.circuit_breaker.slow_call is None


def test_one_moments_calls_do_not_open_the_breaker():
    llm = load().settings.llm
    assert llm.circuit_breaker.max_failures > llm.concurrency


@pytest.mark.parametrize(("failures", "warned"), [("4", True), ("5", False)])
def test_failures_that_calls_of_one_moment_reach_are_worth_a_warning(failures, warned):
    warnings = load(LLM_CIRCUIT_BREAKER_MAX_FAILURES=failures).warnings
    assert any("max_failures (4) should be more than llm.concurrency (4)" in one for one in warnings) is warned


def test_a_slow_call_that_the_timeout_forbids_is_worth_a_warning():
    given = {"LLM_TIMEOUT": "20s", "LLM_CIRCUIT_BREAKER_SLOW_CALL": "20s"}
    said = "slow_call (20s) is not shorter than llm.timeout (20s): no call will be slow"
    assert load(**given).warnings == (f"LLM_CIRCUIT_BREAKER_SLOW_CALL: llm.circuit_breaker.{said}",)
    assert load(**given | {"LLM_CIRCUIT_BREAKER_SLOW_CALL": "19s"}).warnings == ()


def test_a_fallback_of_the_same_provider_is_at_the_same_address_unless_it_names_one():
    llm = load(
        LLM_PROVIDER="openai",
        LLM_MODEL="big",
        LLM_BASE_URL="http://gateway:8000/v1",
        LLM_FALLBACKS="openai/small, openai/other@http://b:1,anthropic/claude",
    ).settings.llm
    assert [str(one) for one in llm.models] == [
        "openai/big@http://gateway:8000/v1",
        "openai/small@http://gateway:8000/v1",
        "openai/other@http://b:1",
        "anthropic/claude",
    ]


@pytest.mark.parametrize("key", ["sk-1\nsk-2", "sk-…", "sk-\x00"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key):
    with pytest.raises(ConfigError) as refused:
        load(LLM_API_KEY=key)
    assert "a token on one line is wanted" in str(refused.value.problems)
    assert "sk-" not in str(refused.value.problems)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
def test_an_address_of_one_call_is_not_that_of_the_provider(path):
    with pytest.raises(ConfigError) as refused:
        load(LLM_BASE_URL=f"http://127.0.0.1:8000{path}")
    assert "which is added to it with each call: leave it out" in str(refused.value.problems)
    given = {"LLM_BASE_URL": f"http://127.0.0.1:8000{path}", "LLM_PROVIDER": "classifier", "LLM_MODEL": "own"}
    assert load(**given).settings.llm.base_url, "what a classifier of one's own makes of it is its own business"


def test_an_address_is_for_the_one_classifier_that_it_was_given_to():
    llm = load(
        LLM_PROVIDER="classifier",
        LLM_MODEL="gateway/big",
        LLM_BASE_URL="http://gateway:8000",
        LLM_FALLBACKS="classifier/gateway/small,classifier/runbooks",
    ).settings.llm
    assert [str(one) for one in llm.models] == [
        "classifier/gateway/big@http://gateway:8000",
        "classifier/gateway/small@http://gateway:8000",
        "classifier/runbooks",
    ]


@pytest.mark.parametrize(("cap", "warned"), [("1000", True), ("109999", True), ("110000", False)])
def test_a_cap_that_is_worth_hardly_a_call_is_warned_of(cap: str, warned: bool):
    warnings = load(LLM_BUDGET_TOKENS_PER_DAY=cap).warnings
    assert any(f"llm.budget.tokens_per_day ({cap}) is worth" in one for one in warnings) is warned
