"""The scenario that most others are: some alerts, and a disturbance in their midst."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from lab import Lab, by_rules, lab
from real import Proxy, get

MIDST = [f"Midst{n}" for n in range(6)]
Disturbance = Callable[[Lab], Awaitable[None]]


@dataclass(frozen=True)
class Disturbed:
    """A laboratory, and what is done to it.

    One alert has ended before, and its resolve is still repeated; one fires all the while; some begin in the midst;
    one begins after.
    """

    disturb: Disturbance
    flags: Sequence[str] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """Of the laboratory."""
    by_rules: bool = False
    """Whether the labels are those of the rules."""
    extra: int = 0
    """Notifications more that are let pass for an alert that begins in the midst."""

    async def __call__(self, binary: str, directory: Path) -> None:
        async with lab(binary, directory, *self.flags, by_rules=self.by_rules, **self.options) as run:
            await run.fires("Past", "Through")
            await run.ends("Past")
            labels = await run.labels("Through")
            midst = asyncio.gather(*(begins_soon(run, name) for name in MIDST))
            await self.disturb(run)
            await midst
            await run.calm()
            if self.extra:
                told = len(run.hook.notifications)
                await run.calm()
                assert len(run.hook.notifications) == told, f"no end. {run.story()}"
            assert await run.labels("Through") == labels
            await run.fires("After")
            await run.ends("Through", "After", *MIDST)
            await run.calm()
            run.told_once("Past", "Through", "After")
            run.told_once(*MIDST, extra=self.extra)
            assert len(labels) == len(run.ams)
            assert all(each == labels[0] for each in labels), "all proxies say the same"
            assert by_rules(labels[0]) == self.by_rules, labels


async def begins_soon(run: Lab, name: str) -> None:
    await asyncio.sleep(random.uniform(0, 6))
    await run.fires(name)


async def kill(run: Lab, px: Proxy | None = None) -> None:
    """Kill -9 at any moment, start again."""
    px = px or run.proxy
    await asyncio.sleep(random.uniform(0, 1.5))
    await px.kill()
    await px.start()


async def switch(px: Proxy, mode: str, **more: Any) -> int:
    """Switch the mode at run time; return the status."""
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{px.admin}/enrichment/mode", json={"mode": mode, **more}) as answered,
    ):
        return answered.status


async def mode_of(px: Proxy) -> str:
    return str((await get(f"{px.admin}/enrichment/mode"))["mode"])
