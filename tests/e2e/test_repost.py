"""Late text and a real Alertmanager: in the first page, and no resolve is undone for good."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeModel, posted, settings, stamp, verdict
from real import alertmanager, get, send, webhook

from proxy.app import build
from proxy.classification.classifier import unheard
from proxy.config import Settings
from proxy.errors import UpstreamError
from proxy.gateway.forwarder import Forwarder


class Model(FakeModel):
    """Answers about an alert when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.say: dict[str, asyncio.Event] = {}

    async def classify(self, alert, early=unheard, seconds=None):
        await self.say.setdefault(alert.name, asyncio.Event()).wait()
        return verdict()


def grouped(url: str, group_wait: str) -> dict[str, Any]:
    return {
        "route": {
            "receiver": "hook",
            "group_by": ["alertname"],
            "group_wait": group_wait,
            "group_interval": "2s",
            "repeat_interval": "1h",
        },
        "receivers": [{"name": "hook", "webhook_configs": [{"url": url, "send_resolved": True}]}],
    }


def texts(notifications: list[dict[str, Any]], name: str) -> list[str | None]:
    """Return the model's text in each notification about alert `name`."""
    alerts = [alert for notification in notifications for alert in notification["alerts"]]
    return [alert["annotations"].get("ai_summary") for alert in alerts if alert["labels"]["alertname"] == name]


async def late(am_binary: str, tmp_path: Path, *, mode: str) -> None:
    model = Model()
    async with (
        webhook() as hook,
        alertmanager(am_binary, grouped(hook.url, "6s"), tmp_path) as am,
        build(settings(am.url, enrichment__mode=mode, enrichment__budget="300ms"), model=model) as px,
    ):
        alert = posted("Late", severity="warning")
        assert await send(f"http://127.0.0.1:{px.data_port}", alert) == 200
        [before] = await get(f"{am.url}/api/v2/alerts")
        await asyncio.sleep(2)
        model.say["Late"].set()
        await asyncio.sleep(1)
        [after] = await get(f"{am.url}/api/v2/alerts")
        assert "ai_model" not in before["annotations"]
        assert after["annotations"]["ai_summary"] == "The model says so."
        same = ("labels", "startsAt", "endsAt", "generatorURL", "fingerprint")
        assert {name: after[name] for name in same} == {name: before[name] for name in same}
        assert hook.notifications == [], "it was still held back"
        async with asyncio.timeout(10):
            while not hook.notifications:
                await asyncio.sleep(0.1)
        await asyncio.sleep(5)  # two more flushes
        assert texts(hook.notifications, "Late") == ["The model says so."]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "scenario",
    [partial(late, mode=mode) for mode in ("enriched", "transparent_with_recommendations")],
    ids=lambda scenario: scenario.keywords["mode"],
)
async def test_text_that_lands_two_seconds_late_is_in_the_first_page_and_there_is_no_second(
    am_binary, scenario, side_by_side, request
):
    await side_by_side[request.node.nodeid]


async def freezes(pid: int, rng: random.Random) -> None:
    """Stop Alertmanager for some seconds, once, at a random moment."""
    await asyncio.sleep(rng.uniform(0, 4))
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(rng.uniform(0.2, 5))
    finally:
        os.kill(pid, signal.SIGCONT)


async def life(url: str, name: str, model: Model, rng: random.Random) -> dict[str, Any]:
    """Fire, let the text land, resolve; each at a random moment. Return the resolve."""
    firing = posted(name, severity="warning")
    said = model.say[name] = asyncio.Event()
    landing = asyncio.get_running_loop().call_later(rng.uniform(0, 3.5), said.set)
    await send(url, firing)
    await asyncio.sleep(1.1 + rng.uniform(0, 3))
    resolve = {**firing, "endsAt": stamp()}
    await send(url, resolve)
    landing.cancel()
    return resolve


@pytest.fixture
def ours(monkeypatch):
    """How the POSTs of ours ended."""
    found: Counter[str] = Counter()
    send_it = Forwarder.send

    async def counted(*args):
        try:
            status = await send_it(*args)
        except UpstreamError as exc:
            found[type(exc).__name__] += 1
            raise
        found[str(status)] += 1
        return status

    monkeypatch.setattr(Forwarder, "send", counted)
    return found


def given(url: str) -> Settings:
    # As many places as there are lives: each has its call under way until the model is told to say something.
    return settings(url, enrichment__mode="enriched", enrichment__budget="100ms", llm__concurrency="16")


async def play(binary: str, directory: Path, rounds: int, seed: int) -> None:
    rng, model = random.Random(seed), Model()
    async with (
        webhook() as hook,
        alertmanager(binary, grouped(hook.url, "30s"), directory) as am,
        build(given(am.url), model=model) as px,
    ):
        url = f"http://127.0.0.1:{px.data_port}"
        for turn in range(rounds):
            async with asyncio.TaskGroup() as group:
                group.create_task(freezes(am.process.pid, rng))
                lives = [group.create_task(life(url, f"R{turn}-{n}", model, rng)) for n in range(16)]
            await asyncio.sleep(0.5)  # what waited in its sockets is applied by now
            held = await get(f"{am.url}/api/v2/alerts")
            for one in lives:
                assert await send(url, one.result()) == 200
            active = [alert["labels"]["alertname"] for alert in await get(f"{am.url}/api/v2/alerts")]
            assert active == [], f"seed {seed}, round {turn}"
            print(f"round {turn}: {len(held)} of 16 had come back until the resend of their resolve")


@pytest.mark.timeout(120)
async def test_a_frozen_alertmanager_and_the_next_resend_of_the_resolve_ends_it(am_binary, tmp_path, ours):
    await play(am_binary, tmp_path, rounds=2, seed=1)
    assert ours["200"], ours


@pytest.mark.proof
@pytest.mark.timeout(1800)
async def test_a_frozen_alertmanager_and_the_next_resend_of_the_resolve_ends_it_long(am_binary, tmp_path, ours):
    await play(am_binary, tmp_path, rounds=60, seed=random.randrange(1 << 32))
    print(ours)
    assert ours["200"], ours
    assert ours["UpstreamTimeout"], ours
