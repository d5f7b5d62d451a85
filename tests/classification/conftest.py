"""Second tiers of the class cache, a provider that models are asked through, and the clock of budgets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from fake_provider import FakeProvider
from spending import Clock
from verdicts import InRedis, InSqlite

from proxy.classification.stores.redis import RedisVerdicts
from proxy.classification.stores.sqlite import NAME, SqliteVerdicts
from proxy.classification.verdicts import VerdictStore
from proxy.storage.topology import topology

SLOW = 5.0
"""Seconds that a store gets where it is not the time that is tested."""


@pytest.fixture
def clock() -> Clock:
    """Of a day's budget."""
    return Clock()


@pytest.fixture
async def redis_verdicts(prefix: str) -> AsyncIterator[Callable[..., RedisVerdicts]]:
    """Return a function that opens a store at a URL; those of one test see the same."""
    async with AsyncExitStack() as stores:

        def open_(url: str, timeout: float = SLOW, **options: str) -> RedisVerdicts:
            store = RedisVerdicts(topology(url, **options), prefix=prefix, timeout=timeout)
            stores.push_async_callback(store.aclose)
            return store

        yield open_


@pytest.fixture
async def opened(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, redis_verdicts: Callable[..., RedisVerdicts]
) -> AsyncIterator[Callable[[], VerdictStore]]:
    """Return a function that opens a store of `kind`, which the test's parameters name."""
    if kind == "sqlite":
        async with AsyncExitStack() as stores:

            def open_() -> SqliteVerdicts:
                store = SqliteVerdicts(tmp_path / "kept" / NAME, timeout=SLOW)
                stores.push_async_callback(store.aclose)
                return store

            yield open_
    else:
        servers = request.getfixturevalue(kind)
        yield lambda: redis_verdicts(servers.url)


@pytest.fixture
def inside(kind: str, request: pytest.FixtureRequest, tmp_path: Path, prefix: str) -> InRedis | InSqlite:
    """What the store of `kind` keeps, for the test to look at and to spoil."""
    if kind == "sqlite":
        return InSqlite(tmp_path / "kept" / NAME)
    return InRedis(request.getfixturevalue(kind), prefix)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far_end() -> AsyncIterator[FakeProvider]:
    """What the models of a module are asked through."""
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
def provider(far_end: FakeProvider) -> FakeProvider:
    """The same, with nothing left of the test before."""
    far_end.forget()
    return far_end
