import asyncio
import contextlib
import socket

import pytest
from serving import serving


@pytest.mark.parametrize("turns", range(8))
async def test_no_connection_outlives_its_server(turns):
    """However little the loop has made of it since it came."""

    async def serve(*_):
        await asyncio.Event().wait()

    with socket.socket() as client:
        async with serving(serve) as port:
            client.connect(("127.0.0.1", port))
            for _ in range(turns):
                await asyncio.sleep(0)
        client.settimeout(0)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
