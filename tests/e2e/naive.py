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
from lab import LIGHT, Sender, background, enriching, grouped, never_the_same
from ports import free_port
from real import clustered, model_ready, proxy, webhook
from redis_servers import redis_server

from proxy.decisions.switch import LEAD

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
    async with redis_server(directory, free_port()) as redis:
        direct, careful, careless, alone, shared = await asyncio.gather(
            notifications(binary, directory),
            notifications(binary, directory, partial(naive, model=model, remembers=True)),
            notifications(binary, directory, partial(naive, model=model, remembers=False)),
            notifications(binary, directory, partial(ours, directory, itertools.count(), "--store.url=memory:")),
            notifications(binary, directory, partial(ours, directory, itertools.count(), f"--store.url={redis.url}")),
        )
    print(
        f"notifications of one alert in {WATCHED} s: {len(direct)} without a proxy, {len(careful)} with a naive one"
        f" that remembers, {len(careless)} with one that does not, {len(alone)} with ours that share no store,"
        f" {len(shared)} with ours on one Redis"
    )
    assert len(direct) == len(alone) == len(shared) == 1
    for told in (careful, careless):
        assert len(told) >= 10, "each Alertmanager corrects what the other one told, at every flush"
    [by_rules], [by_the_model] = alone[0]["alerts"], shared[0]["alerts"]
    assert by_rules["labels"]["ai_severity"] == "warning", "what all rules say"
    assert by_the_model["labels"]["ai_severity"] != "warning"


@asynccontextmanager
async def ours(directory: Path, replica: Iterator[int], store: str, alertmanager_url: str) -> AsyncIterator[str]:
    """Run the product in front of an Alertmanager; each asks a model that never says what the other one's says."""
    async with (
        never_the_same(next(replica)) as model,
        proxy(
            alertmanager_url, directory, *enriching(model), store, env={"LLM_API_KEY": "sk-lab", "PYTHONPATH": LIGHT}
        ) as one,
    ):
        await model_ready(one)
        await asyncio.sleep(LEAD.total_seconds())  # alerts that begin before all proxies have heard of it stay bare
        yield one.url


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
