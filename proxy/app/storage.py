"""The stores of the settings' choice: where decisions are kept, verdicts for the class cache, and what was spent."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.classification.spending import SpendingStore
from proxy.classification.verdicts import VerdictStore
from proxy.config import Settings
from proxy.decisions.store import DecisionStore
from proxy.decisions.stores.memory import MemoryStore
from proxy.errors import ConfigError

if TYPE_CHECKING:
    from proxy.storage.topology import Topology


async def open_store(settings: Settings, stack: AsyncExitStack) -> DecisionStore:
    """Return the store that `store.url` names. What is not chosen is not imported. Raises ConfigError."""
    url = settings.store.url
    if url == "memory:":
        return MemoryStore()
    if url.startswith("sqlite:"):
        from proxy.decisions.stores.sqlite import NAME, SqliteStore

        path = Path(url.removeprefix("sqlite:") or settings.storage.path / NAME)
        return await stack.enter_async_context(SqliteStore(path))
    from proxy.decisions.stores.redis import RedisStore

    try:
        store = RedisStore(
            url,
            username=settings.store.username,
            password=settings.store.password.reveal() or None,
            prefix=settings.store.prefix,
            sentinel_username=settings.store.sentinel_username,
            sentinel_password=settings.store.sentinel_password.reveal() or None,
            timeout=settings.store.timeout.total_seconds(),
        )
    except (ValueError, TypeError) as exc:
        raise ConfigError([f"store.url: {exc}"]) from exc
    return await stack.enter_async_context(store)


async def open_verdicts(settings: Settings, stack: AsyncExitStack) -> VerdictStore | None:
    """Return the second tier of the class cache, which lies where `store.url` keeps decisions; None for `memory:`.

    What is wrong with the URL itself, `open_store` says. Raises ConfigError where one file would be for both.
    """
    url = settings.store.url
    if url == "memory:":
        return None
    if url.startswith("sqlite:"):
        from proxy.classification.stores.sqlite import NAME, SqliteVerdicts

        return await stack.enter_async_context(SqliteVerdicts(_beside(settings, NAME, "the class cache")))
    from proxy.classification.stores.redis import RedisVerdicts

    verdicts = RedisVerdicts(
        _servers(settings), prefix=settings.store.prefix, timeout=settings.store.timeout.total_seconds()
    )
    return await stack.enter_async_context(verdicts)


async def open_spending(settings: Settings, stack: AsyncExitStack) -> SpendingStore | None:
    """Return where what was spent is kept, beside the decisions; None for `memory:`. Raises ConfigError as above."""
    url = settings.store.url
    if url == "memory:":
        return None
    if url.startswith("sqlite:"):
        from proxy.classification.stores.sqlite_spending import NAME, SqliteSpending

        return await stack.enter_async_context(SqliteSpending(_beside(settings, NAME, "spending")))
    from proxy.classification.stores.redis_spending import RedisSpending

    spending = RedisSpending(
        _servers(settings), prefix=settings.store.prefix, timeout=settings.store.timeout.total_seconds()
    )
    return await stack.enter_async_context(spending)


def _beside(settings: Settings, name: str, what: str) -> Path:
    """Return the file `name` beside that of the decisions. Raises ConfigError where it is that of the decisions."""
    named = settings.store.url.removeprefix("sqlite:")
    path = Path(named).parent / name if named else settings.storage.path / name
    if named and path == Path(named):
        raise ConfigError([f"store.url: {name} is where {what} is kept, name another file for decisions"])
    return path


def _servers(settings: Settings) -> Topology:
    """Return the servers that `store.url` names, with connections of their own."""
    from proxy.storage.topology import topology

    return topology(
        settings.store.url,
        username=settings.store.username,
        password=settings.store.password.reveal() or None,
        sentinel_username=settings.store.sentinel_username,
        sentinel_password=settings.store.sentinel_password.reveal() or None,
    )
