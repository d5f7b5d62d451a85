"""What the product is measured against: a proxy that does the obvious, in forty lines.

It asks its model about the alerts that pass, and writes the answer into a label. A careful one remembers the answer;
two careful ones still have two answers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from lab import Sender, background, grouped
from real import clustered, free_port, webhook

WATCHED = 26
"""Seconds."""


@asynccontextmanager
async def naive(alertmanager_url: str, model: Iterator[str], *, remembers: bool) -> AsyncIterator[str]:
    """Run one in front of an Alertmanager; yields its URL."""
    port = free_port()
    known: dict[str, str] = {}
    async with aiohttp.ClientSession() as client:

        async def forward(request: web.Request) -> web.Response:
            alerts = await request.json()
            for alert in alerts:
                key = json.dumps(alert["labels"], sort_keys=True)
                if key not in known or not remembers:
                    known[key] = next(model)
                alert["labels"]["ai_severity"] = known[key]
            headers = {"Content-Type": "application/json"}
            async with client.post(alertmanager_url + request.path, data=json.dumps(alerts), headers=headers) as answer:
                return web.Response(status=answer.status, body=await answer.read())

        app = web.Application()
        app.router.add_post("/api/v2/alerts", forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()


async def without_end(binary: str, directory: Path) -> None:
    """Two Alertmanagers in one cluster, one alert, everybody well: what do people hear in 26 s?"""
    # One after the other: no two answers in a row agree, so no two replicas do.
    model = itertools.cycle(("critical", "warning", "info", "noise"))
    direct, careful, careless = await asyncio.gather(
        notifications(binary, directory),
        notifications(binary, directory, partial(naive, model=model, remembers=True)),
        notifications(binary, directory, partial(naive, model=model, remembers=False)),
    )
    print(
        f"notifications of one alert in {WATCHED} s: {len(direct)} without a proxy, {len(careful)} with a naive one"
        f" that remembers, {len(careless)} with one that does not"
    )
    assert len(direct) == 1
    for told in (careful, careless):
        assert len(told) >= 10, "each Alertmanager corrects what the other one told, at every flush"


async def notifications(
    binary: str, directory: Path, before: Callable[[str], AbstractAsyncContextManager[str]] | None = None
) -> list[dict[str, Any]]:
    """Return what is told of one firing alert while `before` stands before each Alertmanager."""
    async with AsyncExitStack() as stack:
        hook = await stack.enter_async_context(webhook())
        ams = await stack.enter_async_context(clustered(binary, grouped(hook.url, 4), directory))
        sender = Sender([await stack.enter_async_context(before(am.url)) if before else am.url for am in ams])
        await background(stack, sender.run())
        sender.fire("HighLatency")
        await asyncio.sleep(WATCHED)
        return hook.notifications
