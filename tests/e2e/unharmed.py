"""What worked before there were labels works with them: silences, inhibition, resolves; and a first day is quiet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from fakes import posted, stamp
from lab import (
    CALM,
    GROUP_INTERVAL,
    LIGHT,
    TOLD_WITHIN,
    Lab,
    Sender,
    background,
    enriching,
    grouped,
    lab,
    labelling,
    never_the_same,
)
from real import Webhook, alertmanager, metric, proxy, send, webhook


async def silences(binary: str, directory: Path) -> None:
    """One is older than the alert's labels, one is made while the alert fires; both name the author's labels only."""
    async with lab(binary, directory) as run:
        await silence(run, "Early")
        run.sender.fire("Early")
        await run.fires("Late")
        await silence(run, "Late")
        await run.calm()
        for name in ("Early", "Late"):
            [labels] = await run.labels(name)
            assert labels["ai_severity"] in {"critical", "info"}, "the model's"
        run.sender.resolve("Early")
        run.sender.resolve("Late")
        await run.calm()
        assert not run.hook.about("Early")
        assert [len(run.hook.told(status, "Late")) for status in ("firing", "resolved")] == [1, 0]


async def silence(run: Lab, name: str) -> None:
    matcher = {"name": "alertname", "value": name, "isRegex": False, "isEqual": True}
    wanted = {
        "matchers": [matcher, matcher | {"name": "severity", "value": "warning"}],
        "startsAt": stamp(),
        "endsAt": stamp(600),
        "createdBy": "lab",
        "comment": "known",
    }
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{run.proxy.url}/api/v2/silences", json=wanted) as answered,
    ):
        assert answered.status == 200


def kube_prometheus(url: str, group_interval: float) -> dict[str, Any]:
    """The inhibition of kube-prometheus, which many clusters have."""
    return grouped(url, group_interval) | {
        "inhibit_rules": [
            {
                "source_matchers": ["severity = critical"],
                "target_matchers": ["severity =~ warning|info"],
                "equal": ["namespace", "alertname"],
            },
            {
                "source_matchers": ["severity = warning"],
                "target_matchers": ["severity = info"],
                "equal": ["namespace", "alertname"],
            },
            {
                "source_matchers": ["alertname = InfoInhibitor"],
                "target_matchers": ["severity = info"],
                "equal": ["namespace"],
            },
        ]
    }


async def inhibition(binary: str, directory: Path) -> None:
    async with lab(binary, directory, configuration=kube_prometheus) as run:
        signals = {
            "Watchdog": {"severity": "none"},
            "InfoInhibitor": {"severity": "none", "namespace": "shop"},
        }
        for name, labels in signals.items():
            run.sender.fire(name, **labels)
        for severity in ("critical", "warning"):
            # Of one name in one namespace: the keys tell them apart for the sender alone.
            run.sender.fire(f"disk-{severity}", alertname="DiskFull", namespace="shop", severity=severity)
        run.sender.fire("Hint", namespace="shop", severity="info")
        await run.fires("OtherHint", namespace="bank", severity="info")
        await run.told("firing", "DiskFull")
        await run.calm()
        assert [labels["severity"] for labels in run.hook.told("firing", "DiskFull")] == ["critical"]
        assert not run.hook.about("Hint"), "inhibited by InfoInhibitor"
        for labels in (*await run.labels("DiskFull"), *await run.labels("Hint")):
            assert "ai_severity" in labels
        for name, labels in signals.items():
            assert await run.labels(name) == [{"alertname": name, **labels}], "left as it came"
        for name in list(run.sender.alerts):
            run.sender.resolve(name)
        await run.told("resolved", "OtherHint", "DiskFull", *signals)
        await run.calm()
        run.told_once("OtherHint", *signals)
        assert not run.hook.about("Hint")


async def resolves(binary: str, directory: Path) -> None:
    """They are told no later than without a proxy by more than a group_interval, and nobody is asked about them."""
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(lab(binary, directory))
        direct = await stack.enter_async_context(webhook())
        beside = await stack.enter_async_context(alertmanager(binary, grouped(direct.url), directory))
        run.sender.targets.append(beside.url)
        names = [f"Alert{n}" for n in range(5)]
        await run.fires(*names)
        await told(direct, "firing", names)
        asked = len(run.models[0].requests)
        decided = await metric(run.proxy.admin, "aiproxy_decisions_living")
        assert decided == asked == len(names)

        for name in names:
            run.sender.resolve(name)
        begun = time.monotonic()
        through, past = await asyncio.gather(told(run.hook, "resolved", names), told(direct, "resolved", names))
        through, past = through - begun, past - begun
        print(f"resolves were told after {past:.1f} s without and {through:.1f} s with a proxy")
        # The two Alertmanagers flush out of step, by no more than that.
        assert through <= past + GROUP_INTERVAL + 0.5

        ended = posted("NeverSeen", begun=-2, ends=-1)
        assert await send(run.proxy.url, ended) == 200
        await run.calm()  # in which the resolves are repeated, too
        assert len(run.models[0].requests) == asked, "no call"
        assert await metric(run.proxy.admin, "aiproxy_decisions_labelled") == decided, "no new decision"
        run.told_once(*names)
        assert not run.hook.about("NeverSeen")


async def told(hook: Webhook, status: str, names: Sequence[str]) -> float:
    """Wait until `hook` was told that alerts are `status`; return when it was."""
    async with asyncio.timeout(TOLD_WITHIN):
        while not all(hook.told(status, name) for name in names):
            await asyncio.sleep(0.1)
    return time.monotonic()


async def a_first_day(binary: str, directory: Path) -> None:
    """The proxy is put before an Alertmanager that has just restarted, while 50 alerts fire."""
    async with AsyncExitStack() as stack:
        hook = await stack.enter_async_context(webhook())
        am = await stack.enter_async_context(alertmanager(binary, grouped(hook.url), directory))
        sender = Sender([am.url])
        await background(stack, sender.run())
        names = [f"Old{n}" for n in range(50)]
        for name in names:
            sender.fire(name)
        await told(hook, "firing", names)

        sender.targets.clear()
        await am.stop()
        model = await stack.enter_async_context(never_the_same())
        px = await stack.enter_async_context(
            proxy(am.url, directory, *enriching(model), env={"LLM_API_KEY": "sk-lab", "PYTHONPATH": LIGHT})
        )
        await am.start()
        await labelling(px)
        sender.targets.append(px.url)
        sender.fire("New")
        await told(hook, "firing", ["New"])
        await asyncio.sleep(CALM)
        assert len(hook.notifications) == len(names) + 1, "the new one alone was told"
        assert "ai_severity" in hook.told("firing", "New")[0]
        for name in names:
            sender.resolve(name)
        await told(hook, "resolved", names)
        assert len(hook.notifications) == 2 * len(names) + 1


UNHARMED = {
    "a silence silences": silences,
    "inhibition inhibits": inhibition,
    "a resolve waits for nobody": resolves,
    "a first day is quiet": a_first_day,
}
