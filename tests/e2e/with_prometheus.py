"""The same promise with the real sender: its own pace, its own connections, its own memory of what fires."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import Lab, background, by_rules, lab
from real import Program, metric, prometheus
from redis_servers import redis_server
from test_identity import DISCOVERED, rule

CADENCE = 6
"""Seconds between two sends of an alert. It ends 20 s after the last one."""
NAMES = ("First", "Second", "Third")
PEER_TIMEOUT = 2.0
"""Seconds: nothing is away here, so the second Alertmanager may give the first one more time."""


@dataclass(frozen=True)
class WithPrometheus:
    """Three alerts that fire for `seconds`, while `disturb` goes on."""

    disturb: Callable[[Lab, Program], Coroutine[Any, Any, None]]
    seconds: float = 20
    replicas: int = 1
    nothing_lost: bool = False
    """Whether each POST must be taken. Not when nobody listens; and the first ones of a Prometheus go nowhere."""

    async def __call__(self, binary: str, directory: Path) -> None:
        async with AsyncExitStack() as stack:
            flags = []
            if self.replicas > 1:
                flags = [f"--store.url={(await stack.enter_async_context(redis_server(directory))).url}"]
            run = await stack.enter_async_context(
                lab(binary, directory, *flags, replicas=self.replicas, peer_timeout=PEER_TIMEOUT)
            )
            over = time.time() + DISCOVERED + self.seconds
            rules = [rule(name, over, severity="warning") for name in NAMES]
            targets = [one.target for one in run.proxies]
            prom = await stack.enter_async_context(prometheus(rules, targets, directory, resend_delay=CADENCE - 1))
            await run.told("firing", *NAMES)
            await background(stack, self.disturb(run, prom))
            await asyncio.sleep(over - time.time())
            await run.told("resolved", *NAMES)
            await run.calm()
            run.told_once(*NAMES)
            for name in NAMES:
                assert not by_rules(run.hook.told("firing", name)[0])
            if self.nothing_lost:
                assert await metric(prom.url, "prometheus_notifications_errors_total") == 0
                assert await metric(prom.url, "prometheus_notifications_dropped_total") == 0


async def nothing(run: Lab, prom: Program) -> None:
    """The model says something else each time, that is all."""


async def kills(run: Lab, _: Program) -> None:
    """Kill -9 of the proxy at any moment, until all is over.

    Not before Alertmanager has heard of each alert once more: should every resend in a row meet a closed port, it
    would take the alerts for ended, and rightly so.
    """
    while True:
        heard = await received(run)
        while await received(run) < heard + len(NAMES):
            await asyncio.sleep(0.2)
        await asyncio.sleep(random.uniform(0, CADENCE))
        await run.proxy.kill()
        await run.proxy.start()


async def received(run: Lab) -> float:
    return await metric(run.ams[0].url, 'alertmanager_alerts_received_total{status="firing"')


async def restart(_: Lab, prom: Program) -> None:
    """It forgets when its alerts began, and sends them as if they began now."""
    await asyncio.sleep(3)
    await prom.kill()
    await prom.start()


QUICK = {
    "one proxy": WithPrometheus(nothing, nothing_lost=True),
    "two proxies": WithPrometheus(nothing, replicas=2, nothing_lost=True),
    "kill -9": WithPrometheus(kills),
    "Prometheus restarts": WithPrometheus(restart, 25),
}
LONG = {"a real Prometheus, and kill -9 for minutes": WithPrometheus(kills, 200)}
