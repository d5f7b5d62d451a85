"""What a listener bears of those who connect to it: how long each may take, and how many there may be.

aiohttp reads and answers requests; `Connection` watches it do so, through the calls that asyncio and aiohttp make
anyway, and ends what takes too long. A connection waits for headers, is idle in between, or has a request in flight:

    accepted ─[TLS]─┬─▶ waits for headers ──▶ in flight: body, answer ──▶ idle ─┐
                    └──────────────────────────── a further byte ◀──────────────┘

Only a request in flight has been promised anything. Whoever waits, or is idle, may be closed when the room is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

import structlog
from aiohttp import StreamReader, web

log = structlog.get_logger(__name__)

GONE_AFTER: Final = 60
"""Seconds after which a peer that the network has lost is given up: of silence when it is asked, of bytes that it does
not acknowledge."""
PROBES: Final = 3
"""How often it is asked within the second half of them."""
READ_AT_ONCE: Final = 64 << 10
"""Bytes of a body that wait to be read before its sender has to; aiohttp keeps twice that."""
LOG_EVERY: Final = 60.0
"""Seconds between two lines about connections that did not fit."""
_NEVER: Final = 10.0 * 365 * 24 * 3600
"""Seconds; aiohttp's own limit of idle connections, which cannot be switched off."""
_LOOKS: Final = 4
"""How often within `answer_timeout` is looked whether an answer is being read."""
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Handler = Callable[[Any], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a listener bears. Times are in seconds."""

    header_timeout: float
    """From accept, or the first byte of a further request, to the end of its headers."""
    body_timeout: float
    """From the end of the headers to the last byte of the body."""
    idle_timeout: float
    """From an answer to the first byte of the next request."""
    max_connections: int
    answer_timeout: float = 60.0
    """In which at least a byte of an answer that is there must be read."""


class Cut(StrEnum):
    """Why a connection was closed by us."""

    HEADERS = "header_timeout"
    BODY = "body_timeout"
    IDLE = "idle_timeout"
    UNREAD = "not_read"
    DISPLACED = "displaced"
    """It was idle for longest, and another one needed the room."""
    REFUSED = "refused"
    """There was no room, and nobody idle."""
    HANDSHAKE = "tls_handshake"
    """It failed, or took too long."""


class BodyTimeout(TimeoutError):
    """The body of a request has not come in in time. Who reads it gets this; uncaught it is answered with 408."""


class RequestFactory(Protocol):
    """How aiohttp makes a request of what it has read; called as soon as the headers are there."""

    def __call__(
        self, message: Any, payload: StreamReader, protocol: Any, writer: Any, task: Any, /
    ) -> web.BaseRequest: ...


class Guest(Protocol):
    """What has one of the places that a server has for connections."""

    @property
    def displaceable(self) -> bool:
        """Whether closing it costs nobody an answer."""
        ...

    def displace(self) -> None:
        """Close it, since another one needs the place."""
        ...


class BoundedServer(web.Server):
    """Serves requests over connections that keep to `limits`."""

    connection: type[Connection]
    """What is made for each of them."""

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        *,
        name: str,
        on_cut: Callable[[Cut], None],
        request_factory: RequestFactory | None = None,
        before: Callable[[BoundedServer], asyncio.Protocol] | None = None,
        **options: Any,
    ) -> None:
        """`name` is the listener's, for the log; `on_cut` hears of each connection that is closed for its limits.
        `before` makes what a new connection begins with, and asks for `connected` when that is done. `options` are
        those of aiohttp's RequestHandler."""
        super().__init__(self._answer, request_factory=request_factory)
        self._make = self.request_factory
        self.request_factory = self._begun
        self._handler = handler
        self._options = {"access_log": None, "read_bufsize": READ_AT_ONCE, **options, "keepalive_timeout": _NEVER}
        self._name = name
        self._on_cut = on_cut
        self.limits = limits
        self._before = before
        self._open: set[Guest] = set()
        self._waiting: dict[Guest, None] = {}
        """Connections without a request in flight, those that have waited for longest first."""
        self._log_at = self._said_why_at = -LOG_EVERY
        self._unsaid: dict[Cut, int] = {}

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override] # asyncio asks for any protocol
        """Return the protocol of a new connection."""
        return self.connected() if self._before is None else self._before(self)

    def connected(self, over: asyncio.Transport | None = None) -> Connection:
        """Return what speaks HTTP on a connection, `over` being what carries its TLS."""
        return self.connection(self, over, loop=asyncio.get_running_loop(), **self._options)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 # as aiohttp has it
        """End every connection; those that aiohttp knows of get as many seconds for their answers."""
        for one in [one for one in self._open if not isinstance(one, Connection)]:
            one.displace()
        await super().shutdown(timeout)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._open)

    def admit(self, connection: Guest) -> bool:
        """Return whether there is room for `connection`, which the one that has waited for longest makes if need be."""
        if self.open >= self.limits.max_connections:
            longest = next((one for one in self._waiting if one.displaceable), None)
            if longest is None:
                self._full(Cut.REFUSED)
                return False
            self._full(Cut.DISPLACED)
            self.gone(longest)
            longest.displace()
        self._open.add(connection)
        return True

    def waits(self, connection: Guest) -> None:
        """Put `connection` at the end of those without a request in flight."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def in_flight(self, connection: Guest) -> None:
        """Do not displace `connection`."""
        self._waiting.pop(connection, None)

    def gone(self, connection: Guest) -> None:
        """Forget `connection`."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def cut(self, why: Cut) -> None:
        """Tell that a connection was closed."""
        self._on_cut(why)

    def _begun(self, message: Any, payload: StreamReader, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        protocol.begun(payload)
        return self._make(message, payload, protocol, writer, task)

    async def _answer(self, request: Any) -> web.StreamResponse:
        try:
            return await self._handler(request)
        except BodyTimeout as exc:
            answer = web.Response(status=408, text=f"alertmanager-ai-proxy: {exc}\n")
            answer.force_close()
            return answer

    def fails_to_begin(self, why: str) -> None:
        """Tell that a connection never came as far as HTTP."""
        self.cut(Cut.HANDSHAKE)
        if time.monotonic() - self._said_why_at >= LOG_EVERY:
            self._said_why_at = time.monotonic()
            log.info("a client fails at TLS; of further ones is told after a minute", listener=self._name, error=why)

    def _full(self, why: Cut) -> None:
        self.cut(why)
        self._unsaid[why] = self._unsaid.get(why, 0) + 1
        if time.monotonic() - self._log_at >= LOG_EVERY:
            self._log_at = time.monotonic()
            log.warning(
                "web.max_connections are open: what is idle for longest makes room, or what comes is refused",
                listener=self._name,
                limit=self.limits.max_connections,
                **{cut.value: count for cut, count in self._unsaid.items()},
            )
            self._unsaid.clear()


class BoundedAppRunner(web.AppRunner):
    """Runs an application over connections that keep to their limits."""

    def __init__(
        self, app: web.Application, bounded: Callable[[Handler, RequestFactory], BoundedServer], **options: Any
    ):
        """`bounded` makes the server of a handler and a request factory."""
        super().__init__(app, **options)
        self._bounded = bounded

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return self._bounded(made.request_handler, made.request_factory)


class Connection(web.RequestHandler):
    """One connection, which ends when it takes too long."""

    __slots__ = (
        "_answering",
        "_deadline",
        "_early",
        "_looks",
        "_over",
        "_payload",
        "_read_on",
        "_refused",
        "_server",
        "_timer",
        "_unread",
        "_unsent",
        "_why",
        "_wire",
    )

    def __init__(self, server: BoundedServer, over: asyncio.Transport | None = None, **options: Any) -> None:
        """`over` is what carries the TLS, if that is spoken."""
        super().__init__(server, **options)
        self._server = server
        self._over = over
        self._wire: asyncio.Transport | None = None
        """As long as the socket is open; aiohttp forgets it as soon as it is to be closed."""
        self._refused = False
        self._answering = False
        self._payload: StreamReader | None = None
        """The body that has not come in to its end."""
        self._early = False
        """Whether more came while a request was being answered."""
        self._why: Cut | None = None
        """What happens at the deadline; None: nothing."""
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._unsent = self._looks = 0
        self._read_on = False

    @property
    def displaceable(self) -> bool:
        """Whether closing it costs nobody an answer: no request has come in whole, and the last answer has left."""
        # aiohttp has read a request and is about to begin with it: nothing public tells of this moment.
        return not self._messages and self._wire is not None and not self._unwritten()

    def displace(self) -> None:
        """Close it, since another one needs the place."""
        self.force_close()
        if self._over is not None:
            self._over.close()  # without the peer's farewell, which it may not send

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 # a stream's, as this is its protocol
        self._wire = transport
        if not self._server.admit(self):
            self._refused = True
            transport.write(_FULL)
            transport.close()
            return
        mind_the_peer(transport)
        super().connection_made(transport)
        self._wait(Cut.HEADERS)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._wire = self._over = None
        for timer in (self._timer, self._unread):
            if timer is not None:
                timer.cancel()
        self._server.gone(self)
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        # Some clients end a body with a line too many.
        if data.strip(b"\r\n"):
            if self._why is Cut.IDLE:
                self._wait(Cut.HEADERS)
            elif self._answering and self._payload is None:
                self._early = True
        super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._mind_the_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_on = True

    async def finish_response(self, *args: Any) -> tuple[web.StreamResponse, bool]:
        try:
            return await super().finish_response(*args)
        finally:
            self._answering = False
            if self._unwritten():
                self._mind_the_reader()
            if self._payload is None:
                self._wait(Cut.HEADERS if self._early else Cut.IDLE)

    def begun(self, payload: StreamReader) -> None:
        """The headers of a request are there, and `payload` is going to be its body."""
        self._server.in_flight(self)
        self._answering, self._early, self._why = True, False, None
        if not payload.is_eof():
            self._payload = payload
            self._until(Cut.BODY, self._server.limits.body_timeout)
            payload.on_eof(self._whole)

    def _whole(self) -> None:
        self._payload = self._why = None
        if not self._answering:
            self._wait(Cut.IDLE)

    def _wait(self, why: Cut) -> None:
        """Go on without a request in flight."""
        if self._wire is None or self._wire.is_closing():
            return
        self._server.waits(self)
        limits = self._server.limits
        self._until(why, limits.idle_timeout if why is Cut.IDLE else limits.header_timeout)

    def _until(self, why: Cut, seconds: float) -> None:
        self._why, self._deadline = why, self._loop.time() + seconds
        # A timer that comes too early looks again: one for many requests, rather than several for each.
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._why is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._due)
            return
        why, self._why = self._why, None
        self._server.cut(why)
        if why is Cut.BODY:
            assert self._payload is not None  # noqa: S101 # it goes with the reason
            within = self._server.limits.body_timeout
            self._payload.set_exception(BodyTimeout(f"the body has not come in within {within:g} s"))
        else:
            self.force_close()

    def _unwritten(self) -> int:
        """Return how many bytes of answers have not left the process."""
        # TLS has a buffer of its own above the one of the socket.
        return sum(one.get_write_buffer_size() for one in (self._wire, self._over) if one is not None)

    def _mind_the_reader(self) -> None:
        if self._unread is None:
            self._unsent = self._looks = 0
            self._look()

    def _look(self) -> None:
        """End the connection when its peer has read nothing for long, and look again later otherwise."""
        self._unread = None
        if self._wire is None or not (unsent := self._unwritten()):
            return
        unsent += in_the_kernel(self._wire)
        self._looks = 0 if self._read_on or unsent != self._unsent else self._looks + 1
        self._unsent, self._read_on = unsent, False
        if self._looks >= _LOOKS:
            self._server.cut(Cut.UNREAD)
            self._wire.abort()
            return
        self._unread = self._loop.call_later(self._server.limits.answer_timeout / _LOOKS, self._look)


BoundedServer.connection = Connection


def mind_the_peer(transport: asyncio.Transport) -> None:
    """Let the kernel find out when the peer has vanished, as far as the platform can."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    options = {
        "TCP_KEEPIDLE": GONE_AFTER // 2,
        "TCP_KEEPALIVE": GONE_AFTER // 2,  # the same, as macOS calls it
        "TCP_KEEPINTVL": GONE_AFTER // 2 // PROBES,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": GONE_AFTER * 1000,
    }
    with contextlib.suppress(OSError):  # it has gone already
        for name, value in options.items():
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def in_the_kernel(transport: asyncio.Transport) -> int:
    """Return how many bytes the kernel holds that the peer has not acknowledged; 0 where it does not say.

    Megabytes may leave it before it takes more of us, which is minutes on a thin line.
    """
    sock = transport.get_extra_info("socket")
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0])
    except (OSError, AttributeError):
        return 0
