"""A real Prometheus, the proxy as a process, a real Alertmanager: one identity an alert, whatever the model does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import ClientSession
from fake_provider import FakeProvider, Hang, Reset, verdict
from fakes import posted
from real import Proxy, alertmanager, get, metric, model_ready, prometheus, proxy, send, webhook

from proxy.gateway import alerts

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEVERITIES = ("critical", "warning", "info", "noise")
KEY = "sk-canary-0123456789"


def routing(url: str) -> dict:
    """Route on the label the proxy adds, so that a label that flaps would be told by another receiver as well."""
    return {
        "route": {
            "receiver": "bare",
            "group_by": ["alertname"],
            "group_wait": "1s",
            "group_interval": "2s",
            "repeat_interval": "1h",
            "routes": [{"receiver": name, "matchers": [f'ai_severity="{name}"']} for name in SEVERITIES],
        },
        "receivers": [
            {"name": name, "webhook_configs": [{"url": url, "send_resolved": True}]} for name in ("bare", *SEVERITIES)
        ],
    }


DISCOVERED = 9.0
"""Seconds after which a new Prometheus knows its Alertmanagers; what it sends before is lost, with or without us."""


def rule(name: str, until: float, **labels: str) -> dict:
    """A rule that fires soon, with an annotation that moves at each evaluation, and resolves at `until`."""
    return {
        "alert": name,
        "expr": f"vector(time()) > {time.time() + DISCOVERED:.0f} < {until:.0f}",
        "labels": labels,
        "annotations": {"summary": f"{name} has been at {{{{ $value }}}}"},
    }


def other_each_time() -> FakeProvider:
    """A provider that never gives two answers of one severity in a row."""
    turns = itertools.cycle(SEVERITIES)
    return FakeProvider(lambda _: verdict(severity=next(turns)))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def kill_workers(of: Proxy) -> None:
    """Kill the model worker as often as there is one, until cancelled."""
    while True:
        for pid in children(of.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.5)


async def one_identity_and_one_notification_each(am_binary: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hooks, ams, proxies = {}, {}, {}
        providers = {
            "changes its mind": other_each_time(),
            "dies": FakeProvider([Reset()]),
            "hangs": FakeProvider([Hang()]),
        }
        for case, provider in providers.items():
            await stack.enter_async_context(provider)
            hooks[case] = await stack.enter_async_context(webhook())
            ams[case] = await stack.enter_async_context(alertmanager(am_binary, routing(hooks[case].url), tmp_path))
            proxies[case] = await stack.enter_async_context(
                proxy(
                    ams[case].url,
                    tmp_path,
                    "--enrichment.mode=enriched",
                    "--llm.enabled",
                    f"--llm.base-url={provider.url}",
                    "--llm.enable-cache=false",
                    "--llm.max-retries=0",
                    env={"LLM_API_KEY": KEY},
                )
            )
        await asyncio.gather(*(model_ready(p) for p in proxies.values()))
        killer = asyncio.create_task(kill_workers(proxies["dies"]))
        stack.callback(killer.cancel)

        over = time.time() + DISCOVERED + 20
        names = ["DiskFillingUp", "HighLatency", "Unlabelled"]
        rules = [
            rule(names[0], over, severity="critical", instance="db-1"),
            rule(names[1], over, severity="warning", instance="web-1"),
            rule(names[2], over),
        ]
        prom = await stack.enter_async_context(prometheus(rules, [p.target for p in proxies.values()], tmp_path))

        identities = defaultdict(set)
        text = defaultdict(set)
        async with asyncio.timeout(90):
            while not all(len(hooks[case].told("resolved", name)) for case in hooks for name in names):
                for case, am in ams.items():
                    for alert in await get(f"{am.url}/api/v2/alerts"):
                        identities[case, alert["labels"]["alertname"]].add(alert["fingerprint"])
                        text[case, alert["labels"]["alertname"]].add(alert["annotations"]["summary"])
                await asyncio.sleep(0.3)
        await asyncio.sleep(5)  # two more flushes, for whatever might be told twice

        for case in providers:
            for name in names:
                assert len(identities[case, name]) == 1, f"{case}: {name} changed its identity"
                assert len(text[case, name]) > 2, "its annotations moved all the same"
                fired, resolved = (hooks[case].told(status, name) for status in ("firing", "resolved"))
                assert (len(fired), len(resolved)) == (1, 1), f"{case}: {name}"
                assert fired == resolved
                assert fired[0]["ai_severity"] in SEVERITIES
        # Where there is no model's word, the author's holds.
        for case in ("dies", "hangs"):
            assert hooks[case].told("firing", names[0], "critical")
            assert hooks[case].told("firing", names[1], "warning")
        assert providers["changes its mind"].requests, "the model was asked"
        assert await metric(prom.url, "prometheus_notifications_errors_total") == 0
        assert await metric(prom.url, "prometheus_notifications_dropped_total") == 0
        for p in proxies.values():
            assert KEY not in p.log.read_text()
        assert await metric(proxies["dies"].admin, "aiproxy_worker_restarts_total") > 0


async def hanging_and_64_alerts_cost_the_budget_once_and_prometheus_no_error(am_binary: str, tmp_path: Path) -> None:
    series = " or ".join(f'label_replace(vector(1), "pod", "pod-{n}", "", "")' for n in range(64))
    storm = {"alert": "Storm", "labels": {"severity": "warning"}}
    async with (
        FakeProvider([Hang()]) as provider,
        webhook() as hook,
        alertmanager(am_binary, routing(hook.url), tmp_path) as am,
        proxy(
            am.url,
            tmp_path,
            "--enrichment.mode=enriched",
            "--llm.enabled",
            "--llm.provider=ollama",
            f"--llm.base-url={provider.url}",
        ) as px,
    ):
        await model_ready(px)
        storm["expr"] = f"({series}) and on() (vector(time()) > {time.time() + DISCOVERED:.0f})"
        async with prometheus([storm], [px.target], tmp_path) as prom:
            async with asyncio.timeout(60):
                while len(await get(f"{am.url}/api/v2/alerts")) < 64:
                    await asyncio.sleep(0.2)
            for alert in await get(f"{am.url}/api/v2/alerts"):
                assert alert["labels"]["ai_severity"] == "warning"
            assert await metric(prom.url, "prometheus_notifications_errors_total") == 0
            assert await metric(prom.url, "prometheus_notifications_dropped_total") == 0
            # One wait for all 64, and it ended with the budget of 3 s.
            assert await metric(px.admin, "aiproxy_post_waited_seconds_count") == 1
            assert 1 < await metric(px.admin, "aiproxy_post_waited_seconds_sum") < 10  # and not 64 times as long
            assert len(provider.requests) == 1


async def hanging_and_twenty_posts_of_new_alerts_in_a_row(am_binary: str, tmp_path: Path) -> None:
    """With the budget as shipped: waiting 3 s for each of them would be a minute, and Prometheus would drop alerts."""
    async with (
        FakeProvider([Hang()]) as provider,
        webhook() as hook,
        alertmanager(am_binary, routing(hook.url), tmp_path) as am,
        proxy(
            am.url,
            tmp_path,
            "--enrichment.mode=enriched",
            "--llm.enabled",
            "--llm.provider=ollama",
            f"--llm.base-url={provider.url}",
        ) as px,
    ):
        await model_ready(px)
        begun = time.monotonic()
        for n in range(20):
            assert await send(px.url, posted(f"New{n}")) == 200
        assert 6 < time.monotonic() - begun < 30  # and not a minute
        assert len(await get(f"{am.url}/api/v2/alerts")) == 20


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "scenario",
    [
        one_identity_and_one_notification_each,
        hanging_and_64_alerts_cost_the_budget_once_and_prometheus_no_error,
        hanging_and_twenty_posts_of_new_alerts_in_a_row,
    ],
    ids=lambda scenario: scenario.__name__,
)
async def test_whatever_the_model_does(am_binary, scenario, side_by_side, request):
    await side_by_side[request.node.nodeid]


async def test_what_is_handed_over_is_over_at_once(am_binary, tmp_path):
    """At whatever moment it is."""
    former, url = {"ai_severity": "info"}, "/api/v2/alerts"
    async with alertmanager(am_binary, routing("http://127.0.0.1:1/"), tmp_path) as am, ClientSession(am.url) as client:
        for n in range(100):
            alert = posted(f"A{n}", begun=-30)
            async with client.post(url, json=[alert | {"labels": alert["labels"] | former}]) as answered:
                assert answered.status == 200
            batch = alerts.decode(json.dumps([alert]).encode())
            item = batch.items[0]
            both = alerts.encode(batch, [alerts.ended(batch, item, item.read(), former, datetime.now(UTC))])
            async with client.post(url, data=both, headers={"Content-Type": "application/json"}) as answered:
                assert answered.status == 200
        held = await get(f"{am.url}{url}")
    assert len(held) == 100
    assert [each for each in held if former.items() <= each["labels"].items()] == []
