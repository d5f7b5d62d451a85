"""The heads of requests to Alertmanager and of its answers, written byte for byte as they came.

aiohttp would write a request's Host first, names in its own case, a target without its fragment, and leave out bytes
that are no UTF-8. It has no public way to send a head as it is. What is set here in its place is set on top of what
aiohttp made ready: should a later version keep it elsewhere, its own head is sent, which means the same.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Mapping
from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from multidict import CIMultiDict

from proxy.errors import UpstreamError
from proxy.gateway.headers import as_bytes, end_to_end

CHUNK: Final = 64 << 10
"""Bytes that are written before others get their turn."""
ADDED: Final[web.RequestKey[Mapping[str, str]]] = web.RequestKey("ADDED", Mapping)
"""What is added to the answer to a request: headers that it does not have already."""
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Outgoing(Payload):
    """A request's body, with the head to send before it.

    `headers` say how the body's end is known: by `Content-Length`, by `Transfer-Encoding: chunked`, or, with neither,
    that there is none. `host` is the value of Host where they have none.
    """

    _autoclose = True  # nothing is held open
    _default_content_type = ""

    def __init__(
        self,
        method: str,
        target: str,
        host: str,
        headers: CIMultiDict[str],
        content: bytes | AsyncIterable[bytes] = b"",
    ) -> None:
        super().__init__(content)
        self._content = content
        self._chunked = "Transfer-Encoding" in headers
        self._size = len(content) if isinstance(content, bytes) else None
        line = f"{method} {target} HTTP/1.1\r\n" + ("" if "Host" in headers else f"Host: {host}\r\n")
        self._head = line.encode() + as_bytes(headers) + b"\r\n"

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the text for a log, which nobody writes."""
        return repr(self)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the head, and the body behind it."""
        _replace_head(writer, self._head)
        writer.chunked = self._chunked  # type: ignore[attr-defined] # our headers say how the end is known
        if isinstance(self._content, bytes):
            for at in range(0, len(self._content), CHUNK):
                await writer.write(self._content[at : at + CHUNK])
            return
        self._consumed = True  # aiohttp asks before it repeats a request: what is left of a body would look whole
        writer.send_headers()  # an answer may come before the body does
        async for piece in self._content:
            await writer.write(piece)


class Relayed(web.StreamResponse):
    """An answer with exactly the headers it was given; aiohttp would add its own Server, Date and Content-Type."""

    _send_headers_immediately = False  # not before they are replaced
    minor: int | None = None
    """Of the HTTP version in the status line; None: the request's."""

    async def _prepare_headers(self) -> None:  # no public hook outlives web.Application, and a router rewrites paths
        given = {name.lower() for name in self.headers}
        request = self._req
        if request is not None and ("Transfer-Encoding" in request.headers or "Upgrade" in request.headers):
            # aiohttp 3.14 takes a trailer of this request for a header of the next one, and loses what comes in one
            # piece with a request that asks for another protocol: the end of the next one would look like its begin.
            self.force_close()
        for name, value in request.get(ADDED, {}).items() if request is not None else ():
            self.headers.setdefault(name, value)
        await super()._prepare_headers()
        if request is not None and request.version == aiohttp.HttpVersion10 and self._until_closed(request.method):
            self.force_close()  # aiohttp would keep it open, and the client wait for ever
        for name in ("Server", "Date", "Content-Type"):
            if name.lower() not in given:
                self.headers.popall(name, None)
        if coding := self.headers.popall("Transfer-Encoding", None):
            self.headers["Transfer-Encoding"] = coding[0]  # behind Connection, as Go writes it

    def _until_closed(self, method: str) -> bool:
        """Whether nothing but the end of the connection tells where the answer ends."""
        return method != "HEAD" and self.status not in (204, 304) and "Content-Length" not in self.headers

    async def _write_headers(self) -> None:
        await super()._write_headers()
        request, writer = self._req, self._payload_writer
        if request is None or writer is None:  # aiohttp has just used both
            raise RuntimeError("an answer without its request")
        minor = request.version.minor if self.minor is None else self.minor
        line = f"HTTP/1.{minor} {self.status} {self.reason}\r\n".encode("utf-8", "surrogateescape")
        _replace_head(writer, line + as_bytes(self.headers) + b"\r\n")
        writer.send_headers()


def relayable(answer: aiohttp.ClientResponse) -> CIMultiDict[str]:
    """Return the headers to pass on of an answer of Alertmanager's.

    Raises UpstreamError for an answer that cannot be passed on.
    """
    if answer.status == 101:
        raise UpstreamError("Alertmanager switches to another protocol unasked")
    if any(_CONTROL.search(value) for _, value in answer.raw_headers):
        raise UpstreamError("Alertmanager's answer has a control character in a header")
    return end_to_end(answer.raw_headers)


def _replace_head(writer: AbstractStreamWriter, head: bytes) -> None:
    """Make `head` what goes before the first byte of a body, in the place of what aiohttp has serialised."""
    writer._headers_buf = head  # type: ignore[attr-defined] # see the docstring of this module
