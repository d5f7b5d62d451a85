"""Headers as they came, and which of them belong to one connection only and are not passed on.

aiohttp's mappings know headers by the names of its table (`ETag` where Go says `Etag`); here the bytes are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from multidict import CIMultiDict

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110, section 7.6.1."""
_MEANT_FOR_ALL: Final = frozenset({"authorization", "cookie", "expect", "host", "location", "set-cookie"})
"""Without these, and all of `Content-…`, a message is another one. A Connection header cannot name them."""


def as_sent(raw: Iterable[tuple[bytes, bytes]]) -> CIMultiDict[str]:
    """Return headers in their order and their own case; bytes that are no UTF-8 survive as lone surrogates."""
    return CIMultiDict(
        (name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")) for name, value in raw
    )


def as_bytes(headers: Mapping[str, str]) -> bytes:
    """Return the lines of headers, each with its end: what `as_sent` was made from."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("utf-8", "surrogateescape")


def end_to_end(raw: Iterable[tuple[bytes, bytes]], *, chunked: bool = False) -> CIMultiDict[str]:
    """Return the headers to pass on, in their order, without those that the Connection header names.

    With `chunked` the body stays chunked, and the header that says so stays in its place.
    """
    headers = as_sent(raw)
    named = {token.strip().lower() for value in headers.getall("Connection", ()) for token in value.split(",")}
    dropped = HOP_BY_HOP | {n for n in named if n not in _MEANT_FOR_ALL and not n.startswith("content-")}
    if chunked:
        dropped -= {"transfer-encoding"}
        headers["Transfer-Encoding"] = "chunked"  # `CHUNKED` is not read everywhere
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)
