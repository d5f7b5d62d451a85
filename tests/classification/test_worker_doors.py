"""What a model's door says when it does not open, in words that name what to look at; with the real LiteLLM."""

from __future__ import annotations

import socket
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from fake_provider import FakeProvider, Status, Text, verdict
from workers import PROVIDERS, SECRET, a_model

from proxy.classification.answers import TEXT_LIMIT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what LiteLLM's hundred imports warn of is not ours to mend
    from proxy.classification.worker import litellm_adapter as adapter

from proxy.classification.worker.asking import CompletionFailed, Form, Reply

Ask = Callable[..., Awaitable[Reply]]

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # LiteLLM's calls warn, too
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ask() -> AsyncIterator[Ask]:
    """Ask the model at an address."""
    async with adapter.connections() as session:  # one for all: LiteLLM keeps the first

        async def ask(url: str, name: str = "openai", streamed: bool = False) -> Reply:
            complete = adapter.LiteLLM(a_model(name, url), 300, session)
            heard = (lambda _: None) if streamed else None
            return await complete([{"role": "user", "content": "x"}], form=Form.TEXT, seconds=20, heard=heard)

        yield ask


@pytest.fixture
def said_by(ask: Ask) -> Callable[..., Awaitable[str]]:
    """Say how asking the model at an address fails."""

    async def said_by(url: str, name: str = "openai") -> str:
        with pytest.raises(CompletionFailed) as failed:
            await ask(url, name)
        assert SECRET not in str(failed.value.error)
        return str(failed.value.error)

    return said_by


@pytest.mark.parametrize("name", PROVIDERS)
async def test_nobody_at_the_address(name: str, said_by):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        said = await said_by(f"http://127.0.0.1:{taken.getsockname()[1]}", name)
    assert said == "no connection, connection refused: check llm.base_url"


async def test_a_name_that_nobody_knows(said_by):
    assert await said_by("http://no-such-host.invalid/v1") == (
        "no connection, its host's name is not known: check llm.base_url"
    )


async def test_tls_where_there_is_none(provider: FakeProvider, said_by):
    assert await said_by(provider.url.replace("http", "https")) == "no connection, TLS fails: check llm.base_url"


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (Status(401), "the key is refused: check llm.api_key"),
        (Status(403), "the key is refused, or may not use the model: check llm.api_key and llm.model"),
        (Status(404), "no such model or path: check llm.model and llm.base_url"),
        (Status(307, {"Location": "/elsewhere"}), "name the address itself in llm.base_url"),
    ],
    ids=["401", "403", "404", "307"],
)
async def test_what_to_look_at_is_named(name: str, answer: Status, hint: str, provider: FakeProvider, said_by):
    provider.answers = [answer]
    assert (await said_by(provider.url, name)).endswith(hint)


async def test_a_rate_is_no_lack_of_money(provider: FakeProvider, said_by):
    provider.answers = [Status(429)]
    assert await said_by(provider.url) == "RateLimitError 429"
    provider.answers = [Status(429, body='{"error": {"code": "insufficient_quota", "message": "Pay."}}')]
    assert await said_by(provider.url) == "RateLimitError 429, no credit is left at the provider"


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_key_that_the_model_repeats_stays_here(name: str, streamed: bool, provider: FakeProvider, ask):
    provider.answers = [verdict(summary=f"Your key is {SECRET}.", recommendations=[f"Use {SECRET} now."])]
    reply = await ask(provider.url, name, streamed)
    assert SECRET not in reply.text
    assert "Your key is [masked]." in reply.text
    assert "Use [masked] now." in reply.text


async def test_a_key_in_a_stream_that_is_cut_off_stays_here_too(provider: FakeProvider, ask):
    words = " ".join(map(str, range(TEXT_LIMIT // 4)))  # LiteLLM ends a stream that repeats itself
    provider.answers = [Text(f"Your key is {SECRET}. {words}")]
    reply = await ask(provider.url, streamed=True)
    assert len(reply.text) < len(provider.answers[0].text), "it was cut off"
    assert reply.text.startswith("Your key is [masked]. ")
    assert SECRET not in reply.text


async def test_a_key_of_the_environment_stays_here_too(provider: FakeProvider, ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    provider.answers = [verdict(summary="It is sk-from-the-environment.")]
    assert "It is [masked]." in (await ask(provider.url)).text
