"""The loop that a proxy runs on: its end waits for no resolver, and a connection that speaks TLS costs little."""

from __future__ import annotations

import asyncio
import socket
from asyncio import sslproto
from functools import partial
from typing import Any, Final

from proxy.storage.thread import DaemonThread

TLS_BUFFER: Final = 32 << 10
"""Bytes that are read of a TLS connection at once; a record of TLS has at most half as many."""


class Loop(asyncio.SelectorEventLoop):
    """asyncio's, but for one thing: each name is looked up in a thread of its own, that nobody waits for.

    asyncio does it in its pool, whose threads are waited for at the end. A resolver that is away takes 24 s or more:
    longer than SIGTERM leaves, and a few such lookups leave the pool no thread for anything else. Whoever looks a name
    up does it here: aiohttp, the discovery of Alertmanagers, the client of Redis.
    """

    def __init__(self) -> None:
        super().__init__()
        # asyncio keeps a buffer of that size for each connection: 256 KiB, 512 MiB for web.max_connections of them.
        sslproto.SSLProtocol.max_size = TLS_BUFFER

    async def getaddrinfo(self, host: Any, port: Any, **options: int) -> list[Any]:
        """Return what socket.getaddrinfo does. Raises what that does."""
        thread = DaemonThread("resolver")
        try:
            return await self.run_in_executor(thread, partial(socket.getaddrinfo, host, port, **options))
        finally:
            thread.shutdown()
