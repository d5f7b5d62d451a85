"""A storm of alerts costs one call of the model for each alertname, and the next storm of the same kind none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fake_provider import FakeProvider, Slow, verdict
from lab import LIGHT
from redis_servers import redis_server
from storms import Storm
from whole import Whole, labelling, whole

from proxy.classification.turns import Turns

QUICK = Storm(alerts=1000, names=17)
WHOLE = Storm(alerts=10_000, names=167)
CALLS = 1.1
"""Of the model, for each alertname, at most."""
ANSWERS_AFTER = 0.1
"""Seconds: long enough that hundreds of alerts of a class come before its verdict."""

STORMS = [
    pytest.param(QUICK, id="quick"),
    pytest.param(WHOLE, id="10,000 alerts", marks=[pytest.mark.proof, pytest.mark.timeout(300)]),
]


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are counted at the provider; how they are made is for others to test."""
    monkeypatch.setenv("PYTHONPATH", LIGHT)


async def rage(proxies: Sequence[Whole], storm: Storm, wave: int) -> list[dict[str, str]]:
    """Send one wave to each of the proxies, as Prometheus does, and return the labels that the first one added.

    Fail when another one added something else.
    """
    labels = []
    for content in storm.posts(wave):
        got = [got.alerts for got, _ in await asyncio.gather(*(proxy.send(content) for proxy in proxies))]
        for sent, *ours in zip(json.loads(content), *got, strict=True):
            news = [{n: v for n, v in one["labels"].items() if n not in sent["labels"]} for one in ours]
            assert all(one == news[0] for one in news)
            labels.append(news[0])
    for proxy in proxies:
        assert await proxy.metric("aiproxy_faults_total") == 0
    return labels


async def settled(provider: FakeProvider) -> None:
    """Wait until the model has been asked for the last time."""
    async with asyncio.timeout(60):
        before = -1
        while before != len(provider.requests):
            before = len(provider.requests)
            await asyncio.sleep(10 * ANSWERS_AFTER)


def model() -> FakeProvider:
    return FakeProvider([Slow(verdict(severity="critical", category="network"), ANSWERS_AFTER)])


@pytest.mark.parametrize("storm", STORMS)
async def test_a_storm_costs_one_call_an_alertname_and_the_next_none_after_a_restart_too(storm: Storm, tmp_path: Path):
    kept = {"store__url": "sqlite:", "storage__path": str(tmp_path / "kept")}
    async with model() as provider:
        async with whole(provider, **kept) as proxy:
            await proxy.ready()
            assert len(await rage([proxy], storm, 0)) == storm.alerts
            await settled(provider)
            assert storm.names <= len(provider.requests) <= CALLS * storm.names
            print(f"calls of the model: {len(provider.requests)} for {storm.names} alertnames")
            provider.requests.clear()
            found = await rage([proxy], storm, 1)
            assert found == [{"ai_severity": "critical", "ai_category": "network"}] * storm.alerts
        async with whole(provider, **kept) as proxy:
            await proxy.ready()
            found = await rage([proxy], storm, 2)
            assert found == [{"ai_severity": "critical", "ai_category": "network"}] * storm.alerts
            assert await proxy.metric("aiproxy_post_waited_seconds_count") == 0
        assert provider.requests == []


@pytest.mark.parametrize("storm", STORMS)
async def test_two_proxies_of_one_redis_ask_once_for_both(
    storm: Storm, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    left_alone: list[Turns] = []
    leave_alone = Turns.leave_alone

    def noted(turns: Turns) -> None:
        left_alone.append(turns)
        leave_alone(turns)

    monkeypatch.setattr(Turns, "leave_alone", noted)
    for _ in range(5):
        left_alone.clear()
        if await asked_once_for_both(storm, tmp_path_factory.mktemp("storm"), left_alone):
            return
    pytest.fail("Redis never answered within store.timeout, the longest there is: nothing was shown")


async def asked_once_for_both(storm: Storm, directory: Path, left_alone: Sequence[Turns]) -> bool:
    """Send a storm to two proxies, and the next one of its kind; fail when that takes more calls than it should.

    False when a proxy has `left_alone` the store, which did not answer in time: without it each asks by itself. So it
    is on a machine that stands still for a second.
    """
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server(directory))
        provider = await stack.enter_async_context(model())
        shared = {"store__url": redis.url, "alertmanager__replicas": "2", "store__timeout": "1s"}
        proxies = [
            await stack.enter_async_context(whole(provider, storage__path=str(directory / f"{n}"), **shared))
            for n in range(2)
        ]
        for proxy in proxies:
            await proxy.ready()
            await proxy.until(labelling)
        assert len(await rage(proxies, storm, 0)) == storm.alerts
        await settled(provider)
        if left_alone:
            return False
        assert storm.names <= len(provider.requests) <= CALLS * storm.names
        print(f"calls of the model by two proxies: {len(provider.requests)} for {storm.names} alertnames")
        provider.requests.clear()
        found = await rage(proxies, storm, 1)
        if left_alone:
            return False
        assert found == [{"ai_severity": "critical", "ai_category": "network"}] * storm.alerts
        assert provider.requests == []
        return True
