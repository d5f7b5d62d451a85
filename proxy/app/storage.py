"""The decision store of the settings' choice."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from proxy.config import Settings
from proxy.decisions.store import DecisionStore
from proxy.decisions.stores.memory import MemoryStore
from proxy.errors import ConfigError


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
