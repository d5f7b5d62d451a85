"""A fault injector on loopback: it stands before a server, passes HTTP on, and breaks it where it is told to.

async with injector(am.url) as between:
    ...  # a proxy before `between.url`
    between.break_next(Fault.RESET_AFTER_REQUEST)
    ...  # the next POST of alerts is read whole by Alertmanager, and its answer never arrives
    assert between.posts[-1].taken

Faults strike POSTs of alerts only; what else passes is passed on. The door, open or not, is the same for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from ports import free_port
from serving import stop_listening

ALERTS = "/api/v2/alerts"
NUMBER = "x-post"
"""A header that tells one POST of a sender from the next; each attempt at it carries the same."""
PIECES = 10
HEAD_LIMIT = 1 << 20


class Fault(StrEnum):
    """What befalls one POST of alerts."""

    DELAY = "the request waits before it is passed on"
    RESET_BEFORE_REQUEST = "a reset, nothing was read"
    RESET_AFTER_REQUEST = "a reset, when the request was passed on and answered"
    RESET_IN_HEAD = "a reset in the midst of the answer's head"
    RESET_AFTER_HEAD = "a reset between the answer's head and its body"
    RESET_WHEN_ANSWERED = "a reset after the whole answer: the kept connection is dead"
    CUT = "a reset when a share of the request has been passed on"
    HALF_OPEN = "nothing is read nor written any more, and no end is told"
    TRICKLE = "request and answer go in small pieces, with pauses"


@dataclass(frozen=True, slots=True)
class Strike:
    fault: Fault
    amount: float = 0.0
    """Seconds, of a delay and a trickle; the share of the request that is passed on, of a cut."""


@dataclass(slots=True)
class Post:
    """One attempt at a POST of alerts that reached the injector."""

    number: str
    body: bytes = b""
    whole: bool = False
    """Whether all of it was passed on."""
    status: int = 0
    """Of the server's answer; 0 when none came."""
    seconds: float = 0.0
    """From its head to the server's answer."""

    @property
    def taken(self) -> bool:
        """Whether the server read it whole and answered 2xx."""
        return self.whole and 200 <= self.status < 300


class _Broken(Exception):
    """This connection is over, with a reset."""


@dataclass
class Injector:
    """Passes on what comes to `port` to `upstream`, and keeps a record of each POST of alerts."""

    upstream: tuple[str, int]
    port: int = field(default_factory=free_port)
    strikes: Callable[[int], Strike | None] = lambda _: None
    """Asked at each POST of alerts, with how many its connection has brought before."""
    posts: list[Post] = field(default_factory=list)
    connections: int = 0
    on_post: Callable[[Post], None] = lambda _: None
    """Told of an attempt when it is over."""
    _server: asyncio.Server | None = None
    _open: dict[asyncio.StreamWriter, asyncio.Task[None]] = field(default_factory=dict)
    _wall: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def break_next(self, fault: Fault, amount: float = 0.0, times: int = 1) -> None:
        """Let `fault` befall the next POSTs of alerts, as many as `times`."""
        left = iter([Strike(fault, amount)] * times)
        self.strikes = lambda _: next(left, None)

    def taken(self, number: str) -> list[Post]:
        """Return the attempts at POST `number` that the server read whole and answered with 2xx."""
        return [post for post in self.posts if post.number == number and post.taken]

    async def open(self) -> None:
        """Let everybody in."""
        self._tear_down()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=HEAD_LIMIT)

    async def refuse(self) -> None:
        """Nobody listens any more, and what was connected is reset."""
        self._tear_down()
        if self._server is not None:
            server, self._server = self._server, None
            await stop_listening(server)
        for writer in list(self._open):
            _reset(writer)
        await asyncio.sleep(0)

    async def swallow(self) -> None:
        """Let attempts to connect go unanswered, as behind a firewall that drops; what was connected is reset."""
        await self.refuse()
        wall = socket.socket()
        wall.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wall.bind(("127.0.0.1", self.port))
        wall.listen(0)
        self._wall.append(wall)
        # The kernel drops what comes when the queue of those who wait to be accepted is full.
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self._wall.append(filler)
        await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self.refuse()
        tasks = list(self._open.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _tear_down(self) -> None:
        for one in self._wall:
            one.close()
        self._wall.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[writer] = task
        self.connections += 1
        behind: asyncio.StreamWriter | None = None
        try:
            answers, behind = await asyncio.open_connection(*self.upstream, limit=HEAD_LIMIT)
            posts = 0
            while (head := await _request(reader, answers)) is not None:
                posts += await self._exchange(head, posts, (reader, writer), (answers, behind))
            writer.close()
        except (_Broken, OSError, asyncio.IncompleteReadError):
            _reset(writer)
        except asyncio.CancelledError:
            _reset(writer)  # the end of the test
        finally:
            if behind is not None:
                behind.transport.abort()
            del self._open[writer]

    async def _exchange(
        self,
        head: bytes,
        posts: int,
        front: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        back: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> int:
        """Pass on one request and its answer; return 1 for a POST of alerts, 0 for another request."""
        (requests, writer), (answers, behind) = front, back
        method, path = head.split(b" ", 2)[:2]
        if method != b"POST" or not path.partition(b"?")[0].rstrip(b"/").endswith(ALERTS.encode()):
            behind.write(head + await _body(requests, head))
            await behind.drain()
            answer = await answers.readuntil(b"\r\n\r\n")
            has_none = method == b"HEAD" or answer.split(b" ", 2)[1] in {b"204", b"304"}
            writer.write(answer + (b"" if has_none else await _body(answers, answer)))
            await writer.drain()
            return 0
        strike = self.strikes(posts)
        post = Post(_header(head, NUMBER), seconds=-time.monotonic())
        self.posts.append(post)
        try:
            await self._post(head, post, strike, front, back)
        finally:
            if post.seconds < 0:
                post.seconds += time.monotonic()
            self.on_post(post)
        return 1

    async def _post(
        self,
        head: bytes,
        post: Post,
        strike: Strike | None,
        front: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        back: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        (requests, writer), (answers, behind) = front, back
        fault, amount = (strike.fault, strike.amount) if strike else (None, 0.0)
        if fault is Fault.RESET_BEFORE_REQUEST:
            raise _Broken
        if fault is Fault.HALF_OPEN:
            writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport, which reads too
            await asyncio.Event().wait()
        pauses = amount / PIECES / 2 if fault is Fault.TRICKLE else 0.0
        post.body = await _body(requests, head)
        if fault is Fault.DELAY:
            await asyncio.sleep(amount)
        if fault is Fault.CUT:
            whole = head + post.body
            behind.write(whole[: min(int(len(whole) * amount), len(whole) - 1)])
            await behind.drain()
            raise _Broken
        await _write(behind, head + post.body, pauses)
        post.whole = True
        answer = await answers.readuntil(b"\r\n\r\n")
        text = await _body(answers, answer)
        post.status = int(answer.split(b" ", 2)[1])
        post.seconds += time.monotonic()
        if fault is Fault.RESET_AFTER_REQUEST:
            raise _Broken
        if fault is Fault.RESET_IN_HEAD:
            answer, text = answer[: len(answer) // 2], b""
        if fault is Fault.RESET_AFTER_HEAD:
            text = b""
        await _write(writer, answer + text, pauses)
        if fault in {Fault.RESET_IN_HEAD, Fault.RESET_AFTER_HEAD, Fault.RESET_WHEN_ANSWERED}:
            await asyncio.sleep(0.05)  # a reset overtakes what the other side has not read yet
            raise _Broken


@asynccontextmanager
async def injector(url: str) -> AsyncIterator[Injector]:
    """Stand before the server at `url` until the block ends."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    one = Injector((parts.hostname, parts.port))
    await one.open()
    try:
        yield one
    finally:
        await one.close()


async def _request(reader: asyncio.StreamReader, answers: asyncio.StreamReader) -> bytes | None:
    """Return the head of the next request; None when either side has hung up."""
    head = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
    end = asyncio.ensure_future(answers.read(1))
    try:
        await asyncio.wait({head, end}, return_when=asyncio.FIRST_COMPLETED)
        # A request that comes in the moment in which the server hangs up is lost, as it is without an injector.
        if end.done() and not head.done():
            return None
        return await head
    except asyncio.IncompleteReadError:
        return None
    finally:
        for one in (head, end):
            one.cancel()
        await asyncio.gather(head, end, return_exceptions=True)


def _header(head: bytes, name: str) -> str:
    for line in head.decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip()
    return ""


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """Return the body that follows `head`, as it is on the wire."""
    if "chunked" in _header(head, "transfer-encoding").lower():
        chunks = []
        while True:
            size = await reader.readuntil(b"\r\n")
            chunks.append(size + await reader.readexactly(int(size.split(b";")[0], 16) + 2))
            if int(size.split(b";")[0], 16) == 0:
                return b"".join(chunks)
    return await reader.readexactly(int(_header(head, "content-length") or 0))


async def _write(writer: asyncio.StreamWriter, data: bytes, pause: float) -> None:
    step = -(-len(data) // PIECES) if pause else len(data)
    for at in range(0, len(data), step):
        writer.write(data[at : at + step])
        await writer.drain()
        await asyncio.sleep(pause)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection by a reset, not by an end."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
