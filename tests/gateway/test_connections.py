"""What a listener bears: slow, silent and vanished clients, and too many of them, beside good ones."""

import asyncio
import contextlib
import socket
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from fakes import body, exchange, fake_alertmanager, post, posted, settings, status_of
from structlog.testing import capture_logs

from proxy.app import build
from proxy.gateway import connections
from proxy.gateway.connections import BoundedServer, Cut, Limits

GET = b"GET /-/healthy HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SLOW_BODY = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
LISTENERS = pytest.mark.parametrize("name", ["data", "admin"])


class Proxy:
    def __init__(self, running, name):
        self.port = running.data_port if name == "data" else running.admin_port
        self._admin = running.admin_port
        self._name = name
        self.slow_body = SLOW_BODY % (b"/api/v2/alerts" if name == "data" else b"/enrichment/mode")

    async def cut(self, reason):
        return await self._metric(f'aiproxy_connections_cut_total{{listener="{self._name}",reason="{reason}"}} ')

    async def posts(self, code):
        return await self._metric(f'aiproxy_posts_total{{code="{code}"}} ')

    async def _metric(self, sample):
        async with ClientSession() as client, client.get(f"http://127.0.0.1:{self._admin}/metrics") as answered:
            lines = (await answered.text()).splitlines()
        return sum(float(line.removeprefix(sample)) for line in lines if line.startswith(sample))

    async def connect(self, request=b""):
        client = await connected(self.port)
        client.writer.write(request)
        return client

    async def good(self):
        raw = await exchange(self.port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert status_of(raw) == 200


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def ask(self):
        self.writer.write(GET)
        return await self.answered()

    async def answered(self):
        """Return the status of the next answer, whose body is read as well."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await self.reader.readexactly(int(length or 0))
        return status_of(head)

    async def drip(self, content, every=0.05):
        """Send byte after byte until the other side closes; return what it said."""
        ended = asyncio.create_task(self.end())
        for n in range(len(content)):
            if ended.done():
                break
            self.writer.write(content[n : n + 1])
            await asyncio.sleep(every)
        return await ended

    async def end(self, within=20):
        """Return what comes until the connection is closed, or reset because we were still sending."""
        raw = b""
        async with asyncio.timeout(within):
            with contextlib.suppress(ConnectionError):
                while more := await self.reader.read(1 << 16):
                    raw += more
        return raw


_writers = []


async def connected(port):
    """Return a client, which hangs up after the test."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _writers.append(writer)
    return Client(reader, writer)


@pytest.fixture(autouse=True)
async def hang_up():
    yield
    while _writers:
        writer = _writers.pop()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def proxy(alertmanager, name, **flags):
    async with build(settings(alertmanager.url, **flags)) as running:
        yield Proxy(running, name)


@asynccontextmanager
async def serving(handler, **limits):
    """A server of a test's own; yield it, its port, and what was cut."""
    cut = []
    chosen = {"header_timeout": 20, "body_timeout": 20, "idle_timeout": 20, "max_connections": 10} | limits
    server = BoundedServer(handler, Limits(**chosen), name="data", on_cut=cut.append)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield server, listening.sockets[0].getsockname()[1], cut
    finally:
        listening.close()
        server.pre_shutdown()
        await server.shutdown(0.2)


async def healthy(_):
    return web.Response(text="OK")


@LISTENERS
async def test_headers_that_drip_in_are_cut_off_and_others_are_not(alertmanager, name):
    async with proxy(alertmanager, name, web__header_timeout="400ms") as listener:
        slow = await listener.connect()
        dripping = asyncio.create_task(slow.drip(b"GET / HTTP/1.1\r\nX: " + b"x" * 400))
        begun = time.monotonic()
        while not dripping.done():
            await listener.good()
            await asyncio.sleep(0.05)
        assert await dripping == b""
        assert time.monotonic() - begun < 15, "long before its end"
        assert await listener.cut("header_timeout") == 1


async def test_who_connects_and_says_nothing_is_cut_off(alertmanager):
    async with proxy(alertmanager, "data", web__header_timeout="300ms") as listener:
        silent = await listener.connect()
        assert await silent.end() == b""


async def test_the_headers_of_a_further_request_have_as_long_as_those_of_the_first(alertmanager):
    async with proxy(alertmanager, "data", web__header_timeout="300ms") as listener:
        client = await listener.connect()
        assert await client.ask() == 200
        await asyncio.sleep(0.6)
        assert await client.ask() == 200, "idle is not slow"
        client.writer.write(b"GET / HT")
        assert await client.end() == b""
        assert await listener.cut("header_timeout") == 1


async def test_headers_that_begin_while_the_last_request_is_answered_are_not_waited_for_any_longer():
    release = asyncio.Event()

    async def slow(_):
        await release.wait()
        return web.Response(text="OK")

    async with serving(slow, header_timeout=0.3) as (_, port, cut):
        client = await connected(port)
        client.writer.write(GET)
        await asyncio.sleep(0.1)
        client.writer.write(b"GET / HT")
        await asyncio.sleep(0.5)
        assert cut == []
        release.set()
        assert (await client.end()).endswith(b"OK")
        assert cut == [Cut.HEADERS]


async def test_a_line_too_many_behind_a_body_is_no_request(alertmanager):
    async with proxy(alertmanager, "data", web__header_timeout="300ms") as listener:
        client = await listener.connect(post(body(posted()), close=False))
        assert await client.answered() == 200
        client.writer.write(b"\r\n")
        await asyncio.sleep(0.6)
        assert await client.ask() == 200


@LISTENERS
async def test_a_body_that_drips_in_is_answered_with_408_and_others_are_not(alertmanager, name):
    async with proxy(alertmanager, name, web__body_timeout="400ms") as listener:
        slow = await listener.connect(listener.slow_body)
        dripping = asyncio.create_task(slow.drip(b"x" * 400))
        while not dripping.done():
            await listener.good()
            await asyncio.sleep(0.05)
        raw = await dripping
        assert status_of(raw) == 408
        assert b"the body has not come in within 0.4 s" in raw
        assert await listener.posts("408") == (1 if name == "data" else 0)
        assert await listener.cut("body_timeout") == 1
    assert alertmanager.posts == []


async def test_a_post_whose_body_cannot_be_read_is_counted_as_what_it_is_answered_with(alertmanager):
    head = SLOW_BODY.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked") % b"/api/v2/alerts"
    async with proxy(alertmanager, "data") as listener:
        client = await listener.connect(head + b"2\r\n[]\r\n")
        await asyncio.sleep(0.1)  # so that it is being read
        client.writer.write(b"zz\r\n")
        assert await client.answered() == 400
        assert (await listener.posts("400"), await listener.posts("500")) == (1, 0)
    assert alertmanager.posts == []


async def test_a_body_that_is_streamed_has_no_longer(alertmanager):
    async with proxy(alertmanager, "data", web__body_timeout="400ms") as listener:
        slow = await listener.connect(SLOW_BODY % b"/api/v2/silences")
        assert status_of(await slow.drip(b"x" * 400)) == 408
    assert alertmanager.posts == []


async def test_a_body_that_has_come_in_is_waited_for_as_long_as_alertmanager_may_take(alertmanager):
    arrived = asyncio.Event()

    def late(_):
        arrived.set()

    alertmanager.respond = late
    async with proxy(
        alertmanager,
        "data",
        web__header_timeout="200ms",
        web__body_timeout="200ms",
        web__idle_timeout="200ms",
        alertmanager__timeout="1s",
        enrichment__budget="100ms",
    ) as listener:
        request = post(body(posted()), close=False)
        client = await listener.connect(request[:-1])
        await asyncio.sleep(0.05)
        client.writer.write(request[-1:])
        await asyncio.wait_for(arrived.wait(), 5)
        assert await client.answered() == 504
        assert await listener.cut("body_timeout") == 0


async def test_idle_connections_are_closed_in_the_end_and_those_in_use_are_not(alertmanager):
    async with proxy(alertmanager, "data", web__idle_timeout="1s") as listener:
        client = await listener.connect()
        for _ in range(3):
            assert await client.ask() == 200
            await asyncio.sleep(0.4)
        assert await client.end() == b""
        assert await listener.cut("idle_timeout") == 1


def test_the_shipped_limits_outlive_the_gaps_between_posts():
    shipped = settings("http://127.0.0.1:9093").web
    assert shipped.idle_timeout.total_seconds() > 300


@LISTENERS
async def test_at_the_cap_what_is_idle_for_longest_makes_room(alertmanager, name):
    async with proxy(alertmanager, name, web__max_connections="8") as listener:
        idle = [await listener.connect() for _ in range(8)]
        for client in idle:
            assert await client.ask() == 200
        assert await idle[0].ask() == 200
        idle[1].writer.write(GET[:9])
        await asyncio.sleep(0.05)
        with capture_logs() as logs:
            for _ in range(2):
                newest = await listener.connect()
                assert await newest.ask() == 200
        assert await idle[2].end() == b""
        assert await idle[3].end() == b""
        full = [line for line in logs if "web.max_connections" in line["event"]]
        assert [(line["listener"], line["limit"], line["displaced"]) for line in full] == [(name, 8, 1)]
        for client in (idle[0], *idle[4:]):
            assert await client.ask() == 200
        idle[1].writer.write(GET[9:])
        assert await idle[1].answered() == 200


async def test_at_the_cap_who_never_finished_a_request_makes_room_too(alertmanager):
    async with proxy(alertmanager, "data", web__max_connections="8") as listener:
        silent = [await listener.connect() for _ in range(4)]
        for _ in range(4):
            await listener.connect(b"GET / HT")
        await asyncio.sleep(0.1)
        for _ in range(8):
            await listener.good()
        assert [await one.end() for one in (silent[0],)] == [b""]


@LISTENERS
async def test_at_the_cap_requests_in_flight_stay_and_the_new_one_is_refused(alertmanager, name):
    async with build(settings(alertmanager.url, web__max_connections="8")) as running:
        listener = Proxy(running, name)
        busy = [await listener.connect(listener.slow_body + b"[") for _ in range(8)]
        await asyncio.sleep(0.2)
        refused = await listener.connect()
        assert (
            await refused.end() == b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        for client in busy:
            client.writer.write(b" " * 998 + b"]")
            assert await client.answered() in ({200} if name == "data" else {400})
        assert await listener.cut("refused") >= 1
        await listener.good()


async def test_a_request_that_has_just_come_in_is_in_flight():
    async with serving(healthy, max_connections=1) as (server, port, cut):
        await connected(port)
        while not server.connections:
            await asyncio.sleep(0.01)
        [first] = server.connections
        first.data_received(GET)
        assert not server.admit(server()), "aiohttp has not begun with it, and it is no less there"
        assert cut == [Cut.REFUSED]


async def test_who_still_has_an_answer_to_read_is_not_idle():
    async with serving(healthy, max_connections=1) as (server, port, cut):
        client = await connected(port)
        assert await client.ask() == 200
        [first] = server.connections
        first.transport.write(bytes(32 << 20))
        assert not server.admit(server())
        assert cut == [Cut.REFUSED]
        first.transport.abort()


async def test_two_that_come_at_once_displace_two():
    async with serving(healthy, max_connections=2) as (server, port, cut):
        for _ in range(2):
            assert await (await connected(port)).ask() == 200
        newest = [server(), server()]
        assert [server.admit(one) for one in newest] == [True, True]
        assert (server.open, cut) == (2, [Cut.DISPLACED] * 2)
        assert not server.admit(server()), "these have only just come"
        for one in newest:
            server.gone(one)


async def test_an_answer_that_is_not_read_is_given_up():
    ended = asyncio.Event()

    async def endless(request):
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(bytes(1 << 20))
        ended.set()
        return answer

    async with serving(endless, answer_timeout=0.2) as (server, port, cut):
        (await connected(port)).writer.write(GET)
        await asyncio.wait_for(ended.wait(), 20)
        assert cut == [Cut.UNREAD]
        assert server.open == 0


async def test_what_is_left_of_an_answer_when_it_is_all_written_is_given_up_too():
    async def at_once(request):
        request.transport.set_write_buffer_limits(high=1 << 30)
        return web.Response(body=bytes(32 << 20))

    async with serving(at_once, answer_timeout=0.2) as (_, port, cut):
        (await connected(port)).writer.write(GET)
        async with asyncio.timeout(20):
            while not cut:
                await asyncio.sleep(0.02)
        assert cut == [Cut.UNREAD]


async def test_who_is_refused_leaves_nothing_behind():
    async with serving(healthy, max_connections=1) as (server, port, cut):
        busy = await connected(port)
        busy.writer.write(SLOW_BODY % b"/")
        assert await busy.answered() == 200
        assert status_of(await (await connected(port)).end()) == 503
        assert (cut, server.open, len(server.connections)) == ([Cut.REFUSED], 1, 1)


async def test_an_answer_that_is_read_slowly_is_not_given_up():
    async def long(_):
        return web.Response(body=bytes(12 << 20))

    async with serving(long, answer_timeout=0.5) as (_, port, cut):
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, ("127.0.0.1", port))
            await loop.sock_sendall(slow, GET)
            begun, left = time.monotonic(), 12 << 20
            while left > 0:
                got = await asyncio.wait_for(loop.sock_recv(slow, 1 << 20), 20)
                assert got, "cut off"
                left -= len(got)
                if time.monotonic() - begun < 1.2:
                    await asyncio.sleep(0.05)
        assert cut == []


async def test_the_kernel_looks_after_peers_that_vanish():
    async with serving(healthy) as (server, port, _):
        await connected(port)
        while not server.connections:
            await asyncio.sleep(0.01)
        sock = server.connections[0].transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        found = {
            name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            if hasattr(socket, name)
        }
        assert found.get("TCP_USER_TIMEOUT", 60_000) == connections.GONE_AFTER * 1000 == 60_000
        if len(found) == 4:
            silence = found["TCP_KEEPIDLE"] + found["TCP_KEEPCNT"] * found["TCP_KEEPINTVL"]
            assert silence == connections.GONE_AFTER


async def test_the_end_waits_for_what_has_come_in_and_for_nobody_who_is_idle():
    async with fake_alertmanager() as alertmanager:
        async with build(settings(alertmanager.url)) as running:
            listeners = [Proxy(running, name) for name in ("data", "admin")]
            idle = [await listener.connect() for listener in listeners for _ in range(5)]
            for client in idle:
                assert await client.ask() == 200
            begun_headers = [await listener.connect(b"GET / HT") for listener in listeners]
            content = body(posted())
            under_way = await listeners[0].connect(post(content, close=False)[:-1])
            await asyncio.sleep(0.2)
            asyncio.get_running_loop().call_later(0.3, under_way.writer.write, content[-1:])
            begun = time.monotonic()
        assert time.monotonic() - begun < 5
        assert await under_way.answered() == 200
        for client in (*idle, *begun_headers):
            assert await client.end() == b""


async def test_connections_are_counted(alertmanager):
    async with build(settings(alertmanager.url)) as running:
        client = await Proxy(running, "data").connect()
        assert await client.ask() == 200
        async with (
            ClientSession() as session,
            session.get(f"http://127.0.0.1:{running.admin_port}/metrics") as answered,
        ):
            text = await answered.text()
        assert 'aiproxy_connections{listener="data"} 1.0' in text
        assert 'aiproxy_connections{listener="admin"} 1.0' in text
