"""The ends of connections: listening ones and those to Alertmanager."""

from __future__ import annotations

import errno
import socket
from contextlib import AsyncExitStack
from typing import Final

import aiohttp
from aiohttp import web

from proxy.config import Address

IDLE: Final = 3600.0
"""Seconds that a kept-alive connection to Alertmanager may be idle."""
HEADER_LIMIT: Final = 1 << 20
"""Bytes of one header or of the request line: Go's limit for all of them together."""


def session(*, keep_alive: bool = True) -> aiohttp.ClientSession:
    connector = (
        aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE)
        if keep_alive
        else aiohttp.TCPConnector(limit=0, force_close=True)
    )
    return aiohttp.ClientSession(
        connector=connector,
        # Nothing that the sender did not say, and nothing remembered from one request to the next.
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_line_size=HEADER_LIMIT,
        max_field_size=HEADER_LIMIT,
    )


async def listen(stack: AsyncExitStack, runner: web.BaseRunner, address: Address, name: str) -> int:
    """Open a listener and return its port. Raises OSError that names the setting."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        site: web.BaseSite = (
            web.TCPSite(runner, address.host, address.port)
            if address.host
            else web.SockSite(runner, _on_all_interfaces(address.port))
        )
        await site.start()
    except OSError as exc:
        setting = "web.listen_address" if name == "data" else "web.admin_listen_address"
        raise OSError(exc.errno, f"{setting}: cannot listen on {address}: {exc.strerror}") from exc
    return int(runner.addresses[0][1])


def _on_all_interfaces(port: int) -> socket.socket:
    """Return a socket for both families: with one socket for each, port 0 would be two ports."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as exc:
            if exc.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
    return socket.create_server(("", port))
