"""What comes in behind a request that is being handled, or behind its answer."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from fakes import settings
from fidelity import CHUNKED, request
from fidelity_wire import answer_from, connection
from serving import serving
from several import until

from proxy.app import build
from proxy.gateway.connections import Limits
from proxy.gateway.data_connections import DataServer
from proxy.gateway.listener import DataListener

GET = request("GET", "/x")
HALF = request("POST", "/y", CHUNKED, body=b"2\r\n[]\r\n")
SOON = 8
"""Seconds, less than those for which aiohttp reads on behind an answer."""


@asynccontextmanager
async def answering(when: asyncio.Event, answer: bytes):
    """Run a proxy before a server that answers each request with `answer`, as soon as `when` is set."""

    async def serve(reader, writer):
        try:
            while (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /api"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")  # a question of the proxy's own
            await when.wait()
            writer.write(answer)
            await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever asked is gone
        finally:
            writer.close()

    async with (
        serving(serve) as port,
        build(settings(f"http://127.0.0.1:{port}")) as running,
        connection(running.data_port) as streams,
    ):
        yield streams


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


async def test_what_is_malformed_behind_a_request_in_work_does_not_hang():
    when = asyncio.Event()
    async with answering(when, OK) as (reader, writer):
        writer.write(GET + HALF)
        await asyncio.sleep(0.1)  # so that both are read, and the first is on its way
        writer.write(b"zz\r\n")
        await asyncio.sleep(0.1)
        when.set()
        async with asyncio.timeout(SOON):
            assert [(await answer_from(reader, b"GET")).status, (await answer_from(reader, b"POST")).status] == [
                200,
                400,
            ]
            assert await reader.read() == b""


@pytest.mark.parametrize("begun", [HALF, request("POST", "/y", CHUNKED)], ids=["a chunk has come", "none has come"])
@pytest.mark.parametrize("turns", range(4))
async def test_a_malformed_body_never_looks_whole_however_soon_it_turns_out(turns, begun):
    """`turns` of the loop lie between a request and the bytes that are no chunk: it is waiting, taken up, handled."""
    read: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handle(request):
        try:
            read.set_result(await request.read())
        except Exception as exc:
            read.set_exception(exc)
        return web.Response()

    server = DataServer(handle, Limits(20, 20, 20, 10), name="data", on_cut=lambda why: None)
    made = []

    def connect():
        made.append(server())
        return made[-1]

    listening = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    async with listening, connection(listening.sockets[0].getsockname()[1]):
        await until(lambda: server.open)
        made[0].data_received(begun)
        for _ in range(turns):
            await asyncio.sleep(0)
        made[0].data_received(b"zz\r\n")
        with pytest.raises(web.RequestPayloadError):
            await asyncio.wait_for(read, SOON)
        await server.shutdown(0.2)


async def test_a_side_that_closes_in_the_middle_of_the_next_request_is_let_go():
    when = asyncio.Event()
    async with answering(when, OK) as (reader, writer):
        writer.write(GET + HALF)
        await asyncio.sleep(0.1)  # as above
        writer.write_eof()
        async with asyncio.timeout(SOON):
            assert await reader.read() == b""
        when.set()


async def test_what_is_malformed_behind_an_early_answer_is_ignored(caplog):
    when = asyncio.Event()
    when.set()
    with caplog.at_level(logging.ERROR):
        async with answering(when, OK) as (reader, writer):
            writer.write(HALF)
            async with asyncio.timeout(SOON):
                assert (await answer_from(reader, b"POST")).status == 200
                writer.write(b"zz\r\n")
                assert await reader.read() == b""
    assert caplog.records == []


async def test_a_bug_in_the_middle_of_an_answer_cuts_it(monkeypatch):
    async def handle(self, request):
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"half")
        raise ZeroDivisionError

    monkeypatch.setattr(DataListener, "handle", handle)
    async with answering(asyncio.Event(), OK) as (reader, writer):
        writer.write(GET)
        raw = await asyncio.wait_for(reader.read(), SOON)
    assert raw.endswith(b"half")
    assert raw.count(b"HTTP/1.1") == 1
