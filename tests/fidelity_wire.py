"""HTTP by hand: a client that sends bytes as they are, and an upstream that keeps them.

No library stands between, for what a library would tidy up is what the tests of fidelity look at.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serving import LIMIT, serving

SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""Sent behind each request: an answer to it tells that both sides agree where that one ended."""
PATIENCE = 20.0

Headers = list[tuple[bytes, bytes]]


@dataclass
class Message:
    """A request or an answer, taken apart no further than needed."""

    line: bytes
    headers: Headers
    """As they came: names in their case, values with no space around them."""
    body: bytes = b""
    framed: str = "none"
    """By what its end is known: `none` (no body), `length`, `chunked`, `close`."""
    raw_head: bytes = b""
    interim: list[bytes] = field(default_factory=list)
    """The status lines of 1xx answers before it."""

    @property
    def status(self) -> int:
        return int(self.line.split(b" ", 2)[1])

    def all(self, name: str) -> list[bytes]:
        return [value for given, value in self.headers if given.lower() == name.lower().encode()]

    def first(self, name: str) -> bytes | None:
        return next(iter(self.all(name)), None)


@dataclass
class Exchange:
    """What came back for one request."""

    answer: Message | None
    """None: the connection was closed without one."""
    goes_on: bool
    """Whether the next request on the connection got its answer."""


async def head(reader: asyncio.StreamReader) -> Message:
    """Read a head. Raises IncompleteReadError when there is none."""
    raw = await reader.readuntil(b"\r\n\r\n")
    line, *lines = raw[:-4].split(b"\r\n")
    headers = [(name, value.strip(b" \t")) for name, _, value in (each.partition(b":") for each in lines)]
    return Message(line, headers, raw_head=raw)


async def chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    while (await reader.readuntil(b"\r\n")) != b"\r\n":
        pass
    return body


def check_framing(message: Message) -> None:
    """Fail unless the end of a message is told once, in one way."""
    lengths, codings = message.all("Content-Length"), message.all("Transfer-Encoding")
    assert len(lengths) + len(codings) <= 1, message.raw_head[:500]
    assert all(value.isdigit() and value.isascii() for value in lengths), message.raw_head[:500]
    assert all(value == b"chunked" for value in codings), message.raw_head[:500]


async def read_body(reader: asyncio.StreamReader, message: Message) -> None:
    """Read a request to its end, by the strictest reading there is."""
    check_framing(message)
    if length := message.first("Content-Length"):
        message.framed, message.body = "length", await reader.readexactly(int(length))
    elif message.first("Transfer-Encoding"):
        message.framed, message.body = "chunked", await chunks(reader)


async def answer_from(reader: asyncio.StreamReader, method: bytes) -> Message:
    """Read the answer to a request with that method; what comes before it is in `interim`."""
    interim = []
    while (message := await head(reader)).status < 200 and message.status != 101:
        interim.append(message.line)
    message.interim = interim
    if method == b"HEAD" or message.status in (101, 204, 304):
        return message
    if length := message.first("Content-Length"):
        message.framed, message.body = "length", await reader.readexactly(int(length))
    elif message.first("Transfer-Encoding"):
        message.framed, message.body = "chunked", await chunks(reader)
    else:
        message.framed, message.body = "close", await reader.read()
    return message


async def ask(port: int, raw: bytes) -> Exchange:
    """Send a request and the sentinel, and return what comes back."""
    async with asyncio.timeout(PATIENCE), connection(port) as (reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(raw)
            await writer.drain()
        try:
            answer = await answer_from(reader, raw.partition(b" ")[0])
        except (asyncio.IncompleteReadError, ConnectionError):
            return Exchange(None, False)
        try:
            writer.write(SENTINEL)
            after = await answer_from(reader, b"GET")
            return Exchange(answer, after.status in (200, 404))
        except (asyncio.IncompleteReadError, ConnectionError):
            return Exchange(answer, False)


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LIMIT)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Upstream:
    """An Alertmanager's place on loopback that keeps every request but the proxy's own questions.

    `respond` gets a request and returns the bytes of its answer; when they do not say where they end, or are none,
    the connection is closed behind them.
    """

    respond: Callable[[Message], bytes] = lambda _: EMPTY
    received: list[Message] = field(default_factory=list)
    broken: list[Message] = field(default_factory=list)
    """Requests whose bodies are not there yet, or broke off."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await head(reader)
                self.broken.append(request)
                await read_body(reader, request)
                self.broken.remove(request)
                if request.first("Host") == f"127.0.0.1:{self.port}".encode() and b" /api/v2/" in request.line:
                    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"  # a question of the proxy's own
                else:
                    self.received.append(request)
                    reply = EMPTY if b"/sentinel" in request.line else self.respond(request)
                writer.write(reply)
                await writer.drain()
                if b"content-length" not in reply.lower() and b"chunked" not in reply:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever asked is gone
        finally:
            writer.close()


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    async with serving(server.serve) as server.port:
        yield server
