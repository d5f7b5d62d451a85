"""The connections to the providers: one set for the worker, handed to LiteLLM, with what LiteLLM leaves open.

- An answer is read up to WIRE_LIMIT bytes, decompressed; LiteLLM would read whatever comes.
- A request is sent once. LiteLLM sends it again by itself, unasked, when a connection is refused or reset.
- Nobody is sent anywhere else. LiteLLM would follow a redirect, dozens of times and to any host, with the key.
- When a call is over, so are its connections: LiteLLM leaves some streams to the garbage collector.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

WIRE_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of one answer, after decompression. A streamed one takes some 300 for each token."""

_KEPT_ALIVE = 60.0


@dataclass(slots=True)
class Exchange:
    """What goes to and fro during one request."""

    too_long: bool = False
    """Whether an answer was given up at WIRE_LIMIT."""
    redirect: int = 0
    """The status with which a provider sent us elsewhere."""
    unreachable: str = ""
    """Why there was no connection."""
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
    request.headers["Accept-Encoding"] = "identity"
    opened = _EXCHANGE.get(None)
    try:
        response = await send(request)
    except aiohttp.ClientOSError as exc:
        if opened is not None and isinstance(exc, aiohttp.ClientConnectorError):
            opened.unreachable = _why(exc)
        # The subclass is what LiteLLM would answer with a second request.
        raise aiohttp.ClientConnectionError(type(exc).__name__) from None
    if opened is not None:
        opened.add(response)
    if 300 <= response.status < 400:
        if opened is not None:
            opened.redirect = response.status
        raise aiohttp.ClientConnectionError("redirect")
    left = CIMultiDict(response.headers)
    encoding = left.pop("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        # Some compress unasked. With this header the body would be decompressed once more.
        response._headers = CIMultiDictProxy(left)
        response._cache.pop("headers", None)
    response.content = _Content(response.content, opened, encoding)  # type: ignore[assignment] # as far as it is used
    return response


def _why(exc: aiohttp.ClientConnectorError) -> str:
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return "its host's name is not known"
    if isinstance(exc, aiohttp.ClientSSLError):
        return "TLS fails"
    return os.strerror(exc.os_error.errno).lower() if exc.os_error.errno else type(exc.os_error).__name__


class _Content:
    """A body, decompressed, that ends with an error at WIRE_LIMIT."""

    def __init__(self, content: aiohttp.StreamReader, opened: Exchange | None, encoding: str) -> None:
        self._content = content
        self._opened = opened
        self._encoding = encoding

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        read, decode = 0, _decoder(self._encoding)
        async for chunk in self._content.iter_chunked(size):
            left = WIRE_LIMIT - read
            decoded = decode(chunk, left + 1)
            yield decoded[:left]
            if len(decoded) > left:
                if self._opened is not None:
                    self._opened.too_long = True
                raise aiohttp.ClientPayloadError("too long")
            read += len(decoded)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)


def _decoder(encoding: str) -> Callable[[bytes, int], bytes]:
    """Return what decompresses chunks, each to no more than so many bytes. Raises ClientPayloadError."""
    if encoding == "identity":
        return lambda chunk, _: chunk
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise aiohttp.ClientPayloadError("an unknown encoding")
    inflate = zlib.decompressobj(_GZIP_OR_ZLIB)

    def decode(chunk: bytes, at_most: int) -> bytes:
        try:
            return inflate.decompress(chunk, at_most)
        except zlib.error:
            raise aiohttp.ClientPayloadError("broken compression") from None

    return decode


_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
