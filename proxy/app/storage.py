"""The decision store of the settings' choice."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from proxy.config import Settings
from proxy.decisions.store import DecisionStore
from proxy.decisions.stores.memory import MemoryStore


async def open_store(settings: Settings, stack: AsyncExitStack) -> DecisionStore:
    """Return the store that `store.url` names. What is not chosen is not imported."""
    url = settings.store.url
    if url == "memory:":
        return MemoryStore()
    if url.startswith("sqlite:"):
        from proxy.decisions.stores.sqlite import SqliteStore

        path = Path(url.removeprefix("sqlite:") or settings.storage.path / "decisions.db")
        return await stack.enter_async_context(SqliteStore(path))
    from proxy.decisions.stores.redis import RedisStore

    return await stack.enter_async_context(
        RedisStore(
            url,
            username=settings.store.username,
            password=settings.store.password.reveal() or None,
            prefix=settings.store.prefix,
        )
    )
