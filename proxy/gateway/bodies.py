"""The memory that the bodies of POSTs take together, so that no number of them takes all there is.

The first FREE bytes of each are its own: whoever posts as much as Prometheus does need not fear that others post more.
All beyond comes from one bound, what an enriched body is unfolded into while it is read included.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Final

from aiohttp import web

from proxy.errors import RequestError

FREE: Final = 256 << 10
"""Bytes of a body that are held whatever others hold. Prometheus' batches are a quarter of it."""
LARGE: Final = 1 << 20
"""Bytes of a body above which one at a time is enriched, and that those that need not be read are not held beyond."""
_VALUE: Final = 300
"""Bytes that a value in JSON becomes at most when it is unfolded, its part of what is inserted included; measured."""


class BodyMemory:
    """Bytes that bodies share."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._freed = asyncio.Event()

    @contextmanager
    def held(self) -> Iterator[Held]:
        """Return what one body holds until the block ends."""
        held = Held(self)
        try:
            yield held
        finally:
            self._give(held.taken)

    def take(self, size: int) -> bool:
        """Return whether `size` bytes were there; then they are taken."""
        if size > self._left:
            return False
        self._left -= size
        return True

    async def wait_for(self, size: int) -> bool:
        """Take `size` bytes as soon as they are there; False when they never will be."""
        if size > self._limit:
            return False
        while not self.take(size):
            self._freed.clear()
            await self._freed.wait()
        return True

    def _give(self, size: int) -> None:
        self._left += size
        if size:
            self._freed.set()


class Held:
    """What one body has taken of the bound."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.taken = 0

    def grow_to(self, size: int) -> bool:
        """Return whether a body of `size` bytes may be held."""
        more = max(0, size - FREE - self.taken)
        if not self._memory.take(more):
            return False
        self.taken += more
        return True

    async def unfold(self, body: bytes) -> bool:
        """Return whether there is room to enrich `body`, after waiting for it. False when there never is."""
        if len(body) <= FREE:
            return True
        size = unfolded(body)
        if not await self._memory.wait_for(size):
            return False
        self.taken += size
        return True


def unfolded(body: bytes) -> int:
    """Return how many bytes it takes at most to decode `body`, to hold what is in it, and to encode it anew."""
    values = body.count(b",") + body.count(b"{") + body.count(b"[")
    # As text, once as it came and once with what is inserted; one character beyond ASCII may make each four bytes wide.
    return (4 if body.isascii() else 10) * len(body) + _VALUE * values


async def read(request: web.BaseRequest, held: Held, at_most: int) -> tuple[bytes, bool]:
    """Return the body, and whether that is all of it: what is longer than `at_most`, or finds no room, is left to come.

    A body that says that it is longer is not begun with. Raises BodyTimeout, and what `pieces` raises.
    """
    if (request.content_length or 0) > at_most:
        return b"", False
    async with aclosing(pieces(request)) as coming:
        first = await anext(coming, b"")
        if not held.grow_to(len(first)) or len(first) > at_most:
            return first, False
        if request.content.at_eof():
            return first, True
        body = bytearray(first)
        async for piece in coming:
            body += piece
            if len(body) > at_most or not held.grow_to(len(body)):
                return bytes(body), False
        return bytes(body), True


async def pieces(request: web.BaseRequest) -> AsyncGenerator[bytes]:
    """Yield the body as it comes in. Raises RequestError when it breaks off or is malformed."""
    try:
        async for piece in request.content.iter_any():
            yield piece
    except web.RequestPayloadError:
        raise RequestError("the body of the request is malformed") from None
    except ConnectionError:
        raise RequestError("the body of the request breaks off") from None
