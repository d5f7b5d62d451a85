"""Classifiers of a user's own behind the whole proxy: whatever one does, alerts get a valid label in time."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from fake_provider import FakeProvider, Status, verdict
from fakes import body, posted
from own_classifiers import POINTS, ROGUE, SECRET_WORDS, install, on_path
from real import ROOT
from structlog.testing import capture_logs
from whole import Added, Whole, added, check_valid, whole

from proxy.classification.worker import client

BUDGET = 1.0
A_LITTLE = 1.5
"""Seconds for all that is not waiting, and this machine's other work."""
SOFT = [
    "Raises", "RaisesBase", "Exit", "Interrupt", "Cancelled", "Stop", "Memory", "Refuses", "HasNothingToSay", "Nothing",
    "Bytes", "WrongSeverity", "Nan", "NoCategory", "TenMegabytes", "Nested", "Generator", "BadMapping", "Hangs",
]  # fmt: skip
"""What ends one call."""
HARD = [
    ("rogue", "BlocksTheLoop"),
    ("rogue", "IgnoresCancellation"),
    ("rogue", "Leaves"),
    ("rogue", "LeavesAnotherBehind"),
]
"""What ends the worker's process."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "installed"
    install(directory, ROGUE, POINTS)
    # LiteLLM's stand-in, for what is asked when a classifier fails.
    on_path(monkeypatch, directory, ROOT / "tests" / "e2e" / "light")
    return directory


@asynccontextmanager
async def asking(classifier: str, provider: FakeProvider | None = None, **flags: str) -> AsyncIterator[Whole]:
    chosen = {
        "enrichment__budget": f"{BUDGET:g}s",
        "llm__provider": "classifier",
        "llm__model": classifier,
        "llm__timeout": "1s",
        "llm__max_retries": "0",
        "llm__concurrency": "64",
        "llm__stream": "false",  # its labels would be forwarded before it is known who wrote the text
    }
    if provider is None:
        provider = FakeProvider()
        provider.url = "http://127.0.0.1:9"
    async with whole(provider, **(chosen | flags)) as proxy:
        await proxy.ready()
        yield proxy


def fault(name: str) -> dict:
    return posted(name, begun=3600, ends=7200, severity="warning")


async def good(proxy: Whole, **labels: str) -> Added:
    alert = posted("Good", begun=3600, ends=7200, severity="info", **labels)
    (got,) = await proxy.post(alert)
    return added(alert, got)


@pytest.mark.parametrize("classifier", ["rogue", "thread"])
async def test_a_classifier_that_fails_costs_its_verdict_alone(classifier, installed):
    soft = [name for name in SOFT if (classifier, name) != ("thread", "Hangs")]  # which ends the process
    sent = [fault(name) for name in [*soft, "PrintsSecrets"]]
    out = io.StringIO()
    with capture_logs() as logs, redirect_stdout(out), redirect_stderr(out):
        async with asking(classifier, llm__circuit_breaker__enabled="false") as proxy:
            got, seconds = await proxy.send(body(*sent))
            assert seconds <= BUDGET + A_LITTLE
            *faults, prints = [added(one, other) for one, other in zip(sent, got.alerts, strict=True)]
            for found in faults:
                check_valid(found, [])
                assert (found.labels["ai_severity"], found.annotations["ai_source"]) == ("warning", "rules")
            assert (prints.labels["ai_category"], prints.annotations["ai_source"]) == ("network", "llm")
            await proxy.calls(len(sent))
            again = await proxy.post(*sent)
            assert [one["labels"] for one in again] == [one["labels"] for one in got.alerts]
            assert len(proxy.alertmanager.posts) == 2, "each was forwarded once"
            assert (await good(proxy)).annotations["ai_source"] == "llm"
            assert (await good(proxy, team="db")).annotations["ai_model"] == classifier
            assert await proxy.metric("aiproxy_worker_restarts_total") == 0
            assert await proxy.metric("aiproxy_faults_total") == 0
            said = repr(logs) + out.getvalue() + await proxy.get("/metrics") + repr(await proxy.status())
    assert SECRET_WORDS not in said


async def test_a_classifier_is_asked_about_one_alert_at_a_time(installed):
    async with asking("rogue", llm__batch_size="5", enrichment__budget="5s", llm__timeout="5s") as proxy:
        sent = [posted(name, begun=3600, ends=7200, severity="info") for name in ("Good", "PrintsSecrets")]
        for one, got in zip(sent, await proxy.post(*sent), strict=True):
            assert added(one, got).annotations["ai_source"] == "llm"
        assert "aiproxy_model_batched_verdicts_total{" not in await proxy.get("/metrics")


async def test_a_classifier_that_takes_its_process_with_it_costs_no_alert_and_no_time(installed, monkeypatch):
    monkeypatch.setattr(client, "_GRACE", 0.5)

    async def survived(classifier: str, name: str) -> None:
        async with asking(classifier) as proxy:
            sent = fault(name)
            got, seconds = await proxy.send(body(sent))
            assert seconds <= BUDGET + A_LITTLE
            found = added(sent, got.alerts[0])
            check_valid(found, [])
            assert (found.labels["ai_severity"], found.annotations["ai_source"]) == ("warning", "rules")
            # While it hangs, and until it is replaced, alerts go on.
            other, seconds = await proxy.send(body(posted("Other", begun=3600, ends=7200, severity="critical")))
            assert seconds <= BUDGET + A_LITTLE
            assert other.alerts[0]["labels"]["ai_severity"] == "critical"
            assert len(proxy.alertmanager.posts) == 2
            async with asyncio.timeout(20):
                while not await proxy.metric("aiproxy_worker_restarts_total"):
                    await asyncio.sleep(0.05)
            await proxy.ready()
            assert (await good(proxy)).annotations["ai_source"] == "llm"
            assert await proxy.metric("aiproxy_faults_total") == 0

    await asyncio.gather(*(survived(*one) for one in HARD))


async def test_the_next_model_is_asked_when_a_classifier_has_nothing_to_say(installed):
    async with (
        FakeProvider([verdict(severity="warning", category="capacity")]) as provider,
        asking("rogue", provider, llm__fallbacks=f"openai/gpt-4o@{provider.url}/v1") as proxy,
    ):
        sent = [fault(name) for name in ("HasNothingToSay", "Refuses", "Good")]
        got = [added(one, other) for one, other in zip(sent, await proxy.post(*sent), strict=True)]
        assert [found.annotations["ai_model"] for found in got] == ["gpt-4o", "gpt-4o", "rogue"]
        assert [found.labels["ai_category"] for found in got] == ["capacity", "capacity", "network"]
        attempts = await proxy.get("/metrics")
        assert re.search(r'attempt_duration_seconds_count{outcome="undecided",provider="classifier"} 1\.0', attempts)


async def test_having_nothing_to_say_is_no_failure(installed):
    with capture_logs() as logs:
        async with asking("rogue") as proxy:
            for n in range(8):
                alert = posted("HasNothingToSay", begun=3600, ends=7200, severity="warning", team=f"t{n}")
                (got,) = await proxy.post(alert)
                assert added(alert, got).annotations["ai_source"] == "rules"
            await proxy.calls(8)
            ((model,),) = [(await proxy.status())["model"]["models"]]
            assert (model["breaker"], model["requests"]) == ("closed", 8)
    assert not [entry for entry in logs if "fails" in entry["event"]]


async def test_a_classifier_may_stand_behind_a_model_that_fails(installed, monkeypatch):
    monkeypatch.setattr(client, "_GRACE", 0.5)
    async with (
        FakeProvider([Status(401)]) as provider,
        asking("m", provider, llm__provider="openai", llm__fallbacks="classifier/rogue/small") as proxy,
    ):
        assert (await good(proxy)).annotations["ai_model"] == "rogue/small"
        # Others are asked in the same process: a hang costs them that process, once.
        await proxy.post(fault("BlocksTheLoop"))
        async with asyncio.timeout(20):
            while not await proxy.metric("aiproxy_worker_restarts_total"):
                await asyncio.sleep(0.05)
        await proxy.ready()
        provider.answers = [verdict(category="capacity")]
        assert (await good(proxy, team="db")).annotations["ai_model"] == "m"
