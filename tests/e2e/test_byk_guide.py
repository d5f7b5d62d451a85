"""docs/BYK_LLM_GUIDE.md: a reader does what it says, from the first command to the last."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import yaml
from fake_provider import FakeProvider, Status, verdict
from guided import Block, Reader, a_reader, blocks
from real import ROOT, get, metric

from proxy import config
from proxy.classification.breaker import LONGEST_RESET

PAGE = ROOT / "docs" / "BYK_LLM_GUIDE.md"
BLOCKS = blocks(PAGE)
SERVED = {"OpenAI": "", "Anthropic": "", "Gemini": "", "Ollama": "11434", "A server that speaks OpenAI's API": "8000"}
"""The choices of step 2, each with the port at which the page has the model; none: at the provider's own address."""
KEY, NEXT_KEY = "sk-made-up-1", "sk-made-up-2"
SAYS = verdict(severity="critical", category="storage", summary="The disk fills up.")


def under(heading: str, language: str = "sh") -> list[Block]:
    """Return the blocks below a heading that begins so."""
    found = [block for block in BLOCKS if block.heading.startswith(heading) and block.language == language]
    assert found, heading
    return found


@asynccontextmanager
async def reading(choice: str, directory: Path) -> AsyncIterator[tuple[Reader, FakeProvider]]:
    """A reader of the page, and the model of their choice."""
    async with FakeProvider([SAYS]) as provider:
        reader = a_reader(directory, {} if SERVED[choice] else {"LLM_BASE_URL": provider.url})
        if port := SERVED[choice]:
            reader.ports[port] = provider.url.rpartition(":")[2]
        yield reader, provider


async def prepare(reader: Reader, choice: str) -> None:
    """Follow the page until everything is there to be started."""
    needs_key = not SERVED[choice]
    for block in under("1."):
        await reader.does(block, KEY + "\n" if needs_key else "")
    assert (reader.home / "llm-api-key").stat().st_mode & 0o077 == 0
    for block in (*under("2."), *under(choice)):
        await reader.does(block)
    for block in under("3."):
        assert await reader.does(block) == "config.yaml: OK\n"
    for block in under("4."):
        shown = await reader.does(block)
        for expected in under("4.", ""):
            assert expected.text in shown
        assert "hunter2" not in shown
        assert "10.0.0.7" not in shown


async def ready(reader: Reader) -> None:
    (status,) = (block for block in under("6.") if " status" in block.text)
    async with asyncio.timeout(60):
        while "is ready" not in await reader.does(status):
            await asyncio.sleep(0.3)


async def held(reader: Reader, name: str) -> dict:
    (alert,) = (
        alert for alert in await get(f"{reader.url('9093')}/api/v2/alerts") if alert["labels"]["alertname"] == name
    )
    return alert


async def look(reader: Reader, provider: FakeProvider) -> str:
    """Follow step 6, and return what its last block prints."""
    await ready(reader)
    _, first, again = under("6.")
    await reader.does(first)
    async with asyncio.timeout(30):
        while (await get(f"{reader.url('19094')}/api/v1/status"))["model"]["last_outcome"] != "ok":
            await asyncio.sleep(0.05)
    (count,) = under("What it costs")
    (series,) = (await reader.does(count)).splitlines()
    assert series == 'aiproxy_model_call_duration_seconds_count{outcome="ok"} 1.0'
    assert (await held(reader, "DiskWillFillSoon"))["labels"].keys() == {"alertname", "severity", "team"}
    shown = await reader.does(again)
    assert "The disk fills up." in shown
    assert 'ai_source="llm"' in shown
    assert "DiskWillFillSoon" in shown.splitlines()[-2]
    assert len(provider.requests) == 1
    return shown


async def add(reader: Reader, name: str) -> None:
    """Send an alert of another name the way the page does."""
    sent = under("7.")[-1].text.partition("\namtool")[0]
    await reader.does(Block("", "sh", sent.replace("ReplicationBroken", name)))


async def labels(reader: Reader, name: str) -> tuple[str, str]:
    found = await held(reader, name)
    return found["labels"]["ai_severity"], found["annotations"]["ai_source"]


@pytest.mark.parametrize("choice", ["Anthropic", "Gemini", "A server that speaks OpenAI's API"])
async def test_each_choice_leads_to_text_in_alertmanager(choice, tmp_path):
    async with reading(choice, tmp_path) as (reader, provider), AsyncExitStack() as stack:
        await prepare(reader, choice)
        await start(reader, stack)
        await look(reader, provider)
        assert (provider.requests[0].key == KEY) is not bool(SERVED[choice])


async def start(reader: Reader, stack: AsyncExitStack) -> AsyncExitStack:
    """Follow step 5, and return what ends the proxy."""
    alertmanager, proxy = under("5.")
    await stack.enter_async_context(reader.leaves_running(alertmanager, f"{reader.url('9093')}/-/ready"))
    of_the_proxy = await stack.enter_async_context(AsyncExitStack())
    await of_the_proxy.enter_async_context(reader.leaves_running(proxy, f"{reader.url('19094')}/-/ready"))
    return of_the_proxy


@pytest.mark.parametrize("choice", ["OpenAI", "Ollama"])
async def test_the_whole_way_from_a_model_to_a_routed_alert_and_back(choice, tmp_path):
    async with reading(choice, tmp_path) as (reader, provider), AsyncExitStack() as stack:
        await prepare(reader, choice)
        running = await start(reader, stack)
        await look(reader, provider)
        await route(reader)
        if choice == "OpenAI":
            await exchange_the_key(reader, provider, running)
        await lose_the_provider(reader, provider)
        transparent = under("Turn it off")[0]
        assert "DRAINING" in await reader.does(transparent)
        await add(reader, "Afterwards")
        assert "ai_severity" not in (await held(reader, "Afterwards"))["labels"]
        assert await metric(reader.url("19094"), "aiproxy_decisions_labelled") > 0
    if choice == "OpenAI":
        others = [block for name in SERVED if name != choice for block in under(name)]
        assert {block for block in BLOCKS if block.language == "sh"} - {*reader.done, *others} == set()


async def route(reader: Reader) -> None:
    """Follow step 7."""
    routes, canary, everything, new = under("7.")
    assert "pager" in (await reader.does(routes)).splitlines()
    assert "10" in await reader.does(canary)
    await reader.does(everything)
    shown = await reader.does(new)
    assert "ReplicationBroken" in shown.partition("FINGERPRINT")[0]
    assert 'ai_severity="critical"' in shown
    assert [one["name"] for one in (await held(reader, "ReplicationBroken"))["receivers"]] == ["pager"]
    assert await labels(reader, "ReplicationBroken") == ("critical", "llm")
    assert "ai_severity" not in (await held(reader, "DiskWillFillSoon"))["labels"], "it keeps what it has"


async def exchange_the_key(reader: Reader, provider: FakeProvider, running: AsyncExitStack) -> None:
    write, in_kubernetes = under("Another key")
    await add(reader, "BeforeTheReload")
    assert provider.requests[-1].key == KEY
    await reader.does(write, NEXT_KEY + "\n")
    await add(reader, "AfterTheReload")
    assert provider.requests[-1].key == NEXT_KEY
    await running.aclose()
    await running.enter_async_context(
        reader.leaves_running(under("5.")[1], f"{reader.url('19094')}/-/ready"),
    )
    await ready(reader)
    before = len(provider.requests)
    await add(reader, "ReplicationBroken")
    assert await labels(reader, "ReplicationBroken") == ("critical", "llm")
    assert len(provider.requests) == before, "the switch and the labels outlive the restart"

    await reader.does(in_kubernetes)
    sidecar = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "sidecar.yaml").read_text()))
    (workload,) = (one for one in sidecar if one["kind"] == "StatefulSet")
    volumes = workload["spec"]["template"]["spec"]["volumes"]
    (secret,) = (volume["secret"]["secretName"] for volume in volumes if "secret" in volume)
    patch, restart = (reader.home / "kubectl").read_text().splitlines()
    namespace = f"kubectl -n {workload['metadata']['namespace']}"
    assert patch.startswith(f"{namespace} patch secret {secret} ")
    assert restart == f"{namespace} rollout restart statefulset/{workload['metadata']['name']}"
    (init,) = workload["spec"]["template"]["spec"]["initContainers"]
    (file,) = (one["value"] for one in init["env"] if one["name"] == "LLM_API_KEY_FILE")
    patched = json.loads((reader.home / "patch").read_text())["data"]
    assert base64.b64decode(patched[Path(file).name]).decode().strip() == NEXT_KEY


async def lose_the_provider(reader: Reader, provider: FakeProvider) -> None:
    provider.forget([Status(401)])
    for n in range(5):
        await add(reader, f"Lost{n}")
        assert await labels(reader, f"Lost{n}") == ("warning", "rules")
    assert len(provider.requests) == 5
    (status,) = (block for block in under("6.") if " status" in block.text)
    assert [line for line in (await reader.does(status)).splitlines() if line.startswith("! model")]
    assert await metric(reader.url("19094"), 'aiproxy_model_breaker_state{position="0"}') == 2
    await add(reader, "NotAskedAbout")
    assert await labels(reader, "NotAskedAbout") == ("warning", "rules")
    assert len(provider.requests) == 5


def test_the_fallbacks_of_the_page_are_models(tmp_path):
    (shown,) = under("When the provider is down", "yaml")
    file = tmp_path / "config.yaml"
    file.write_text(shown.text)
    given = config.load(file, environ={}, flags={}).settings.llm.fallbacks
    assert [(one.provider, one.model, one.base_url) for one in given] == [
        ("anthropic", "claude-haiku-4-5", None),
        ("ollama", "llama3.2", "http://127.0.0.1:11434"),
    ]


def test_the_numbers_of_the_page_are_the_defaults():
    text = " ".join(PAGE.read_text().split())
    given = config.load(None, environ={}, flags={}).settings
    llm, breaker = given.llm, given.llm.circuit_breaker
    assert f"`enrichment.budget` ({given.enrichment.budget.total_seconds():.0f} s)" in text
    assert f"`llm.cache_ttl` ({llm.cache_ttl.total_seconds() / 3600:.0f} h)" in text
    assert f"`llm.max_tokens` ({llm.max_tokens} per answer)" in text
    assert f"`llm.concurrency` ({llm.concurrency} calls at once)" in text
    assert f"`llm.max_retries` ({llm.max_retries})" in text
    assert breaker.max_failures == 5
    assert "After five failures in a row" in text
    longest = LONGEST_RESET.total_seconds() / 60
    assert f"{breaker.reset_timeout.total_seconds():.0f} s, then longer, up to {longest:.0f} min" in text


def test_the_small_model_is_what_make_demo_starts():
    """What it does then is a proof of its own: test_demo.py."""
    assert "`make demo MODEL=local`" in PAGE.read_text()
    said = subprocess.run(
        ["make", "--no-print-directory", "-n", "demo", "MODEL=local"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert said.stdout.split()[-2:] == ["demo", "--model=local"]
