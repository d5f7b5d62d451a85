"""A model that hangs, and a real Prometheus with its default queue: nothing is dropped, and nothing comes late."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_provider import FakeProvider, Hang
from real import Program, alertmanager, get, metric, model_ready, prometheus, proxy
from test_identity import DISCOVERED

NOBODY = {"route": {"receiver": "nobody", "group_by": ["alertname"]}, "receivers": [{"name": "nobody"}]}
LATER = 10.0
"""Seconds that the last alert may come later than without a proxy,"""
SHARE = 0.1
"""and as a share of the time that it takes without one."""


@dataclass(frozen=True)
class Rising:
    """All alerts of some rules begin to fire at one moment."""

    names: int
    each: int
    every: str
    """How often Prometheus evaluates."""
    ahead: float
    """Seconds that Prometheus gets to find its Alertmanagers and load its rules."""

    def rules(self, at: float) -> list[dict[str, Any]]:
        series = " or ".join(f'label_replace(vector(1), "pod", "pod-{n}", "", "")' for n in range(self.each))
        expr = f"({series}) and on() (vector(time()) > {at:.0f})"
        return [
            {
                "alert": f"Storm{n}",
                "expr": expr,
                "labels": {"severity": "warning"},
                "annotations": {"summary": "{{ $value }}"},
            }
            for n in range(self.names)
        ]


async def all_there(am: Program, alerts: int) -> float:
    """Return when an Alertmanager has got so many alerts, in seconds since 1970. Nothing is sent twice in a minute."""
    while await metric(am.url, 'alertmanager_alerts_received_total{status="firing"') < alerts:
        await asyncio.sleep(0.1)
    return time.time()


@pytest.mark.parametrize(
    "rising",
    [
        pytest.param(Rising(5, 60, "1s", DISCOVERED + 2), id="300 alerts"),
        pytest.param(
            Rising(167, 60, "5s", DISCOVERED + 20),
            id="10,000 alerts",
            marks=[pytest.mark.proof, pytest.mark.timeout(300)],
        ),
    ],
)
async def test_a_storm_with_a_hanging_model_comes_in_time_and_whole(rising: Rising, am_binary: str, tmp_path: Path):
    alerts = rising.names * rising.each
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(FakeProvider([Hang()]))
        ams = [await stack.enter_async_context(alertmanager(am_binary, NOBODY, tmp_path)) for _ in range(2)]
        px = await stack.enter_async_context(
            proxy(
                ams[1].url,
                tmp_path,
                *("--enrichment.mode=enriched", "--llm.enabled"),
                *("--llm.provider=ollama", f"--llm.base-url={provider.url}"),
            )
        )
        await model_ready(px)
        at = time.time() + rising.ahead
        targets = [ams[0].url.removeprefix("http://"), px.target]
        proms = [
            await stack.enter_async_context(
                prometheus(rising.rules(at), [target], tmp_path, resend_delay=60, every=rising.every)
            )
            for target in targets
        ]
        async with asyncio.timeout(rising.ahead + 120):
            ends = await asyncio.gather(*(all_there(am, alerts) for am in ams))
        direct, proxied = (end - at for end in ends)
        waited = await metric(px.admin, "aiproxy_post_waited_seconds_sum")
        print(f"the last of {alerts}: {direct:.1f} s direct, {proxied:.1f} s proxied; POSTs waited {waited:.1f} s")
        assert [len(await get(f"{am.url}/api/v2/alerts")) for am in ams] == [alerts, alerts]
        assert provider.requests, "the model was asked"
        assert await metric(px.admin, 'aiproxy_alerts_total{added="labels"}') >= alerts
        for prom in proms:
            assert await metric(prom.url, "prometheus_notifications_dropped_total") == 0
            assert await metric(prom.url, "prometheus_notifications_errors_total") == 0
        assert proxied <= direct * (1 + SHARE) + LATER
