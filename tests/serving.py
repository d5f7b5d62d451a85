"""A server of bytes on loopback whose connections end with it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

LIMIT = 1 << 26
"""Bytes, the longest head that can be read."""

TURNS = 10
"""Of the loop, more than it takes from a connection's accept to the first line of what serves it."""


async def stop_listening(server: asyncio.Server) -> None:
    """Close its port, when all that it has accepted is begun to be served.

    What is on its way there when asyncio's `close` comes is lost, and its socket is left open.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(TURNS):
        await asyncio.sleep(0)
    server.close()


class Server:
    """Hands each connection to `serve`; `close` ends them all, as the end of a process does.

    asyncio's own server leaves open what it has accepted. Such a connection is found and complained of when it is
    collected, in whichever test happens to run by then.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._accepted: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._server: asyncio.Server | None = None

    @classmethod
    async def start(
        cls, serve: Serve, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> Self:
        """Listen at `port`, or at a free one."""
        self = cls(serve)
        self._server = await asyncio.start_server(self._accept, host, port, limit=LIMIT, ssl=tls)
        return self

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Close the port and every connection."""
        assert self._server is not None
        await stop_listening(self._server)
        tasks = [task for task in self._accepted.values() if task]
        for task in tasks:
            task.cancel()
        for writer in self._accepted:
            writer.transport.abort()
        ends = [writer.wait_closed() for writer in self._accepted]
        await asyncio.gather(*tasks, *ends, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted[writer] = asyncio.current_task()
        with contextlib.suppress(asyncio.CancelledError):  # asyncio's streams would complain of it
            await self._serve(reader, writer)


@asynccontextmanager
async def serving(serve: Serve, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Hand each connection to a free port of loopback to `serve`; yield the port."""
    server = await Server.start(serve, tls=tls)
    try:
        yield server.port
    finally:
        await server.close()
