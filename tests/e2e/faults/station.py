"""A real Alertmanager, a fault injector before it, a real proxy before that, and a sender that counts its POSTs."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from fakes import body, posted
from faults.injector import NUMBER, Injector, injector
from real import READY_WITHIN, ROOT, Program, Proxy, alertmanager, get, proxy

SILENT = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}
TIMEOUT = 2
"""Seconds of `alertmanager.timeout`, where it is what ends a wait."""
ADDED = {"ai_severity", "ai_category"}


@dataclass(frozen=True)
class Answered:
    number: str
    status: int
    """0 when the connection broke."""
    seconds: float
    text: str = ""


@dataclass
class Client:
    """Posts as Prometheus does: on kept connections, and a POST that fails is not sent again."""

    url: str
    session: aiohttp.ClientSession
    numbers: Iterable[int] = field(default_factory=itertools.count)

    async def post(self, *alerts: dict[str, Any]) -> Answered:
        number, begun, text = str(next(iter(self.numbers))), time.monotonic(), ""
        headers = {"Content-Type": "application/json", NUMBER: number}
        try:
            async with self.session.post(f"{self.url}/api/v2/alerts", data=body(*alerts), headers=headers) as answered:
                status, text = answered.status, await answered.text()
        except (aiohttp.ClientError, TimeoutError):
            status = 0
        return Answered(number, status, time.monotonic() - begun, text)


@asynccontextmanager
async def client(url: str, connections: int = 1) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=3600)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield Client(url, session)


@dataclass
class Station:
    am: Program
    between: Injector
    proxy: Proxy
    sender: Client
    names: Iterable[str]

    async def post(self, *names: str, **more: Any) -> Answered:
        return await self.sender.post(*(posted(name, severity="warning") | more for name in names))

    async def fine(self, **more: Any) -> Answered:
        """Post an alert that never was; assert that it is answered 200, and that Alertmanager holds it once."""
        name = next(iter(self.names))
        answered = await self.post(name, **more)
        assert answered.status == 200, f"{answered}\n{self.proxy.log.read_text()}"
        await self.holds_once(name, answered)
        return answered

    async def holds_once(self, name: str, answered: Answered) -> None:
        assert self.between.taken(answered.number), f"{answered} without a 2xx of Alertmanager"
        [held] = [alert for alert in await self.held() if alert["labels"]["alertname"] == name]
        assert held["labels"].keys() >= ADDED

    async def held(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = await get(f"{self.am.url}/api/v2/alerts")
        return listed

    async def one_identity_each(self) -> None:
        """Assert that no alert came in two variants, whatever was posted twice."""
        assert variants(self.between) == {}
        held = [alert["labels"]["alertname"] for alert in await self.held()]
        assert sorted(held) == sorted(set(held))


def identities(content: bytes) -> Iterable[tuple[tuple[str, ...], str]]:
    """Yield, for each alert of a POST, what it is for its sender, and the identity that Alertmanager sees."""
    for alert in json.loads(content):
        labels = alert["labels"]
        theirs = tuple(f"{name}={labels[name]}" for name in sorted(labels) if name not in ADDED)
        yield theirs, json.dumps(labels, sort_keys=True)


def variants(between: Injector) -> dict[tuple[str, ...], set[str]]:
    """Return the alerts that went to Alertmanager under more than one identity."""
    seen: dict[tuple[str, ...], set[str]] = {}
    for post in between.posts:
        if post.whole:
            for theirs, identity in identities(post.body):
                seen.setdefault(theirs, set()).add(identity)
    return {theirs: found for theirs, found in seen.items() if len(found) > 1}


@asynccontextmanager
async def station(
    binary: str, directory: Path, *flags: str, env: dict[str, str] | None = None
) -> AsyncIterator[Station]:
    """Run the programs; labels are those of the rules, unless `flags` say otherwise."""
    names = (f"Alert{n}" for n in itertools.count())
    async with (
        alertmanager(binary, SILENT, directory) as am,
        injector(am.url) as between,
        proxy(
            between.url,
            directory,
            "--enrichment.mode=enriched",
            *flags,
            env={"PYTHONPATH": str(ROOT)} | (env or {}),
        ) as px,
        client(px.url) as sender,
    ):
        run = Station(am, between, px, sender, names)
        await labelling(run)
        yield run


async def labelling(run: Station) -> None:
    """Wait until alerts are labelled, which is when Alertmanager has been asked what it holds."""
    async with asyncio.timeout(READY_WITHIN):
        while True:
            name = next(iter(run.names))
            assert (await run.post(name)).status == 200
            [labels] = [alert["labels"] for alert in await run.held() if alert["labels"]["alertname"] == name]
            if labels.keys() >= ADDED:
                return
            await asyncio.sleep(0.2)
