"""The loop that a proxy runs on, whose end waits for no resolver."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

from proxy.storage.thread import DaemonThread


class Loop(asyncio.SelectorEventLoop):
    """asyncio's, but for one thing: each name is looked up in a thread of its own, that nobody waits for.

    asyncio does it in its pool, whose threads are waited for at the end. A resolver that is away takes 24 s or more:
    longer than SIGTERM leaves, and a few such lookups leave the pool no thread for anything else. Whoever looks a name
    up does it here: aiohttp, the discovery of Alertmanagers, the client of Redis.
    """

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> list[Any]:
        """Return what socket.getaddrinfo does. Raises what that does."""
        thread = DaemonThread("resolver")
        try:
            return await self.run_in_executor(thread, partial(socket.getaddrinfo, host, port, **options))
        finally:
            thread.shutdown()
