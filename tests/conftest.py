from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count, islice
from pathlib import Path

import pytest
import structlog
from built import Proxy
from fakes import FakeAlertmanager, fake_alertmanager
from hypothesis import HealthCheck, settings
from redis_servers import redis_cluster, redis_sentinel, redis_server

from proxy import app
from proxy.classification.classifier import Classifier
from proxy.config import Settings

# By itself hypothesis fails an example that takes 0.2 s, or is slow to be drawn: on a busy machine any may.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_prefixes = count()

BETWEEN = 4
"""Files handed out between two of e2e tests."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of e2e tests, the longest first, with some others between them; end with the rest of those.

    E2e tests take minutes and mostly wait: so they seldom wait, or work, all at the same time, and none is begun last.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    long = sorted((path for path in files if "e2e" in path.parts), key=lambda path: -len(files[path]))
    short = iter([path for path in files if "e2e" not in path.parts])
    order = [path for one in long for path in (one, *islice(short, BETWEEN))]
    items[:] = [item for path in (*order, *short) for item in files[path]]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Take back what a command that runs in this process does to logging."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if structlog.is_configured():
        root.handlers[:], root.level = handlers, level
        structlog.reset_defaults()


@pytest.fixture
async def alertmanager() -> AsyncIterator[FakeAlertmanager]:
    async with fake_alertmanager() as server:
        yield server


@pytest.fixture
async def proxy_with(alertmanager: FakeAlertmanager) -> AsyncIterator[Callable[..., Awaitable[Proxy]]]:
    """Return a function that builds a proxy with some settings, and perhaps a model of the test's own."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(given: Settings, model: Classifier | None = None) -> Proxy:
            return Proxy(alertmanager, await stack.enter_async_context(app.build(given, model=model)), model)

        yield make


@pytest.fixture
def a_directory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Real servers for the tests of stores, and a name in them.


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
