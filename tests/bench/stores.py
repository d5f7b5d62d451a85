"""What the stores cost: a claim and a get of 64 decisions, loading 100,000 while others want the event loop, and a hit
in each tier of the class cache, of one class and of 64 at once.

.venv/bin/python tests/bench/stores.py      prints medians and ratios to memory; nothing is asserted, machines differ
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cachetools import TTLCache
from kept import kept
from redis_servers import redis_cluster, redis_server
from verdicts import a_class, a_verdict

from proxy.classification.classes import ClassKey
from proxy.classification.classification import Classification
from proxy.classification.stores.redis import RedisVerdicts
from proxy.classification.stores.sqlite import SqliteVerdicts
from proxy.classification.verdicts import Cached, VerdictStore
from proxy.decisions.store import DecisionStore, Kept
from proxy.decisions.stores.memory import MemoryStore
from proxy.decisions.stores.redis import RedisStore
from proxy.decisions.stores.sqlite import SqliteStore
from proxy.storage.topology import topology

ROUNDS = 50
BATCH = 64
MANY = 100_000
TEXT = {
    "ai_source": "llm",
    "ai_confidence": "high",
    "ai_summary": "The disk of the database fills up. " * 5,
    "ai_recommendations": "1. Find out what grows. 2. Make room. 3. Add an alert that comes sooner.",
}


def decisions(n: int, first: int = 0) -> list[Kept]:
    """`n` of them in 50 classes, as on a large site."""
    return [
        kept(
            f"Alert{i}",
            ["critical", "warning", "info"][i % 3],
            life=i + 1,
            texts=TEXT | {"ai_model": f"model-{i % 50}"},
            original=f'{{"alertname":"Alert{i % 50}","instance":"host-{i}:9100","job":"node","severity":"page"}}',
        )
        for i in range(first, first + n)
    ]


async def median(of: Callable[[int], object]) -> float:
    seconds = []
    for n in range(ROUNDS):
        begun = time.perf_counter()
        await of(n)  # type: ignore[misc]
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


@contextlib.asynccontextmanager
async def longest_wait(found: list[float]):
    """Add to `found` the longest time for which the event loop had no turn for anybody else."""

    async def turns() -> None:
        longest, last = 0.0, time.perf_counter()
        try:
            while True:
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                longest, last = max(longest, now - last - 0.001), now
        finally:
            found.append(longest)

    task = asyncio.create_task(turns())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def measure(name: str, store: DecisionStore, to: dict[str, float]) -> None:
    fresh = [decisions(BATCH, n * BATCH) for n in range(ROUNDS)]
    figures = {
        "claim of 64": await median(lambda n: store.claim(fresh[n])),
        "again": await median(lambda n: store.claim(fresh[n])),
        "get of 64": await median(lambda n: store.get([k.decision.identity for k in fresh[n]])),
    }
    for what, seconds in figures.items():
        print(f"{name:14s} {what:12s} {seconds * 1000:8.2f} ms   x {seconds / to.setdefault(what, seconds):.0f}")


async def measure_hits(name: str, tier: VerdictStore | None, to: dict[str, float]) -> None:
    """Measure what it takes to find verdicts; without a `tier`, in the memory of the process."""
    classes = [a_class(f"{n}") for n in range(BATCH)]
    memory: TTLCache[ClassKey, Classification] = TTLCache(10_000, 3600)
    for one in classes:
        memory[one] = a_verdict()
        if tier is not None:
            await tier.put({one: Cached(a_verdict(), 3600)})

    async def find(wanted: list[ClassKey]) -> None:
        found = [memory[key] for key in wanted] if tier is None else await tier.get(wanted)
        assert len(found) == len(wanted)

    for what, wanted in {"hit": classes[:1], "64 hits": classes}.items():
        seconds = await median(lambda _, wanted=wanted: find(wanted))
        print(f"{name:14s} {what:12s} {seconds * 1000:8.3f} ms   x {seconds / to.setdefault(what, seconds):.0f}")


async def fill(store: DecisionStore) -> None:
    for n in range(0, MANY, 1000):
        await store.claim(decisions(1000, n))


async def measure_load(name: str, store: DecisionStore) -> None:
    waits: list[float] = []
    begun = time.perf_counter()
    found = 0
    async with longest_wait(waits):
        async for slice_ in store.load():
            found += len(slice_)
    seconds = time.perf_counter() - begun
    print(f"{name:14s} load {found:7,} {seconds * 1000:8.0f} ms   longest wait of others {waits[0] * 1000:.1f} ms")


async def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        memory: dict[str, float] = {}
        await measure("memory", MemoryStore(), memory)
        async with SqliteStore(Path(home, "decisions.db"), timeout=10) as sqlite:
            await measure("sqlite", sqlite, memory)
            await fill(sqlite)
        async with SqliteStore(Path(home, "decisions.db"), timeout=10) as sqlite:
            await measure_load("sqlite", sqlite)
        size = Path(home, "decisions.db").stat().st_size  # noqa: ASYNC240
        print(f"{'sqlite':14s} file {size / MANY:8.0f} bytes a decision")
        for name, kind in {"redis": redis_server, "redis cluster": redis_cluster}.items():
            with kind(Path(home)) as servers:
                async with RedisStore(servers.url, timeout=10) as store:
                    await store.beat("bench", "")
                    await measure(name, store, memory)
                    await fill(store)
                    await measure_load(name, store)
                if isinstance(servers, redis_server):
                    with servers.client() as client:
                        used = client.info("memory")["used_memory"]
                    print(f"{name:14s} memory {used / MANY:6.0f} bytes a decision")


async def tiers() -> None:
    with tempfile.TemporaryDirectory() as home, redis_server(Path(home)) as server:
        memory: dict[str, float] = {}
        await measure_hits("memory", None, memory)
        async with SqliteVerdicts(Path(home, "verdicts.db"), timeout=10) as sqlite:
            await measure_hits("sqlite", sqlite, memory)
        async with RedisVerdicts(topology(server.url), timeout=10) as redis:
            await measure_hits("redis", redis, memory)


if __name__ == "__main__":
    asyncio.run(main())
    asyncio.run(tiers())
