"""How the demo's proxy is set, judged by the proxy's own reading of it."""

from __future__ import annotations

import pytest

from proxy import config
from proxy.config import Settings
from proxy.demo import settings
from proxy.demo.local_model import LocalModel

LOCAL = LocalModel("smollm2", "http://127.0.0.1:34567")
KEY = {"LLM_API_KEY": "sk-made-up"}


def read(local: LocalModel | None, environ: dict[str, str]) -> Settings:
    """Return what a proxy makes of the flags and the environment it is given."""
    given: dict[str, list[str]] = {}
    for flag in settings.flags(local, environ):
        name, _, value = flag.removeprefix("--").partition("=")
        given.setdefault(name.replace("-", "_"), []).append(value)
    return config.load(None, environ=settings.environment(local, environ), flags=given).settings


def test_without_a_key_the_rules_label():
    got = read(None, {})
    assert got.enrichment.mode == "enriched"
    assert not got.llm.enabled


def test_a_key_is_enough_to_ask_the_model():
    got = read(None, KEY)
    assert got.llm.enabled
    assert got.llm.api_key.reveal() == "sk-made-up"
    assert (got.llm.provider, got.llm.model) == ("openai", "gpt-4o")


def test_the_model_is_the_one_that_is_set():
    environ = KEY | {"LLM_PROVIDER": "anthropic", "LLM_MODEL": "claude", "LLM_BASE_URL": "http://127.0.0.1:1"}
    got = read(None, environ | {"LLM_CONCURRENCY": "2"}).llm
    assert (got.provider, got.model, got.base_url) == ("anthropic", "claude", "http://127.0.0.1:1")
    assert got.concurrency == 2


def test_a_model_without_a_key_is_asked_when_it_is_enabled():
    assert read(None, {"LLM_ENABLED": "true", "LLM_PROVIDER": "ollama"}).llm.enabled


def test_a_model_that_is_switched_off_is_not_asked():
    assert not read(None, KEY | {"LLM_ENABLED": "false"}).llm.enabled


def test_the_local_model_takes_the_place_of_the_one_that_is_set():
    got = read(LOCAL, KEY | {"LLM_PROVIDER": "anthropic", "LLM_ENABLED": "false", "LLM_TIMEOUT": "1s"})
    assert (got.llm.enabled, got.llm.provider, got.llm.model) == (True, "ollama", "smollm2")
    assert got.llm.base_url == LOCAL.url
    assert not got.llm.api_key


def test_a_slow_local_model_gets_more_time_and_prometheus_still_has_its_answer():
    got = read(LOCAL, {})
    assert got.enrichment.budget > Settings().enrichment.budget
    assert got.enrichment.budget < got.alertmanager.timeout


@pytest.mark.parametrize(
    "environ",
    [
        {"ENRICHMENT_MODE": "transparent"},
        {"STORE_URL": "redis://redis.example:6379"},
        {"WEB_ADMIN_TOKEN": "of-work"},
        {"ALERTMANAGER_URL": "http://alertmanager.example:9093"},
        {"WEB_ADMIN_TOKEN_FILE": "/run/secrets/token"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_settings_for_work_do_not_reach_the_demo(environ):
    assert read(None, environ) == read(None, {})


def test_the_rest_of_the_environment_does():
    environ = settings.environment(None, {"HOME": "/home/user", "OPENAI_API_KEY": "x", "PATH": "/bin"})
    assert environ.items() >= {"HOME": "/home/user", "OPENAI_API_KEY": "x", "PATH": "/bin"}.items()


def test_the_local_model_is_not_asked_through_a_proxy_for_the_web():
    assert settings.environment(LOCAL, {"HTTPS_PROXY": "http://proxy.example:3128"})["NO_PROXY"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("model", "local", "words"),
    [
        pytest.param({}, None, "none, the rules decide", id="nothing known"),
        pytest.param({"enabled": False}, None, "set LLM_API_KEY", id="no model"),
        pytest.param(
            {"enabled": True, "name": "openai/gpt-4o", "state": "unusable", "key": "missing"},
            None,
            "openai/gpt-4o, which is unusable, its key is missing; the rules decide",
            id="no key",
        ),
        pytest.param(
            {"enabled": True, "name": "openai/gpt-4o", "state": "ready"}, None, "it answered in time", id="a model"
        ),
        pytest.param(
            {"enabled": True, "name": "ollama/smollm2", "state": "ready"}, LOCAL, "it answered within 8s", id="local"
        ),
    ],
)
def test_it_says_who_decides(model, local, words):
    assert words in "\n".join(settings.describe(model, local))
