"""The providers beside the four: the settings that the page of providers shows for them, through the real LiteLLM.

Their wires are OpenAI's but for Bedrock's, so that one small server plays them all. Where a provider is when nobody
names an address is what LiteLLM looks up: no name is resolved, and nothing is sent.
"""

from __future__ import annotations

import json
import socket
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from configuring import load
from fake_provider import verdict
from provider_page import PAGE, sections, table
from provider_wires import OpenAI, Said

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what LiteLLM's hundred imports warn of is not ours to mend
    from proxy.classification.worker import litellm_adapter as adapter

from proxy.classification.worker import providers
from proxy.classification.worker.asking import CompletionFailed, Form
from proxy.classification.worker.protocol import Model

pytestmark = [
    pytest.mark.usefixtures("a_directory_of_its_own"),
    pytest.mark.filterwarnings("ignore"),  # LiteLLM would make failed calls of its own warnings
]

KEY = "sk-made-up"
ANSWER = verdict().text
MESSAGES = [{"role": "system", "content": "Say."}, {"role": "user", "content": "An alert."}]
ROWS = {row[0]: row for row in table("provider")}


@dataclass
class FarEnd:
    url: str = ""
    asked: list[tuple[str, str, Any]] = field(default_factory=list)
    """Path and query, key, and body of each request."""


@pytest.fixture
async def far_end() -> AsyncIterator[FarEnd]:
    found, wire = FarEnd(), OpenAI()

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        key = request.headers.get("api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        found.asked.append((request.path_qs, key, body))
        if request.path.endswith("/converse"):
            said = {"toolUse": {"toolUseId": "1", "name": "json_tool_call", "input": json.loads(ANSWER)}}
            message = {"role": "assistant", "content": [said if "toolConfig" in body else {"text": ANSWER}]}
            usage = {"inputTokens": 480, "outputTokens": 90, "totalTokens": 570}
            return web.json_response({"output": {"message": message}, "stopReason": "end_turn", "usage": usage})
        if not body.get("stream"):
            # Groq always names a tier, and LiteLLM relies on it.
            return web.json_response({**wire.whole(Said(ANSWER), body), "service_tier": "on_demand"})
        response = web.StreamResponse(headers={"Content-Type": wire.content_type})
        await response.prepare(request)
        for frame in wire.frames(Said(ANSWER), body):
            await response.write(frame)
        return response

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@dataclass
class Ours:
    """The connections that LiteLLM is handed, and how many requests it has begun through them."""

    session: aiohttp.ClientSession
    requests: int = 0


@pytest.fixture
async def ours() -> AsyncIterator[Ours]:
    async def counted(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        found.requests += 1
        return await send(request)

    async with aiohttp.ClientSession(middlewares=(counted,)) as session:
        found = Ours(session)
        yield found
    await adapter.litellm.close_litellm_async_clients()


def shown(heading: str) -> Model:
    """Return the model of the settings that the page shows."""
    text = "\n".join(line for line in sections()[heading].splitlines() if "api_key_file" not in line)
    (model,) = load(text).settings.llm.models
    return Model(model.provider, model.model, KEY, model.base_url)


async def ask(model: Model, session: aiohttp.ClientSession, *, streamed: bool = False) -> str:
    complete = adapter.LiteLLM(model, 400, session)
    heard = (lambda _: None) if streamed else None
    return (await complete(MESSAGES, form=Form.SCHEMA, seconds=20, heard=heard)).text


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("heading", "path", "at"),
    [
        ("Azure OpenAI", "", "/openai/deployments/my-deployment/chat/completions?api-version=2025-02-01-preview"),
        ("Groq", "/openai/v1", "/openai/v1/chat/completions"),
        ("Mistral", "/v1", "/v1/chat/completions"),
        ("Others", "/api/v1", "/api/v1/chat/completions"),
        ("vLLM, LM Studio, llama.cpp", "/v1", "/v1/chat/completions"),
    ],
)
async def test_one_of_openais_kind_is_asked_with_the_schema(heading, path, at, streamed, far_end, ours):
    model = replace(shown(heading), base_url=far_end.url + path)
    assert json.loads(await ask(model, ours.session, streamed=streamed)) == json.loads(ANSWER)
    # What goes through LiteLLM's own connections, the page says under its limits.
    theirs = heading == "Azure OpenAI" or (streamed and heading in ("Groq", "Mistral", "Others"))
    assert ours.requests == (0 if theirs else 1)
    ((where, key, body),) = far_end.asked
    assert (where, key) == (at, KEY)
    assert where.partition("api-version=")[2] in PAGE.read_text()
    assert body["response_format"]["type"] == "json_schema"
    assert ROWS.get(heading, ROWS["others"])[4].startswith("JSON schema")
    comes_whole = heading == "Groq"
    assert bool(body.get("stream")) is (streamed and not comes_whole)
    assert ROWS.get(heading, ROWS["others"])[5].startswith("no" if comes_whole else ("yes", "mostly"))


async def test_azure_is_asked_in_the_version_that_the_environment_names(far_end, ours, monkeypatch):
    monkeypatch.setenv("AZURE_API_VERSION", "2030-01-01")
    await ask(replace(shown("Azure OpenAI"), base_url=far_end.url), ours.session)
    assert far_end.asked[0][0].endswith("?api-version=2030-01-01")


@pytest.mark.parametrize(
    ("name", "form"),
    [(None, "toolConfig"), ("anthropic.claude-haiku-4-5-20251001-v1:0", "outputConfig")],
    ids=["nova by a tool call", "claude by the schema"],
)
async def test_bedrock(name, form, far_end, ours, monkeypatch):
    monkeypatch.setenv("AWS_REGION_NAME", "eu-central-1")
    model = replace(shown("Bedrock"), base_url=far_end.url)
    model = replace(model, model=name) if name else model
    assert json.loads(await ask(model, ours.session)) == json.loads(ANSWER)
    ((where, key, body),) = far_end.asked
    assert where.startswith("/model/")
    assert where.endswith("/converse")
    assert key == KEY
    assert form in body


@pytest.mark.parametrize("heading", ["OpenAI", "Anthropic", "Gemini", "Bedrock", "Groq", "Mistral"])
async def test_a_provider_is_asked_at_the_address_of_the_page(heading, ours, monkeypatch):
    monkeypatch.setenv("AWS_REGION_NAME", "eu-central-1")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    looked_for = set()

    def nowhere(host: Any, *_: object, **__: object) -> None:
        looked_for.add(host.decode() if isinstance(host, bytes) else host)
        raise socket.gaierror(socket.EAI_NONAME, "nowhere")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(CompletionFailed):
        await ask(shown(heading), ours.session)
    assert looked_for == {ROWS[heading][3].strip("`").replace("REGION", "eu-central-1")}
    assert bool(ours.requests) is (heading != "Bedrock")


@pytest.mark.parametrize("row", [row for row in ROWS.values() if row[0] != "others"], ids=lambda row: row[0])
def test_what_the_page_says_of_thinking(row):
    model = shown(row[0])
    effort = providers.reasoning_effort(model.provider, model.model)
    if row[0] == "OpenAI":
        assert {providers.reasoning_effort("openai", f"gpt-5{size}") for size in ("", "-mini", "-nano")} == {"minimal"}
        assert effort is None
    else:
        assert (effort == "none") is row[6].startswith("none")
        assert (effort is None) is (row[6] == "as the model does")
