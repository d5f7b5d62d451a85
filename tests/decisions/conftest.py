"""Stores and the real servers behind them, for the tests of the stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest
from redis_servers import redis_cluster, redis_sentinel, redis_server

from proxy.decisions.store import DecisionStore
from proxy.decisions.stores.memory import MemoryStore
from proxy.decisions.stores.redis import RedisStore
from proxy.decisions.stores.sqlite import SqliteStore

SLOW = 5.0
"""Seconds that a store gets where it is not the time that is tested."""
_prefixes = count()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_server]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_cluster]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_sentinel]:
    with redis_sentinel(tmp_path_factory.mktemp("sentinel")) as servers:
        yield servers


@pytest.fixture
def prefix() -> str:
    """A name under which nobody keeps anything yet."""
    return f"test{next(_prefixes)}"


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
