"""What the data listener answers by itself, because nothing can be passed on: in plain text, and named as ours."""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, BadHttpMethod, HttpProcessingError, LineTooLong

from proxy.gateway.heads import Relayed

_VERSIONS: Final = (aiohttp.HttpVersion10, aiohttp.HttpVersion11)


class Refusal(Relayed):
    """An answer of the proxy's own."""

    def __init__(self, status: int, why: str) -> None:
        self._text = f"alertmanager-ai-proxy: {why}\n".encode()
        super().__init__(
            status=status,
            headers={
                "Content-Type": "text/plain; charset=utf-8",
                "X-Content-Type-Options": "nosniff",
                "Content-Length": str(len(self._text)),
            },
        )

    async def write_eof(self, data: bytes = b"") -> None:
        """End the answer with its text, which nobody has to pass."""
        await super().write_eof(b"" if self._must_be_empty_body else data or self._text)


def refused(status: int, why: str) -> Refusal:
    """Return a refusal behind which the connection is closed: where its request ends is not known, or not believed."""
    refusal = Refusal(status, why)
    refusal.minor = 1  # whatever the request says
    refusal.headers["Connection"] = "close"
    refusal.force_close()
    return refusal


def unacceptable(request: web.BaseRequest) -> Refusal | None:
    """Return the refusal of a request that the parser takes, and that we do not know how to pass on unambiguously."""
    if request.version not in _VERSIONS:
        return refused(505, "only HTTP/1.0 and HTTP/1.1 are understood")
    if request.method == "CONNECT":
        return refused(405, "no tunnels")
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and request.version == aiohttp.HttpVersion10:
        return refused(400, "Transfer-Encoding does not exist in HTTP/1.0")
    if coding is not None and coding.lower() != "chunked":
        return refused(501, "the only transfer coding that is understood is chunked")
    return None


def unreadable(exc: BaseException | None) -> Refusal:
    """Return the refusal of bytes that are no request."""
    if isinstance(exc, LineTooLong):
        return refused(431, "a header, or the request line, is too long")
    return refused(400, f"this is no HTTP request: {what_is_wrong(exc)}")


def what_is_wrong(exc: BaseException | None) -> str:
    """Return what the parser found, without the bytes in which it did: they may hold somebody's password."""
    text = exc.message if isinstance(exc, HttpProcessingError) else ""
    found, quoted, _ = text.partition(":\n\n")
    if quoted or type(exc) in (BadHttpMessage, BadHttpMethod):  # those are without any
        return " ".join(found.split()).rstrip(".")
    return type(exc).__name__
