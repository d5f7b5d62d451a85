"""A proxy in front of several recording Alertmanagers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import ClientSession
from fakes import OK, FakeAlertmanager, Received, body, exchange, fake_alertmanager, post, posted, settings, status_of

from proxy.app import build
from proxy.app.composition import Running
from proxy.classification.classifier import Classifier


class Gate:
    """Lets an Alertmanager read, and answer only when it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.answered = 0

    async def __call__(self, _: Received) -> bytes:
        await self.open.wait()
        self.answered += 1
        return OK


class Several:
    """A proxy that runs, and its Alertmanagers."""

    def __init__(self, running: Running, alertmanagers: list[FakeAlertmanager]) -> None:
        self.running = running
        self.alertmanagers = alertmanagers

    async def send(self, *alerts: Any) -> bytes:
        """POST alerts and return the answer as it came."""
        return await exchange(self.running.data_port, post(body(*alerts)))

    async def post(self, name: str = "A", **alert: Any) -> int:
        """POST one alert and return the status."""
        return status_of(await self.send(posted(name, **alert)))

    async def get(self, path: str) -> Any:
        async with ClientSession() as client, client.get(f"http://127.0.0.1:{self.running.admin_port}{path}") as got:
            return await (got.json() if "json" in got.content_type else got.text())

    async def states(self) -> list[str]:
        return [one["state"] for one in (await self.get("/api/v1/status"))["alertmanager"]["each"]]

    async def counted(self, what: str) -> list[float | None]:
        """Return a metric of `aiproxy_notifications_…` for each Alertmanager; None where it has no such series."""
        text = await self.get("/metrics")
        found = [
            re.search(
                rf'^aiproxy_notifications_{what}{{alertmanager="{re.escape(one.url)}"}} (\S+)$', text, re.MULTILINE
            )
            for one in self.alertmanagers
        ]
        return [float(sample[1]) if sample else None for sample in found]

    async def until(self, what: str, wanted: list[float | None]) -> None:
        """Wait until a metric is as `wanted`."""
        async with asyncio.timeout(10):
            while await self.counted(what) != wanted:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def several(
    *responds: Callable[[Received], Any], model: Classifier | None = None, peers: int = 0, **flags: str | list[str]
) -> AsyncIterator[Several]:
    """Run a proxy, and for each of `responds` an Alertmanager that answers so and sees `peers` in its cluster."""
    async with AsyncExitStack() as stack:
        them = [await stack.enter_async_context(fake_alertmanager(respond=one, peers=peers)) for one in responds]
        given = settings("", **({"alertmanager__url": [one.url for one in them]} | flags))
        yield Several(await stack.enter_async_context(build(given, model=model)), them)


async def until(true: Callable[[], Any]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)
