"""An Alertmanager that breaks in all ways a connection can, as bytes on a socket."""

import asyncio
import contextlib
import re
from contextlib import asynccontextmanager

import pytest
from fakes import NO_ALERTS, OK, answer, body, exchange, post, posted, settings, status_of
from retried import Proxy
from serving import serving

from proxy.app import build
from proxy.gateway import forwarder

GET = b"GET /api/v2/silences HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Raw:
    """A server that hands each request, numbered from 0 in all and in its connection, to `play`."""

    def __init__(self, play):
        self.play = play
        self.bodies = []

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            n = 0
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith((b"GET /api/v2/alerts", b"GET /api/v2/status")):
                    writer.write(NO_ALERTS.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                    break
                if length := re.search(rb"content-length: (\d+)", head.lower()):
                    self.bodies.append(await reader.readexactly(int(length[1])))
                if await self.play(writer, len(self.bodies) - 1, n):
                    break
                n += 1
        writer.close()


@asynccontextmanager
async def raw(play, **flags):
    server = Raw(play)
    async with serving(server.serve) as port, build(settings(f"http://127.0.0.1:{port}", **flags)) as running:
        yield Proxy(running), server


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(forwarder, "RETRY_FOR", 0.4)
    monkeypatch.setattr(forwarder, "RETRY_EVERY", (0.05, 0.05))


async def test_an_answer_to_anything_else_shows_that_alertmanager_was_there(alertmanager, impatient):
    async with build(settings(alertmanager.url)) as running:
        proxy = Proxy(running)
        assert status_of(await exchange(proxy.port, GET)) == 200
        await alertmanager.stop()
        status, retried = await proxy.post()
        assert (status, retried >= 3) == (502, True), "it may be restarting"


async def test_an_outage_begins_with_whoever_meets_it_first(alertmanager, impatient):
    async with build(settings(alertmanager.url)) as running:
        proxy = Proxy(running)
        assert await proxy.post() == (200, 0)
        await alertmanager.stop()
        for _ in range(2):  # the first one may die on the connection that was kept
            assert status_of(await exchange(proxy.port, GET)) == 502
        await asyncio.sleep(0.5)
        assert await proxy.post() == (502, 0), "at once: it has been away for longer than it is waited for"
        await alertmanager.start()
        assert status_of(await exchange(proxy.port, GET)) == 200
        await alertmanager.stop()
        status, retried = await proxy.post()
        assert (status, retried >= 3) == (502, True), "the next outage is another one"


@pytest.mark.parametrize("request_", [GET, post(body(posted()))], ids=["GET", "POST of alerts"])
async def test_a_name_that_does_not_resolve_is_a_502_at_once(request_):
    async with build(settings("http://no-such-host.invalid:9093")) as running:
        answered = await exchange(running.data_port, request_)
    assert status_of(answered) == 502
    assert b"Alertmanager at http://no-such-host.invalid:9093: cannot connect: " in answered


HALF = answer("200 OK", b"0123456789")[:-5]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(HALF, id="within its body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="within its headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", id="within a chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", id="no chunk"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="no HTTP"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_a_broken_answer_is_no_answer_and_the_post_is_tried_once_more(broken):
    async def first_breaks(writer, n, _):
        writer.write(broken if n == 0 else OK)
        return n == 0

    async with raw(first_breaks) as (proxy, server):
        assert await proxy.post() == (200, 0)
        assert len(server.bodies) == 2
        assert server.bodies[0] == server.bodies[1]
        assert await proxy.retries("disconnected") == 1


async def test_answers_that_always_break_off_are_a_502_and_never_a_2xx():
    async def breaks(writer, *_):
        writer.write(HALF)
        return True

    async with raw(breaks) as (proxy, server):
        assert await proxy.post() == (502, 0)
        assert len(server.bodies) == 2


async def test_one_that_closes_after_each_few_requests_costs_no_post():
    async def two_each(writer, _, n):
        writer.write(OK)
        return n == 1

    async with raw(two_each) as (proxy, server):
        for _ in range(9):
            assert await proxy.post() == (200, 0)
        assert len(server.bodies) >= 9


async def test_a_reset_within_the_body_is_tried_again():
    async def resets(writer, n, _):
        if n == 0:
            writer.transport.abort()
            return True
        writer.write(OK)
        return False

    async with raw(resets) as (proxy, server):
        assert await proxy.post("x" * 300_000) == (200, 0)
        assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "reply",
    [
        answer("503 Service Unavailable", b"busy", Retry_After="7"),
        answer("500 Internal Server Error", b'"oops"', Content_Type="application/json"),
        answer("302 Found", b"", Location="http://elsewhere.invalid/"),
        answer("307 Temporary Redirect", b"", Location="/api/v2/alerts"),
    ],
    ids=["503", "500", "302", "307"],
)
async def test_an_answer_is_relayed_as_it_is_and_the_post_not_repeated(reply):
    async def says(writer, *_):
        writer.write(reply)

    async with raw(says) as (proxy, server):
        answered = await exchange(proxy.port, post(body(posted())))
        assert status_of(answered) == status_of(reply)
        assert answered.partition(b"\r\n\r\n")[2] == reply.partition(b"\r\n\r\n")[2]
        assert [line for line in reply.split(b"\r\n")[1:-3] if line not in answered] == []
        assert len(server.bodies) == 1


async def test_interim_answers_are_not_the_answer():
    async def continues(writer, *_):
        writer.write(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer("400 No", b"no")
        )

    async with raw(continues) as (proxy, server):
        assert await proxy.post() == (400, 0)
        assert len(server.bodies) == 1


async def test_more_bytes_than_an_answer_has_are_nobodys_answer():
    async def chatters(writer, n, _):
        writer.write(OK + answer("418 Teapot", b"smuggled") if n == 0 else OK)

    async with raw(chatters) as (proxy, server):
        for _ in range(3):
            assert await proxy.post() == (200, 0)
        assert len(server.bodies) >= 3


async def test_an_answer_that_comes_before_the_body_was_read_is_the_answer():
    async def refuses(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer("413 Too Large", b"too large") if head.startswith(b"POST") else NO_ALERTS)
        await writer.drain()
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(reader.read(), 1)  # Go, too, reads on for a while
        writer.close()

    async with serving(refuses) as port, build(settings(f"http://127.0.0.1:{port}")) as running:
        answered = await exchange(running.data_port, post(body(posted("x" * 5_000_000))))
    assert (status_of(answered), answered.endswith(b"too large")) == (413, True)


BYTES = b'"' + b"x" * (2 << 20) + b'"'


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(post(BYTES), id="alerts that are not held"),
        pytest.param(post(b"{}", path="/api/v2/silences"), id="a silence"),
        pytest.param(post(b"", path="/-/reload"), id="no body"),
    ],
)
async def test_what_cannot_be_sent_twice_does_not_meet_a_dead_connection(request_):
    async def second_finds_it_dead(writer, _, n):
        if n == 0:
            writer.write(OK)
        return n == 1

    async with raw(second_finds_it_dead) as (proxy, _):
        for _ in range(2):
            assert status_of(await exchange(proxy.port, request_)) == 200
            assert status_of(await exchange(proxy.port, GET)) == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_the_rest_of_a_body_is_not_sent_as_if_it_were_the_whole(method):
    heads = []

    async def breaks(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.read(1)
        writer.transport.abort()

    async with serving(breaks) as port, build(settings(f"http://127.0.0.1:{port}")) as running:
        request = post(BYTES, path="/api/v2/silences").replace(b"POST", method.encode(), 1)
        assert status_of(await exchange(running.data_port, request)) == 502
    assert sum(head.startswith(method.encode()) for head in heads) == 1
