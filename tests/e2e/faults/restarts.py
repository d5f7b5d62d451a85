"""Thousands of POSTs, Alertmanager restarts in their midst, and connections are cut: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from fakes import posted, stamp
from faults.broken import cuts
from faults.station import ADDED, Answered, Client, Station, client, station, variants
from lab import LIGHT, background, enriching, held, never_the_same
from real import ROOT

CONNECTIONS = 4
ALERTS_EACH = 40
IN_A_POST = 5
SHARE_CUT = 0.03
"""Of the attempts."""
RESTART = 3.0
"""Seconds that a restart takes at most; for one that takes longer, nobody promises anything."""


AWAY = 2.2
"""Seconds between its end and its next start, at most."""


@dataclass
class Feed:
    """What one connection posts: alerts of its own, one POST at a time, as one queue of Prometheus does."""

    name: str
    rng: random.Random
    alerts: list[dict[str, Any]] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    """When each POST began."""
    unproven: list[Answered] = field(default_factory=list)
    """Acknowledged, though no Alertmanager that read it whole had said so."""

    told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.alerts = [posted(f"{self.name}{n}", severity="warning", begun=0) for n in range(ALERTS_EACH)]

    def batch(self) -> list[dict[str, Any]]:
        """Return some alerts: one of them may end now, or fire anew; the others are told once more."""
        chosen = self.rng.sample(self.alerts, IN_A_POST)
        for n, alert in enumerate(chosen):
            ended = alert["endsAt"] <= stamp()
            if n == 0 and alert["labels"]["alertname"] in self.told and self.rng.random() < 0.3:
                alert |= {"startsAt": stamp(-1), "endsAt": stamp(240)} if ended else {"endsAt": stamp()}
            elif not ended:
                alert["endsAt"] = stamp(240)
            alert["annotations"]["summary"] = f"at {len(self.answered)}"
        self.told.update(alert["labels"]["alertname"] for alert in chosen)
        return chosen

    async def post(self, sender: Client, run: Station) -> None:
        self.at.append(time.monotonic())
        answered = await sender.post(*self.batch())
        self.answered.append(answered)
        if 200 <= answered.status < 300 and not proven(run, answered):
            self.unproven.append(answered)

    @property
    def firing(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.alerts if alert["endsAt"] > stamp()}


def proven(run: Station, answered: Answered) -> bool:
    """Whether an attempt at this POST had its 2xx by now: one that follows the answer would be no proof."""
    return bool(run.between.taken(answered.number))


@dataclass(frozen=True)
class Restarts:
    posts: int
    restarts: int

    async def __call__(self, binary: str, directory: Path) -> None:
        async with AsyncExitStack() as stack:
            model = await stack.enter_async_context(never_the_same())
            env = {"LLM_API_KEY": "sk-restarts", "PYTHONPATH": f"{LIGHT}:{ROOT}"}
            run = await stack.enter_async_context(station(binary, directory, *enriching(model), env=env))
            identities_held: dict[str, set[str]] = defaultdict(set)
            await background(stack, watch(run, identities_held))
            run.between.strikes = cuts(SHARE_CUT)
            feeds = [Feed(f"Feed{n}Alert", random.Random(n)) for n in range(CONNECTIONS)]
            outages = await self._rage(run, feeds, stack)
            run.between.strikes = lambda _: None
            self._judge(run, feeds, outages)

            # One more cadence, which is what Alertmanager's memory is made of after a restart.
            for feed in feeds:
                for n in range(0, ALERTS_EACH, IN_A_POST):
                    firing = [alert for alert in feed.alerts[n : n + IN_A_POST] if alert["endsAt"] > stamp()]
                    assert not firing or (await run.sender.post(*firing)).status == 200
            wanted = set().union(*(feed.firing for feed in feeds))
            found = {alert["labels"]["alertname"]: alert["labels"] for alert in await run.held()}
            assert wanted <= found.keys(), "missing after one more cadence"
            assert all(found[name].keys() >= ADDED for name in wanted)
            assert variants(run.between) == {}
            async with asyncio.timeout(10):
                while not identities_held.keys() >= wanted:
                    await asyncio.sleep(0.1)
            print(
                f"{len(wanted)} alerts fire, none is missing; {len(identities_held)} were held, each under one identity"
            )

    async def _rage(self, run: Station, feeds: list[Feed], stack: AsyncExitStack) -> list[tuple[float, float]]:
        """Post all, restart Alertmanager evenly in between; return when it was away."""
        senders = [await stack.enter_async_context(client(run.proxy.url)) for _ in feeds]
        numbers = iter(range(1_000_000, 1_000_000 + self.posts))
        rng, outages = random.Random(6), []

        async def feeding(feed: Feed, sender: Client) -> None:
            sender.numbers = numbers
            while begun() < self.posts:
                await feed.post(sender, run)

        def begun() -> int:
            return sum(len(feed.at) for feed in feeds)

        async with asyncio.TaskGroup() as tasks:
            for each in zip(feeds, senders, strict=True):
                tasks.create_task(feeding(*each))
            for n in range(self.restarts):
                while begun() < self.posts * (n + 0.5) / self.restarts:
                    await asyncio.sleep(0.01)
                gone = time.monotonic()
                await (run.am.kill() if n % 2 else run.am.stop())
                if rng.random() < 0.5:
                    await run.between.refuse()  # as its own port would; else the injector resets what comes
                await asyncio.sleep(rng.uniform(0, AWAY))
                await run.am.start()
                await run.between.open()
                outages.append((gone, time.monotonic()))
        return outages

    def _judge(self, run: Station, feeds: list[Feed], outages: list[tuple[float, float]]) -> None:
        posts = [(at, one) for feed in feeds for at, one in zip(feed.at, feed.answered, strict=True)]
        lasted = [until - since for since, until in outages]
        long = [(since, until) for since, until in outages if until - since > RESTART]
        attempts = Counter(post.number for post in run.between.posts)
        retried = {post.number for post in run.between.posts if not post.taken} | {
            number for number, times in attempts.items() if times > 1
        }
        failed = [one for _, one in posts if not 200 <= one.status < 300]
        unexcused = [
            one for at, one in posts if one in failed and not any(since - 10 < at < until for since, until in long)
        ]
        longest = sorted((one.seconds for _, one in posts), reverse=True)
        waited = [one for at, one in posts if any(at < until and at + one.seconds > since for since, until in outages)]
        print(
            f"{len(posts)} POSTs, {len(outages)} restarts of Alertmanager of {min(lasted):.1f} to {max(lasted):.1f} s, "
            f"{sum(not post.taken for post in run.between.posts)} attempts cut or unanswered: "
            f"{len(failed)} POSTs without a 2xx, {sum(len(feed.unproven) for feed in feeds)} acknowledged without "
            f"Alertmanager's 2xx, {len(variants(run.between))} alerts under two identities. {len(retried)} POSTs were "
            f"tried again on a connection, {len(waited)} met a restart; the longest took {longest[0]:.2f} s, "
            f"the median {longest[len(longest) // 2] * 1000:.0f} ms"
        )
        assert len(posts) >= self.posts
        assert len(long) <= len(outages) // 4, f"restarts took {lasted} s: this machine is too busy to tell"
        assert unexcused == [], run.proxy.log.read_text()[-4000:]
        assert [one for feed in feeds for one in feed.unproven] == []
        assert retried, "connections were cut"
        assert waited, "restarts were met"


async def watch(run: Station, identities_held: dict[str, set[str]]) -> None:
    """Note under which identities alerts are held, until cancelled."""
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                for alert in await held(session, run.am):
                    identities_held[alert["labels"]["alertname"]].add(alert["fingerprint"])
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.3)


QUICK = {"restarts and cuts": Restarts(posts=400, restarts=2)}
LONG = {"10,000 POSTs, 20 restarts and cuts": Restarts(posts=10_000, restarts=20)}
