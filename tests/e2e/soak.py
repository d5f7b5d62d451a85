"""Minutes of everything at once: alerts come and go while Redis, proxies and Alertmanagers fail in turn."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from disturbed import kill
from lab import EVERY, Lab, background, between_flushes, lab
from ports import free_port
from real import settled
from redis_servers import Relay, redis_server
from replicas import IN_A_GAP

SECONDS = 240
GROUP_INTERVAL = 6
AFTER = 5.0
"""Seconds for which a fault of Redis is not over: proxies look again, and agree."""


@dataclass
class Soak:
    run: Lab
    redis: redis_server
    lines: list[Relay]
    """Of each proxy, to Redis."""
    begun: dict[str, float] = field(default_factory=dict)
    """When each alert did, on the monotonic clock."""
    faults: list[tuple[float, float]] = field(default_factory=list)
    """When Redis was not well, or not for all."""
    ending: set[asyncio.Task[None]] = field(default_factory=set)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while both Alertmanagers hear all that is sent.

    No alert ends else: of an end that only one of them has heard the other one tells the contrary, and then the end
    once more, with any proxy and with none.
    """

    async def alerts(self) -> None:
        """Let one begin every two seconds, each with a life of its own length."""
        while True:
            name = f"Alert{len(self.begun)}"
            self.begun[name] = time.monotonic()
            self.run.sender.fire(name)
            task = asyncio.create_task(self._end(name, random.uniform(8, 60)))
            self.ending.add(task)
            task.add_done_callback(self.ending.discard)
            await asyncio.sleep(2)

    async def _end(self, name: str, after: float) -> None:
        await asyncio.sleep(after)
        await self.heard.wait()
        self.run.sender.resolve(name)

    async def disturb(self) -> None:
        self.heard.set()
        of_redis = [self._cut, self._freeze, self._flush, self._lose]
        others = [self._kill_a_proxy, self._restart_an_alertmanager]
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            fault = random.choice([*of_redis, *others])
            since = time.monotonic()
            if fault not in of_redis:
                self.heard.clear()
                await asyncio.sleep(2 * EVERY)
            await fault()
            if fault not in of_redis:
                await asyncio.sleep(2 * EVERY)
                self.heard.set()
            print(f"{since:.0f} {fault.__name__} {time.monotonic() - since:.1f} s")
            if fault in of_redis:
                self.faults.append((since - 1, time.monotonic() + AFTER))
            await asyncio.sleep(random.uniform(4, 10))

    async def _cut(self) -> None:
        line = random.choice(self.lines)
        line.cut()
        await asyncio.sleep(random.uniform(1, GROUP_INTERVAL / 2))
        line.mend()

    async def _freeze(self) -> None:
        self.redis.freeze()
        await asyncio.sleep(random.uniform(1, 6))
        self.redis.thaw()

    async def _flush(self) -> None:
        with self.redis.client() as client:
            client.flushall()

    async def _lose(self) -> None:
        self.redis.kill()
        await asyncio.sleep(random.uniform(1, 6))
        self.redis.start()

    async def _kill_a_proxy(self) -> None:
        await kill(self.run, random.choice(self.run.proxies))

    async def _restart_an_alertmanager(self) -> None:
        am = random.choice(self.run.ams)
        await between_flushes()
        await am.stop()
        await am.start()
        await settled(am)

    def in_a_fault(self, name: str) -> bool:
        """Whether the alert began while the proxies could not agree on it."""
        return any(since < self.begun[name] + 1 and self.begun[name] < until for since, until in self.faults)


async def soak(binary: str, directory: Path) -> None:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server(directory, free_port()))
        lines = [await stack.enter_async_context(Relay(redis.port)) for _ in range(2)]
        stores = tuple([f"--store.url=redis://127.0.0.1:{line.port}"] for line in lines)
        run = await stack.enter_async_context(
            lab(binary, directory, replicas=2, per_replica=stores, group_interval=GROUP_INTERVAL)
        )
        it = Soak(run, redis, lines)
        async with AsyncExitStack() as coming:
            await background(coming, it.alerts())
            await it.disturb()
        await run.told("firing", *it.begun)
        await asyncio.gather(*it.ending)
        await run.told("resolved", *it.begun)
        await run.calm()
        told = len(run.hook.notifications)
        await run.calm()
        assert len(run.hook.notifications) == told, "no end"
        twice = [name for name in it.begun if len(run.hook.about(name)) > 2]
        print(f"{len(it.begun)} alerts, {told} notifications, {len(it.faults)} faults of Redis; more than two: {twice}")
        for name in it.begun:
            run.told_once(name, extra=IN_A_GAP if it.in_a_fault(name) else 0)


LONG = {"everything at once": soak}
