"""A laboratory: real Alertmanagers, the proxies before them, a model that never agrees with itself, and who counts.

async with lab(binary, tmp_path, replicas=2) as run:
    await run.fires("DiskFull")
    ...  # whatever may happen
    await run.ends("DiskFull")
    await run.calm()
    run.told_once("DiskFull")
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
from fake_provider import FakeProvider, verdict
from fakes import body, posted, stamp
from real import (
    PEER_TIMEOUT,
    READY_WITHIN,
    ROOT,
    PeersLate,
    Program,
    Proxy,
    Webhook,
    alertmanager,
    clustered,
    get,
    proxy,
    webhook,
)

GROUP_INTERVAL = 3
EVERY = 1.0
CALM = EVERY + GROUP_INTERVAL + 0.5
"""Seconds in which whatever is to be told twice would have been: a resend, a flush. Of two Alertmanagers the second has
its turn after those."""
TOLD_WITHIN = 30.0
LIGHT = f"{Path(__file__).parent / 'light'}{os.pathsep}{ROOT}"
"""For PYTHONPATH: a light stand-in for LiteLLM, and this tree, where another one is installed."""


def grouped(url: str, group_interval: float = GROUP_INTERVAL) -> dict[str, Any]:
    """One group an alert: an identity that changes is told in the group that it is in, and so is one that goes."""
    return {
        "route": {
            "receiver": "all",
            "group_by": ["alertname"],
            "group_wait": "1s",
            "group_interval": f"{group_interval}s",
            "repeat_interval": "1h",
        },
        "receivers": [{"name": "all", "webhook_configs": [{"url": url, "send_resolved": True}]}],
    }


def by_rules(labels: dict[str, str]) -> bool:
    """Whether the labels of an alert are those of the rules, which know nothing of the names used here."""
    return labels["ai_category"] == "other"


def never_the_same(replica: int = 0) -> FakeProvider:
    """A model that answers otherwise each time, and never what the other replica's answers, nor what the rules say."""
    pairs = ([("critical", "storage"), ("info", "network")], [("noise", "security"), ("warning", "capacity")])[replica]
    turns = itertools.cycle(pairs)

    def answer(_: object) -> Any:
        severity, category = next(turns)
        return verdict(severity=severity, category=category)

    return FakeProvider(answer)


async def between_flushes() -> None:
    """Wait for a moment in which no Alertmanager is about to tell anything.

    Groups are flushed whole seconds after their alerts came, and those come at whole seconds. The second Alertmanager
    of a cluster looks at a group, waits for the first one, and then tells what it has seen: a resolve that the first
    one tells in that time is followed by a «firing» from the second. And one that is stopped while it tells something
    has not noted it, so the other one tells it again. Both happen with any proxy and with none.
    """
    await until(EVERY / 2)


async def until(moment: float) -> None:
    """Wait for a moment, seconds after a whole one."""
    await asyncio.sleep((moment - time.monotonic()) % EVERY)


def farthest(moments: Collection[float]) -> float:
    """Return the moment between two evaluations that is farthest from all of `moments`, each after a whole second."""
    around = sorted(moments) or [0.0]
    gaps = [(after - before, before) for before, after in pairwise([*around, around[0] + EVERY])]
    gap, before = max(gaps)
    return (before + gap / 2) % EVERY


class Sender:
    """Sends as Prometheus does: all its alerts to all targets at once, and it waits for all of them.

    A POST that fails is lost. Firing alerts end some seconds after they were sent, should nothing follow; a resolve is
    repeated to the end. Only the pace is another: one second, where Prometheus takes a minute.
    """

    GOOD_FOR = 20.0
    """Seconds: in proportion less than the four resends that Prometheus allows for, with its minute."""

    def __init__(self, targets: list[str]) -> None:
        self.targets = targets
        self.alerts: dict[str, dict[str, Any]] = {}
        self.lost = 0
        self._flushed: dict[tuple[str, str], float] = {}
        """At which moments between two evaluations each target flushes the group of an alert: that at which it came
        there. A model that took its time, or a busy machine, makes it another at each."""
        self._failed: set[str] = set()
        """Targets whose last POST failed: whoever is behind them may begin anew."""
        self._ending: set[str] = set()
        self._ended: set[str] = set()
        self._evaluated = 0

    @property
    def firing(self) -> set[str]:
        return self.alerts.keys() - self._ending - self._ended

    def fire(self, name: str, **labels: str) -> None:
        """Let an alert fire from the next evaluation on; once more, if it had ended."""
        self.alerts[name] = posted(name, **({"severity": "warning"} | labels)) | {"startsAt": ""}
        self._ending.discard(name)
        self._ended.discard(name)

    def resolve(self, name: str) -> None:
        self._ending.add(name)

    def begin_anew(self) -> None:
        """Forget when alerts began, and those that have ended, as Prometheus does when it is started again."""
        self.alerts = {name: alert | {"startsAt": ""} for name, alert in self.alerts.items() if name in self.firing}

    async def run(self) -> None:
        """Send, until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client:
            while True:
                await asyncio.sleep(EVERY - time.monotonic() % EVERY)
                self._evaluate()
                await self._send(client, self.alerts)
                there = self.firing | self._ending
                await until(farthest({self._flushed.get((t, n), 0.0) for t in self.targets for n in there}))
                if over := [name for name in self._ending if self.alerts[name]["startsAt"]]:
                    self._ended.update(over)
                    self._ending.difference_update(over)
                    for name in over:
                        self.alerts[name]["endsAt"] = stamp()
                    await self._send(client, over)

    def _evaluate(self) -> None:
        self._evaluated += 1
        for name, alert in self.alerts.items():
            # Prometheus renders annotations at each evaluation, and values move.
            alert["annotations"]["summary"] = f"{name} has been at {self._evaluated}"
            alert["startsAt"] = alert["startsAt"] or stamp()
            if name not in self._ended:
                alert["endsAt"] = stamp(self.GOOD_FOR)

    async def _send(self, client: aiohttp.ClientSession, names: Iterable[str]) -> None:
        if names := tuple(names):
            content = body(*(self.alerts[name] for name in names))
            await asyncio.gather(*(self._post(client, target, content, names) for target in self.targets))

    async def _post(self, client: aiohttp.ClientSession, target: str, batch: bytes, names: Iterable[str]) -> None:
        headers, is_lost = {"Content-Type": "application/json"}, True
        try:
            async with client.post(f"{target}/api/v2/alerts", data=batch, headers=headers) as answered:
                is_lost = answered.status >= 300
        except (aiohttp.ClientError, TimeoutError):
            pass
        self.lost += is_lost
        if is_lost:
            self._failed.add(target)
            return
        for name in names:
            if target in self._failed or (target, name) not in self._flushed:
                self._flushed[target, name] = time.monotonic() % EVERY
        self._failed.discard(target)


@dataclass
class Lab:
    hook: Webhook
    ams: list[Program]
    proxies: list[Proxy]
    models: list[FakeProvider]
    sender: Sender
    group_interval: float = GROUP_INTERVAL
    peer_timeout: float = PEER_TIMEOUT
    identities: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The fingerprints that any Alertmanager ever held an alert under."""

    @property
    def proxy(self) -> Proxy:
        return self.proxies[0]

    async def fires(self, *names: str, **labels: str) -> None:
        """Let alerts fire, and wait until people were told."""
        for name in names:
            self.sender.fire(name, **labels)
        await self.told("firing", *names)

    async def ends(self, *names: str) -> None:
        """Let alerts end, and wait until people were told."""
        for name in names:
            self.sender.resolve(name)
        await self.told("resolved", *names)

    async def told(self, status: str, *names: str) -> None:
        """Wait until people were told that alerts are `status`."""
        try:
            async with asyncio.timeout(TOLD_WITHIN):
                while any(not self.hook.told(status, name) for name in names):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            missing = next(name for name in names if not self.hook.told(status, name))
            raise AssertionError(f"{missing} not told as {status} in {TOLD_WITHIN} s. {self.story(missing)}") from None

    async def calm(self) -> None:
        """Give everybody time to tell what should not be told."""
        await asyncio.sleep(CALM + self.peer_timeout + self.group_interval - GROUP_INTERVAL)

    def told_once(self, *names: str, extra: int = 0) -> None:
        """Assert that people were told of each alert once that it fires and once that it has ended.

        `extra` notifications more, all told, are let pass where so many are promised at most.
        """
        for name in names:
            fired, resolved = (self.hook.told(status, name) for status in ("firing", "resolved"))
            told = len(self.hook.about(name))
            if extra:
                assert fired, f"{name} was never told. {self.story(name)}"
                assert resolved, f"{name} was never told to have ended. {self.story(name)}"
                assert told <= 2 + extra, f"{told} notifications. {self.story(name)}"
                continue
            if told > 2 and self._told_by_both(name):
                raise PeersLate(self.story(name))
            assert (len(fired), len(resolved), told) == (1, 1, 2), self.story(name)
            assert fired == resolved, self.story(name)
            assert len(self.identities[name]) == 1, self.story(name)

    def _told_by_both(self, name: str) -> bool:
        tellers = {notification["externalURL"] for notification in self.hook.about(name)}
        labels = [self.hook.told(status, name) for status in ("firing", "resolved")]
        told = {frozenset(each.items()) for each in itertools.chain(*labels)}
        return len(tellers) > 1 and len(told) == 1 and len(self.identities[name]) == 1

    def story(self, name: str | None = None) -> str:
        """What was told, for a test that fails."""
        lines = [
            f"  {alert['status']} {alert['labels']} since {alert['startsAt']}"
            for notification in (self.hook.about(name) if name else self.hook.notifications)
            for alert in notification["alerts"]
        ]
        held = {k: len(v) for k, v in self.identities.items() if name in (None, k)}
        logs = [f"  {one.log}" for one in (*self.proxies, *self.ams)]
        return "\n".join(["People were told:", *lines, f"identities held: {held}", "logs:", *logs])

    async def labels(self, name: str) -> list[dict[str, str]]:
        """Return the labels that each Alertmanager holds an alert under, one after the other."""
        async with aiohttp.ClientSession() as client:
            return [
                alert["labels"]
                for am in self.ams
                for alert in await held(client, am)
                if alert["labels"]["alertname"] == name
            ]

    async def watch(self) -> None:
        """Note under which identities alerts are held, until cancelled."""
        async with aiohttp.ClientSession() as client:
            while True:
                for am in self.ams:
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                        for alert in await held(client, am):
                            self.identities[alert["labels"]["alertname"]].add(alert["fingerprint"])
                await asyncio.sleep(0.3)


async def held(client: aiohttp.ClientSession, am: Program) -> list[dict[str, Any]]:
    limit = aiohttp.ClientTimeout(total=2)  # one that is frozen is not waited for
    async with client.get(f"{am.url}/api/v2/alerts", timeout=limit) as answered:
        return await answered.json() if answered.status == 200 else []


def enriching(model: FakeProvider) -> list[str]:
    """The flags of a proxy that asks `model` about every single alert."""
    return [
        "--enrichment.mode=enriched",
        "--llm.enabled",
        f"--llm.base-url={model.url}",
        "--llm.enable-cache=false",
        "--llm.max-retries=0",
        "--store.timeout=300ms",  # many programs share the cores here: a slow answer shall be no lost Redis
    ]


@asynccontextmanager
async def lab(
    binary: str,
    directory: Path,
    *flags: str,
    replicas: int = 1,
    per_replica: tuple[list[str], ...] = ([], []),
    by_rules: bool = False,
    env: dict[str, str] | None = None,
    group_interval: float = GROUP_INTERVAL,
    peer_timeout: float = PEER_TIMEOUT,
    configuration: Callable[[str, float], dict[str, Any]] = grouped,
) -> AsyncIterator[Lab]:
    """Run one proxy before one Alertmanager, or two before two of one cluster.

    `by_rules`: the labels will be those of the rules, for as long as nothing happens.
    """
    async with AsyncExitStack() as stack:
        hook = await stack.enter_async_context(webhook())
        config = configuration(hook.url, group_interval)
        models = [await stack.enter_async_context(never_the_same(replica)) for replica in range(replicas)]
        if replicas == 1:
            ams = [await stack.enter_async_context(alertmanager(binary, config, directory))]
        else:
            ams = await stack.enter_async_context(clustered(binary, config, directory, peer_timeout))
        proxies = [
            await stack.enter_async_context(
                proxy(
                    am.url,
                    directory,
                    *enriching(model),
                    *flags,
                    *own,
                    env={"LLM_API_KEY": "sk-lab", "PYTHONPATH": LIGHT} | (env or {}),
                )
            )
            for am, model, own in zip(ams, models, per_replica, strict=False)
        ]
        await asyncio.gather(*(labelling(one, by_rules) for one in proxies))
        run = Lab(hook, ams, proxies, models, Sender([one.url for one in proxies]), group_interval, peer_timeout)
        for work in (run.sender.run(), run.watch()):
            await background(stack, work)
        yield run


async def labelling(of: Proxy, by_rules: bool = False) -> None:
    """Wait until a proxy labels what begins now, by the model or by the rules."""
    async with asyncio.timeout(READY_WITHIN):
        while True:
            status = await get(f"{of.admin}/api/v1/status")
            since = datetime.fromisoformat(status["labelling_since"])
            if (
                status["model"]["state"] == "ready"
                and bool(status["labels_by_rules"]) == by_rules
                and since < datetime.now(UTC)
            ):
                return
            await asyncio.sleep(0.1)


async def background(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until `stack` closes."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
