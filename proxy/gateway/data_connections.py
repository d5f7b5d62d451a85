"""Connections of the data listener, where aiohttp's own ways would show or would cost an answer."""

from __future__ import annotations

import structlog
from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage

from proxy.gateway.connections import BoundedServer, Connection
from proxy.gateway.refusals import refused, unreadable, what_is_wrong

log = structlog.get_logger(__name__)


class DataConnection(Connection):
    """A client's connection.

    Beside aiohttp's behaviour: a client that closes its side behind its last request gets its answers; a body that
    turns out to be malformed ends with an error instead of never; refusals are in our words.
    """

    _coming: StreamReader | None = None
    """The body of the request that was handed out last."""
    _said_all = False
    """Whether the client has closed its side."""

    def begun(self, payload: StreamReader) -> None:
        """The headers of a request are there, and `payload` is going to be its body."""
        self._coming = payload
        super().begun(payload)

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio asks whether to keep our side open
        """Keep our side open while answers are due to requests that have come in whole."""
        idle = self._waiter is not None and not self._waiter.done()
        latest = self._messages[-1][1] if self._messages else self._coming
        if idle or latest is None or not latest.is_eof() or self.ssl_context is not None:  # TLS closes both at once
            return None
        self._said_all = True
        return True

    def data_received(self, data: bytes) -> None:
        """Take bytes in. When they cannot be read, the body that they belong to is over, too."""
        super().data_received(data)
        if self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            waits = len(self._messages) > 1
            broken = self._messages[-2][1] if waits else self._coming
            if broken is not None and not broken.is_eof():
                # Else its answer is out, and what is left of it ignored. aiohttp's `_current_request` would not do: it
                # is None until the handler has begun, which is a turn of the loop after the request was taken up.
                if waits or self._answering:
                    broken.set_exception(web.RequestPayloadError("its body cannot be read"))
                broken.feed_eof()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; close the connection behind the last one that is due."""
        done = await super().finish_response(request, resp, start_time)
        if self._said_all and not self._messages:
            self.close()
        return done

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to bytes that cannot be read (400), or to a request that a bug of ours met (500)."""
        if status == 400:
            log.info("a client sends what is no request", client=request.remote, error=what_is_wrong(exc))
        else:
            log.error("a bug: a request fails", method=request.method, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer has been sent")
        return unreadable(exc) if status == 400 else refused(500, "a bug of the proxy's; its log says more")


class DataServer(BoundedServer):
    """Makes such connections."""

    connection = DataConnection
