"""An Alertmanager that is dead for minutes beside a healthy one: the healthy one hears of alerts as fast as ever.

Prometheus before 3.10 sends each batch to all its Alertmanagers and waits for all, so that a proxy which holds on to a
dead one throttles the healthy one. Two of everything run side by side: in one pair an Alertmanager is dead.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from fakes import posted
from faults.injector import Injector, injector
from faults.station import SILENT
from real import ROOT, Program, alertmanager, get, metric, prometheus, proxy, send

STORM = "Storm"
SERIES = 50
"""Series of one recording rule: what Prometheus does for them grows with the square."""
DISCOVERED = 9.0
"""Seconds after which a new Prometheus knows its Alertmanagers."""
TRIED_FOR = 4.0
SLOWER = 1.5
"""Times that the healthy one may take beside a dead one, and `GRACE` seconds, which is a sending of Prometheus's."""
GRACE = 4.0
DROPPED = "prometheus_notifications_dropped_total"
AT_ONCE = 2.0
"""Seconds: a POST that is held on to takes longer, on a busy machine too."""


@dataclass
class Neighbours:
    """Two Alertmanagers with a proxy before each; `counted` stands before the second proxy."""

    healthy: Program
    other: Program
    targets: tuple[str, str]
    counted: Injector


@dataclass
class Pair:
    prom: Program
    healthy: Program
    counted: Injector


@dataclass(frozen=True)
class DeadNeighbour:
    alerts: int
    seconds: float
    """That the storm goes on, at least."""

    async def __call__(self, binary: str, directory: Path) -> None:
        async with AsyncExitStack() as stack:
            neighbours = await asyncio.gather(*(self._neighbours(stack, binary, directory) for _ in range(2)))
            await neighbours[1].other.kill()
            begins = time.time() + DISCOVERED + TRIED_FOR + 4
            both_live, one_dead = await asyncio.gather(
                *(self._told_by_prometheus(stack, each, begins, directory) for each in neighbours)
            )
            await asyncio.sleep(begins - time.time())
            before = len(one_dead.counted.posts)
            assert 502 in {post.status for post in one_dead.counted.posts}, "it is tried again no more"
            dropped = await metric(one_dead.prom.url, DROPPED)
            live, beside_dead = await asyncio.gather(*(self._heard(pair) for pair in (both_live, one_dead)))
            await asyncio.sleep(begins + self.seconds - time.time())
            assert await self._held(one_dead.healthy) == self.alerts, "resends come in time"
            posts = [post for post in one_dead.counted.posts[before:] if post.status]
            longest = max(post.seconds for post in posts)
            print(
                f"{self.alerts} alerts: {live:.1f} s until a healthy Alertmanager had them all, {beside_dead:.1f} s "
                f"beside one that is dead ({beside_dead / live:.2f} times). There {len(posts)} POSTs in "
                f"{self.seconds:.0f} s were answered {sorted({post.status for post in posts})}, "
                f"the longest after {longest:.2f} s"
            )
            assert {post.status for post in posts} == {502}
            assert longest < AT_ONCE
            assert beside_dead <= SLOWER * live + GRACE
            assert await metric(one_dead.prom.url, DROPPED) == dropped
            assert {post.status for post in both_live.counted.posts if post.status} == {200}  # 0: on its way

    async def _neighbours(self, stack: AsyncExitStack, binary: str, directory: Path) -> Neighbours:
        ams = [await stack.enter_async_context(alertmanager(binary, SILENT, directory)) for _ in range(2)]
        proxies = [
            await stack.enter_async_context(
                proxy(am.url, directory, "--enrichment.mode=enriched", env={"PYTHONPATH": str(ROOT)})
            )
            for am in ams
        ]
        # One that never took a POST is not waited for at all.
        assert await send(proxies[1].url, posted("Before")) == 200
        counted = await stack.enter_async_context(injector(proxies[1].url))
        return Neighbours(ams[0], ams[1], (proxies[0].target, f"127.0.0.1:{counted.port}"), counted)

    async def _told_by_prometheus(
        self, stack: AsyncExitStack, neighbours: Neighbours, begins: float, directory: Path
    ) -> Pair:
        # The series are recorded first, as each alert carries the address of its whole expression.
        series = " or ".join(f'label_replace(vector(1), "pod", "pod-{n}", "", "")' for n in range(SERIES))
        recorded = (
            {"record": "pods", "expr": series, "labels": {"shard": str(n)}} for n in range(self.alerts // SERIES)
        )
        storm = {"alert": STORM, "expr": f"pods and on() (vector(time()) > {begins:.0f})"}
        # One alert fires from the start: it finds out that Alertmanager is dead, and pays for it.
        rules = [{"alert": "Early", "expr": "vector(1)"}, *recorded, storm]
        prom = await stack.enter_async_context(prometheus(rules, neighbours.targets, directory, resend_delay=9))
        return Pair(prom, neighbours.healthy, neighbours.counted)

    async def _heard(self, pair: Pair) -> float:
        """Return how many seconds it takes until the healthy Alertmanager has all alerts."""
        begun = time.monotonic()
        async with asyncio.timeout(100):
            while await self._held(pair.healthy) < self.alerts:
                await asyncio.sleep(0.5)
        return time.monotonic() - begun

    async def _held(self, am: Program) -> int:
        filtered = await get(f'{am.url}/api/v2/alerts?filter=alertname%3D"{STORM}"')
        return len({alert["fingerprint"] for alert in filtered})


QUICK = {"a dead Alertmanager beside a healthy one": DeadNeighbour(alerts=500, seconds=6)}
LONG = {"an Alertmanager dead for minutes beside a healthy one": DeadNeighbour(alerts=3000, seconds=150)}
