"""Stores of decisions, for their tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy.decisions.store import DecisionStore
from proxy.decisions.stores.memory import MemoryStore
from proxy.decisions.stores.redis import RedisStore
from proxy.decisions.stores.sqlite import SqliteStore

SLOW = 5.0
"""Seconds that a store gets where it is not the time that is tested."""


@pytest.fixture
async def redis_store(prefix: str) -> AsyncIterator[Callable[..., RedisStore]]:
    """Return a function that opens a store at a URL; those of one test see the same."""
    async with AsyncExitStack() as stores:
        opened: list[RedisStore] = []

        def open_(url: str, timeout: float = SLOW, **options: str) -> RedisStore:
            store = RedisStore(url, prefix=prefix, timeout=timeout, **options)
            stores.push_async_callback(store.aclose)
            opened.append(store)
            return store

        yield open_


@pytest.fixture
async def opened(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, redis_store: Callable[..., RedisStore]
) -> AsyncIterator[Callable[[], DecisionStore]]:
    """Return a function that opens a store of `kind`, which the test's parameters name."""
    if kind in {"alone", "cluster", "sentinel"}:
        servers = request.getfixturevalue(kind)
        yield lambda: redis_store(servers.url)
    elif kind == "sqlite":
        async with AsyncExitStack() as stores:

            def open_() -> SqliteStore:
                store = SqliteStore(tmp_path / "kept" / "decisions.db", timeout=SLOW)
                stores.push_async_callback(store.aclose)
                return store

            yield open_
    else:
        yield MemoryStore
