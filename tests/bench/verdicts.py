"""What verdicts cost: the work for each alert whose class is known, or not, and how much longer a POST of known alerts
takes while the model is asked 20 times a second.

    python tests/bench/verdicts.py      prints times and ratios; nothing is asserted, machines differ

The second part is the whole proxy with the real model worker, in front of a provider and an Alertmanager that answer at
once, each in a process of its own. Idle and busy slices take turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from aiohttp import ClientSession
from fake_provider import FakeProvider
from fake_provider import verdict as answered
from fakes import FakeModel, Observer, an_alert, body, fake_alertmanager, posted, verdict

from proxy.alert import Alert
from proxy.classification.allowance import WaitingAllowance
from proxy.classification.cache import ClassCache
from proxy.classification.rules import Rules
from proxy.classification.service import ClassificationService

ROUNDS = 200
BATCH = 64
"""Alerts in a POST."""
CALLS = 20
"""Calls a second while the model is busy."""
SLICES = 25
SECONDS = 1.0
"""Of one slice."""
PAUSE = 0.01
"""Seconds between two POSTs that are measured."""
JSON = {"Content-Type": "application/json"}


def service(model: FakeModel | None) -> ClassificationService:
    return ClassificationService(
        rules=Rules.shipped(),
        model=model,
        salt="",
        cache=ClassCache(3600),
        allowance=WaitingAllowance(0),
        observer=Observer(),
    )


def alerts(first: int) -> list[Alert]:
    """A POST of as many classes."""
    return [
        an_alert(f"Alert{first + n}", severity="warning", namespace="shop", instance=f"10.0.0.{n}:9100")
        for n in range(BATCH)
    ]


async def work() -> None:
    known = alerts(0)
    warm, ruled, asking = service(FakeModel([verdict()])), service(None), service(FakeModel([None]))
    await warm.classify(known, 1)
    await asyncio.sleep(0.1)
    found: dict[str, list[float]] = {}
    for n in range(ROUNDS):
        fresh = alerts(n * BATCH)
        for name, asked, batch in (
            ("hit in memory", warm, known),
            ("rules, no model", ruled, known),
            ("rules, 64 calls begin", asking, fresh),
        ):
            begun = time.perf_counter()
            await asked.classify(batch, 0)
            found.setdefault(name, []).append((time.perf_counter() - begun) / BATCH * 1e6)
    await asking.close()
    print(f"work for each of {BATCH} alerts")
    medians = {name: statistics.median(microseconds) for name, microseconds in found.items()}
    for name, microseconds in medians.items():
        print(f"  {name:24s} {microseconds:6.1f} µs   x {microseconds / medians['hit in memory']:.2f}")


async def far_ends() -> None:
    """Be the provider and the Alertmanager until standard input ends."""
    async with FakeProvider([answered()]) as provider, fake_alertmanager() as alertmanager:
        print(provider.url, alertmanager.url, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            alertmanager.received.clear()
            provider.requests.clear()


@contextlib.contextmanager
def started(*command: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *command], text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.asynccontextmanager
async def proxy(home: str, provider: str, alertmanager: str) -> AsyncIterator[tuple[str, str]]:
    """Run a proxy whose model is ready; yield the URLs of its listeners."""
    flags = [
        f"--alertmanager.url={alertmanager}",
        f"--storage.path={home}",
        "--web.listen-address=127.0.0.1:19393",
        "--web.admin-listen-address=127.0.0.1:19394",
        "--enrichment.mode=enriched",
        "--enrichment.repost=false",
        "--log.level=error",
    ]
    model = {"LLM_ENABLED": "true", "LLM_PROVIDER": "openai", "LLM_API_KEY": "sk-1", "LLM_BASE_URL": provider}
    environ = os.environ | model | {"PYTHONPATH": str(Path(__file__).parents[2])}
    admin = "http://127.0.0.1:19394"
    with started("-m", "proxy", *flags, env=environ) as process:
        while not process.poll():
            with contextlib.suppress(OSError):
                if await metric(admin, "aiproxy_model_usable") == 1:
                    break
            await asyncio.sleep(0.2)
        yield "http://127.0.0.1:19393", admin


async def metric(admin: str, name: str) -> float:
    async with ClientSession() as client, client.get(f"{admin}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


async def measured(client: ClientSession, url: str, content: bytes, into: list[float]) -> None:
    """POST for a slice, one after the other; add the milliseconds that each took."""
    until = time.perf_counter() + SECONDS
    while (begun := time.perf_counter()) < until:
        async with client.post(f"{url}/api/v2/alerts", data=content, headers=JSON) as answer:
            await answer.read()
            assert answer.status == 200
        into.append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(PAUSE)


async def new_classes(client: ClientSession, url: str, numbers: Iterator[int]) -> None:
    """POST an alert of a new class so often that the model is asked CALLS times a second."""

    async def one() -> None:
        content = body(posted(f"New{next(numbers)}", severity="warning"))
        async with client.post(f"{url}/api/v2/alerts", data=content, headers=JSON) as answer:
            await answer.read()

    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(one())
            await asyncio.sleep(1 / CALLS)


async def load() -> None:
    command = [__file__, "far_ends"]
    with (
        tempfile.TemporaryDirectory() as home,
        started(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as far,
    ):
        provider, alertmanager = far.stdout.readline().split()  # type: ignore[union-attr]
        async with proxy(home, provider, alertmanager) as (url, admin), ClientSession() as client:
            content = body(*(posted(f"Known{n}", instance=f"10.0.0.{n}:9100") for n in range(BATCH)))
            async with client.post(f"{url}/api/v2/alerts", data=content, headers=JSON) as answer:
                await answer.read()
            direct: list[float] = []
            idle: list[float] = []
            busy: list[float] = []
            calls, numbers = 0.0, itertools.count()
            for _ in range(SLICES):
                far.stdin.write("\n")  # type: ignore[union-attr]
                far.stdin.flush()  # type: ignore[union-attr]
                await measured(client, alertmanager, content, direct)
                await measured(client, url, content, idle)
                begun = await metric(admin, "aiproxy_model_requests_total")
                asking = asyncio.create_task(new_classes(client, url, numbers))
                await measured(client, url, content, busy)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                await asyncio.sleep(0.2)  # the last calls are no longer of this slice
                calls += await metric(admin, "aiproxy_model_requests_total") - begun
    there = quantiles(direct)
    added = {
        what: [mine - of for mine, of in zip(quantiles(found), there, strict=True)]
        for what, found in (("idle", idle), ("busy", busy))
    }
    print(f"added to a POST of {BATCH} known alerts, p50 and p99 of {len(idle)} and {len(busy)}")
    print(f"  Alertmanager alone       {there[0]:6.2f} ms  {there[1]:6.2f} ms")
    for what, name in (("idle", "idle"), ("busy", f"{calls / SLICES / SECONDS:.1f} calls/s")):
        ratios = [mine / of for mine, of in zip(added[what], added["idle"], strict=True)]
        print(
            f"  added, {name:16s}  {added[what][0]:6.2f} ms  {added[what][1]:6.2f} ms"
            f"   x {ratios[0]:.2f}  x {ratios[1]:.2f}"
        )


def quantiles(found: list[float]) -> tuple[float, float]:
    hundredths = statistics.quantiles(found, n=100)
    return hundredths[49], hundredths[98]


if __name__ == "__main__":
    if sys.argv[1:] == ["far_ends"]:
        asyncio.run(far_ends())
    else:
        asyncio.run(work())
        asyncio.run(load())
