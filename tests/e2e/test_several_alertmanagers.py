"""Two real Alertmanagers of one cluster behind one proxy, while one of them is frozen, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from fakes import posted, settings, stamp
from faults.injector import Injector
from real import Program, Webhook, clustered, get, send, settled, webhook

from proxy.app import build

GROUPED = {"group_by": ["alertname"], "group_wait": "1s", "group_interval": "2s", "repeat_interval": "1h"}
EVERY = 0.4
"""Seconds between two POSTs, each with all alerts, as a Prometheus in a hurry sends them."""
GOSSIPED = 1.5
"""Seconds after which an Alertmanager knows what its peer told: frozen sooner, that one's telling is lost on it."""
HELD_UP = 2.0
"""Seconds that no POST may take; the proxy's own limit is 0.5, Alertmanager's here 3, and the machine may be busy."""


class Sender:
    """Posts all alerts again and again, those that are over too."""

    def __init__(self, url: str, admin: str, hook: Webhook) -> None:
        self.url, self.admin, self.hook = url, admin, hook
        self.alerts: dict[str, dict[str, Any]] = {}
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0

    def fire(self, name: str) -> None:
        self.alerts[name] = posted(name, begun=0)

    def resolve(self) -> None:
        for alert in self.alerts.values():
            alert["endsAt"] = stamp()

    async def run(self) -> None:
        while True:
            begun = time.monotonic()
            self.statuses[await send(self.url, *self.alerts.values())] += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)
            await asyncio.sleep(EVERY)

    async def told(self, status: str, *names: str) -> None:
        """Wait until people were told that alerts are `status`."""
        async with asyncio.timeout(30):
            while not all(self.hook.told(status, name) for name in names):
                await asyncio.sleep(0.05)

    async def states(self, *wanted: str) -> None:
        async with asyncio.timeout(30):
            while [one["state"] for one in (await get(f"{self.admin}/api/v1/status"))["alertmanager"]["each"]] != list(
                wanted
            ):
                await asyncio.sleep(0.05)


def own_urls(both: list[Program]) -> list[str]:
    return [one.url for one in both]


@asynccontextmanager
async def sending(
    binary, directory, urls: Callable[[list[Program]], list[str]] = own_urls
) -> AsyncIterator[tuple[Sender, list[Program]]]:
    """`urls` says where the proxy finds the two."""
    async with webhook() as hook:
        route = {"receiver": "hook", **GROUPED}
        receivers = [{"name": "hook", "webhook_configs": [{"url": hook.url, "send_resolved": True}]}]
        async with clustered(binary, {"route": route, "receivers": receivers}, directory) as both:
            given = settings(
                "",
                alertmanager__url=urls(both),
                alertmanager__timeout="3s",
                enrichment__mode="enriched",
                enrichment__budget="100ms",
            )
            async with build(given) as running:
                url, admin = (f"http://127.0.0.1:{port}" for port in (running.data_port, running.admin_port))
                sender = Sender(url, admin, hook)
                sender.fire("Before")
                task = asyncio.create_task(sender.run())
                try:
                    await sender.told("firing", "Before")
                    await asyncio.sleep(GOSSIPED)
                    yield sender, both
                finally:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task


async def all_told_once(sender: Sender, both: list[Program]) -> None:
    """Resolve all alerts; fail unless each was told as often as is due, and is over everywhere."""
    await asyncio.sleep(2 * EVERY)  # both have what fires
    sender.resolve()
    await sender.told("resolved", *sender.alerts)
    await asyncio.sleep(3)  # one group_interval and what a peer waits
    for name in sender.alerts:
        # One that is thawed finds the POST waiting, and may tell of the alert before its peer has said that it did.
        # One that heard of the alert late flushes that group at moments of its own, which may be the very ones at which
        # its peer does: what that one tells as over, it then tells as firing.
        at_most = 1 if name == "Before" else 2
        told = [len(sender.hook.told(status, name)) for status in ("firing", "resolved")]
        assert max(told) <= at_most, (name, told)
    for one in both:
        assert await get(f"{one.url}/api/v2/alerts") == []
    assert set(sender.statuses) == {200}
    assert sender.slowest < HELD_UP


async def test_one_that_is_frozen_costs_no_page_and_no_time(am_binary, tmp_path):
    async with sending(am_binary, tmp_path) as (sender, both):
        both[0].freeze()
        sender.fire("Frozen")
        await sender.told("firing", "Frozen")
        both[0].thaw()
        await sender.states("answers", "answers")
        await all_told_once(sender, both)


async def test_one_whose_port_drops_what_would_connect_costs_no_page_and_no_time(am_binary, tmp_path):
    async with AsyncExitStack() as stack:
        way = Injector(("", 0))
        await way.open()
        stack.push_async_callback(way.close)

        def by_that_way(both: list[Program]) -> list[str]:
            way.upstream = ("127.0.0.1", int(both[0].url.rpartition(":")[2]))
            return [way.url, both[1].url]

        sender, both = await stack.enter_async_context(sending(am_binary, tmp_path, by_that_way))
        await way.swallow()
        sender.fire("Dropped")
        await sender.told("firing", "Dropped")
        await sender.states("suspended", "answers")
        await way.open()
        await sender.states("answers", "answers")
        await asyncio.sleep(GOSSIPED)
        await all_told_once(sender, both)


@pytest.mark.proof
@pytest.mark.timeout(180)
async def test_each_is_frozen_killed_and_started_again(am_binary, tmp_path):
    async with sending(am_binary, tmp_path) as (sender, both):
        for number, one in enumerate(both):
            one.freeze()
            sender.fire(f"Frozen{number}")
            await sender.told("firing", f"Frozen{number}")
            await asyncio.sleep(GOSSIPED)
            await sender.states(*("suspended" if n == number else "answers" for n in range(2)))
            one.thaw()
            await sender.states("answers", "answers")
            await one.kill()
            sender.fire(f"Killed{number}")
            await sender.told("firing", f"Killed{number}")
            await one.start()
            await settled(one)
            await sender.states("answers", "answers")
            await asyncio.sleep(2 * GOSSIPED)
        status = await get(f"{sender.admin}/api/v1/status")
        assert status["replicas"]["count"] == 1, "one that is back is no other"
        await all_told_once(sender, both)
