"""The connections to the providers: one set for the worker, handed to LiteLLM, with what LiteLLM leaves open.

- An answer is read up to WIRE_LIMIT bytes; LiteLLM would read whatever comes.
- A request is sent once. LiteLLM sends it again by itself, unasked, when a connection is refused or reset.
- When a call is over, so are its connections: LiteLLM leaves some streams to the garbage collector.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

WIRE_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of one answer as it comes over the wire, after decompression. A streamed one takes some 300 for each token."""

_KEPT_ALIVE = 60.0


@dataclass(slots=True)
class Exchange:
    """What goes to and fro during one request."""

    too_long: bool = False
    """Whether an answer was given up at WIRE_LIMIT."""
    _responses: list[aiohttp.ClientResponse] = field(default_factory=list)

    def add(self, response: aiohttp.ClientResponse) -> None:
        self._responses.append(response)

    def close(self) -> None:
        """Close what was not read to its end."""
        for response in self._responses:
            response.close()


_EXCHANGE: ContextVar[Exchange] = ContextVar("_EXCHANGE")


@contextmanager
def exchange() -> Iterator[Exchange]:
    """Let requests of this task belong together, and end them when it is left."""
    opened = Exchange()
    before = _EXCHANGE.set(opened)
    try:
        yield opened
    finally:
        _EXCHANGE.reset(before)
        opened.close()


@asynccontextmanager
async def connections() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield the session through which LiteLLM is to send, and close it in the end.

    LiteLLM passes certificates and the environment's HTTP proxies with each request.
    """
    connector = aiohttp.TCPConnector(keepalive_timeout=_KEPT_ALIVE, limit=0)  # `llm.concurrency` is the limit
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), middlewares=(_bounded,)
    ) as session:
        yield session


async def _bounded(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        response = await send(request)
    except aiohttp.ClientOSError as exc:
        # The subclass is what LiteLLM would answer with a second request.
        raise aiohttp.ClientConnectionError(type(exc).__name__) from None
    opened = _EXCHANGE.get(None)
    if opened is not None:
        opened.add(response)
    response.content = _Content(response.content, opened)  # type: ignore[assignment] # it is one as far as it is used
    return response


class _Content:
    """A body that ends with an error at WIRE_LIMIT."""

    def __init__(self, content: aiohttp.StreamReader, opened: Exchange | None) -> None:
        self._content = content
        self._opened = opened

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        read = 0
        async for chunk in self._content.iter_chunked(size):
            read += len(chunk)
            if read > WIRE_LIMIT:
                if self._opened is not None:
                    self._opened.too_long = True
                raise aiohttp.ClientPayloadError("too long")
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)
