"""TLS handshakes, which count among the connections of their listener, and end when they take too long."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from proxy.gateway.connections import BoundedServer
from proxy.gateway.doors import DoorState
from proxy.gateway.server_tls import has_name
from proxy.gateway.web_config import ServerTls


class Handshake(asyncio.Protocol):
    """A connection until TLS is spoken on it. Then a protocol of the server's goes on with it."""

    displaceable = True
    """Nothing has been promised to it."""

    def __init__(self, state: Callable[[], DoorState], server: BoundedServer) -> None:
        """`state` is asked as soon as there is a connection."""
        self._state = state
        self._server = server
        self._raw: asyncio.Transport
        self._task: asyncio.Task[None]
        self._early = b""
        """What came in one piece with the end of the handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 # a stream's, as this is its protocol
        self._raw = transport
        if not self._server.admit(self):
            transport.abort()  # there is nothing to say before TLS is spoken
            return
        transport.pause_reading()  # what comes is for TLS to read
        self._server.waits(self)
        self._task = asyncio.create_task(self._shake(transport), name="TLS handshake")

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.gone(self)

    def displace(self) -> None:
        """End it."""
        self._raw.abort()

    async def _shake(self, raw: asyncio.Transport) -> None:
        state = self._state()
        try:
            tls = await asyncio.get_running_loop().start_tls(
                raw,
                self,
                state.context,  # type: ignore[arg-type] # there is one, or this would not be
                server_side=True,
                ssl_handshake_timeout=self._server.limits.header_timeout,
                # Beside the peer's farewell it bounds how long the end of an answer may take to be read.
                ssl_shutdown_timeout=self._server.limits.answer_timeout,
            )
        except OSError as exc:
            self._fails(raw, _what(exc))
            return
        finally:
            self._server.gone(self)
        if tls is None:  # it is gone, or made room
            return
        if state.config.tls is not None and not _is_welcome(tls.get_extra_info("peercert"), state.config.tls):
            self._fails(raw, "the client's certificate has none of client_allowed_sans")
            return
        connection = self._server.connected(over=raw)
        tls.set_protocol(connection)
        connection.connection_made(tls)
        if self._early:
            connection.data_received(self._early)

    def _fails(self, raw: asyncio.Transport, why: str) -> None:
        self._server.fails_to_begin(why)
        raw.abort()


def _is_welcome(shown: Mapping[str, Any] | None, wanted: ServerTls) -> bool:
    """Return whether a client may come in that has shown that certificate, or none."""
    if wanted.client_names is None or not (shown or wanted.clients is ssl.CERT_REQUIRED):
        return True
    return has_name(shown or {}, wanted.client_names)


def _what(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or exc.strerror or type(exc).__name__).replace("_", " ").lower()
    return str(exc) or type(exc).__name__
