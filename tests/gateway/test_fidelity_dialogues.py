"""Dialogues on a connection: requests in a row, sides that close early, answers in odd forms, bodies that break off."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from fakes import settings
from fidelity import CHUNKED, JSON, TWO, request
from fidelity_wire import EMPTY, answer_from, ask, connection, upstream
from serving import serving

from proxy.app import build
from proxy.gateway import heads
from proxy.gateway.listener import DataListener

GET = request("GET", "/x")
LAST = request("GET", "/last", "Connection: close")


@pytest.fixture
async def recording():
    async with upstream() as server, build(settings(server.url)) as running:
        yield server, running.data_port


def lines_of(server):
    return [message.line for message in server.received]


async def everything(port, raw, *, half_close=False):
    """Send bytes, perhaps close our side behind them, and return all that comes until the other side closes."""
    async with asyncio.timeout(20), connection(port) as (reader, writer):
        writer.write(raw)
        if half_close:
            writer.write_eof()
        return await reader.read()


async def test_requests_in_a_row_are_answered_in_their_order(recording):
    server, port = recording
    server.respond = lambda r: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(r.line), r.line)
    row = [request("GET", f"/{n}") if n % 3 else request("POST", f"/{n}", body=b"[]" * n) for n in range(1, 101)]
    raw = await everything(port, b"".join(row) + LAST)
    assert [line.split()[1] for line in lines_of(server)] == [b"/%d" % n for n in range(1, 101)] + [b"/last"]
    assert raw.count(b"HTTP/1.1 200 OK") == 101
    assert [raw.index(b" /%d " % n) for n in range(1, 101)] == sorted(raw.index(b" /%d " % n) for n in range(1, 101))


@pytest.mark.parametrize("path", ["/x", "/api/v2/alerts"])
async def test_a_trailer_is_no_header_of_the_next_request(recording, path):
    server, port = recording
    evil = request("POST", path, JSON, CHUNKED, body=b"2\r\n[]\r\n0\r\nAuthorization: Basic ZXZpbA==\r\n\r\n")
    raw = await everything(port, evil + GET)
    assert len(server.received) == 1, "what came behind it was not believed"
    assert b"\r\nConnection: close\r\n" in raw
    assert server.received[0].first("Authorization") is None


@pytest.mark.parametrize("path", ["/x", "/api/v2/alerts"])
@pytest.mark.parametrize("asked", ["h2c", "websocket", "x"])
async def test_the_end_of_a_request_is_not_taken_for_another_one(recording, path, asked):
    """Of one that comes half in one piece with an upgrade."""
    server, port = recording
    upgrade = request("POST", path, JSON, "Connection: Upgrade", f"Upgrade: {asked}", body=b"[]")
    inner = request("DELETE", "/api/v2/silence/1")
    head, _, _ = request("POST", path, JSON, body=inner).partition(b"\r\n\r\n")
    async with asyncio.timeout(20), connection(port) as (reader, writer):
        writer.write(upgrade + head + b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(inner)
        raw = await reader.read()
    assert (len(server.received), raw.count(b"HTTP/1.1 200 OK")) == (1, 1), "what came behind it was not believed"
    assert b"\r\nConnection: close\r\n" in raw


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        pytest.param([GET], 1, id="a GET"),
        pytest.param([request("POST", "/api/v2/alerts", JSON, body=b"[]")], 1, id="a POST of alerts"),
        pytest.param([request("POST", "/x", CHUNKED, body=TWO)], 1, id="a chunked POST"),
        pytest.param([GET, GET, request("POST", "/x", body=b"{}")], 3, id="three in a row"),
        pytest.param([LAST], 1, id="one that says it is the last"),
    ],
)
async def test_a_client_that_closes_its_side_gets_its_answers(recording, row, answers):
    server, port = recording
    raw = await everything(port, b"".join(row), half_close=True)
    assert raw.count(b"HTTP/1.1 200 OK") == answers
    assert len(server.received) == answers


@pytest.mark.parametrize("half", [b"", GET[:10], GET[:-2]], ids=["nothing", "half a line", "half a head"])
async def test_a_client_that_closes_its_side_without_a_request_is_let_go(recording, half):
    server, port = recording
    assert await everything(port, half, half_close=True) == b""
    assert server.received == []


async def test_a_client_that_closes_its_side_between_requests_is_let_go(recording):
    _, port = recording
    async with asyncio.timeout(20), connection(port) as (reader, writer):
        writer.write(GET)
        assert (await answer_from(reader, b"GET")).status == 200
        writer.write_eof()
        assert await reader.read() == b""


BROKEN = {
    "chunks": (CHUNKED, b"2\r\n[]\r\n"),
    "a length": ("Content-Length: 100", b"[" * 50),
}


@pytest.mark.parametrize("path", ["/x", "/api/v2/alerts"])
@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("how", ["closes its side", "is gone"])
async def test_a_body_that_breaks_off_is_never_completed(recording, path, kind, how, capsys):
    server, port = recording
    line, begun = BROKEN[kind]
    async with connection(port) as (reader, writer):
        writer.write(request("POST", path, JSON, line, body=begun))
        await writer.drain()
        await asyncio.sleep(0.1)  # so that the request is on its way
        if how == "closes its side":
            writer.write_eof()
        else:
            writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 10)
    assert (await ask(port, request("GET", "/next"))).goes_on
    assert lines_of(server) == [b"GET /next HTTP/1.1", b"GET /sentinel HTTP/1.1"]
    assert "a bug" not in capsys.readouterr().out


@pytest.mark.parametrize("path", ["/x", "/api/v2/alerts"])
@pytest.mark.parametrize("bad", [b"zz\r\n", b"2\n", b"1\r\nxx\r\n", b"0\r\nContent-Length: 1\r\n\r\n"])
async def test_a_body_that_goes_wrong_on_its_way_ends_with_400_and_is_never_completed(recording, path, bad):
    server, port = recording
    async with asyncio.timeout(20), connection(port) as (reader, writer):
        writer.write(request("POST", path, JSON, CHUNKED, body=b"2\r\n[]\r\n"))
        await asyncio.sleep(0.1)  # so that the request is on its way
        writer.write(bad)
        answer = await answer_from(reader, b"POST")
        assert (answer.status, answer.body) == (400, b"alertmanager-ai-proxy: the body of the request is malformed\n")
        assert await reader.read() == b""
    assert server.received == []
    assert len(server.broken) == (1 if path == "/x" else 0), "alerts are not sent before they are there"


async def test_an_answer_may_come_before_the_body():
    early = b"HTTP/1.1 415 Unsupported Media Type\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(early)
        await reader.read()
        writer.close()

    async with (
        serving(serve) as port,
        build(settings(f"http://127.0.0.1:{port}")) as running,
        connection(running.data_port) as (reader, writer),
    ):
        writer.write(request("POST", "/x", "Content-Length: 100"))
        answer = await asyncio.wait_for(answer_from(reader, b"POST"), 20)
    assert (answer.status, answer.body) == (415, b"no")


CHUNKS = b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-T: 1\r\n\r\n"


@pytest.mark.parametrize("path", ["/x", "/api/v2/alerts"])
@pytest.mark.parametrize(
    ("raw", "framed"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "length", id="a length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, "chunked", id="chunks"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello", "chunked", id="until it closes"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nhello", "chunked", id="HTTP/1.0"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "length",
            id="behind a 103",
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello",
            "chunked",
            id="behind a 100 and a 102",
        ),
    ],
)
async def test_an_answer_is_relayed_whatever_tells_its_end(recording, path, raw, framed):
    server, port = recording
    server.respond = lambda _: raw
    exchange = await ask(port, request("POST", path, JSON, body=b"[]"))
    assert (exchange.answer.status, exchange.answer.body, exchange.goes_on) == (200, b"hello", True)
    assert exchange.answer.framed == (framed if path == "/x" else "length"), "answers to alerts are read whole"
    assert exchange.answer.interim == []


@pytest.mark.parametrize("keep", ["Connection: keep-alive", "X-A: 1"])
@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 200 OK\r\n\r\nhello", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS]
)
async def test_what_has_no_length_ends_with_the_connection_for_http_1_0(recording, keep, raw):
    server, port = recording
    server.respond = lambda _: raw
    got = await everything(port, request("GET", "/x", keep, version="1.0"))
    assert got == b"HTTP/1.0 200 OK\r\n\r\nhello"


@pytest.mark.parametrize(("method", "status"), [("GET", b"204 No"), ("GET", b"304 No"), ("HEAD", b"200 OK")])
async def test_what_has_no_body_leaves_the_connection_open_for_http_1_0(recording, method, status):
    server, port = recording
    server.respond = lambda _: b"HTTP/1.1 %b\r\nETag: 1\r\n\r\n" % status
    exchange = await ask(port, request(method, "/x", "Connection: keep-alive", version="1.0"))
    assert (exchange.answer.line, exchange.goes_on) == (b"HTTP/1.0 " + status, True)


async def test_headers_of_an_answer_are_relayed_as_they_are_written(recording):
    server, port = recording
    head = (
        b'HTTP/1.1 299 Od\xe9 {reason}\r\nZ-First: 1\r\nEtag: "x"\r\nSet-Cookie: a=b\r\nVary:  Origin \r\n'
        b"set-cookie: c=d\r\ncontent-type: text/x\r\nX-Bytes: caf\xe9\r\nserver: y\r\n"
        b"content-length: 2\r\nX-Last:\r\n\r\n"
    )
    server.respond = lambda _: head + b"hi"
    tidy = head.replace(b"Vary:  Origin \r\n", b"Vary: Origin\r\n").replace(b"X-Last:\r\n", b"X-Last: \r\n")
    for raw in (GET, request("POST", "/api/v2/alerts", JSON, body=b"[]")):
        exchange = await ask(port, raw)
        assert exchange.answer.raw_head == tidy
        assert exchange.answer.body == b"hi"


@pytest.mark.parametrize("path", ["/x", "/api/v2/alerts"])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", id="101 unasked"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", id="two lengths"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + TWO,
            id="a length and chunks",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\x01b\r\n\r\n", id="a control character"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab", id="a signed length"),
        pytest.param(b"nonsense\r\nContent-Length: 0\r\n\r\n", id="no HTTP"),
    ],
)
async def test_an_answer_that_could_be_read_in_two_ways_means_502(recording, path, raw):
    server, port = recording
    server.respond = lambda _: raw
    exchange = await ask(port, request("POST", path, JSON, body=b"[]"))
    assert exchange.answer.status == 502
    assert exchange.answer.body.startswith(b"alertmanager-ai-proxy: ")
    assert exchange.goes_on
    assert [name for name, _ in exchange.answer.headers] == [
        b"Content-Type",
        b"X-Content-Type-Options",
        b"Content-Length",
    ]
    assert exchange.answer.first("Content-Type") == b"text/plain; charset=utf-8"


async def test_an_upgrade_is_no_tunnel(recording):
    server, port = recording
    upgrade = request("GET", "/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA==")
    async with asyncio.timeout(20), connection(port) as (reader, writer):
        writer.write(upgrade + b"\x81\x05hello\r\n\r\n")
        answer = await answer_from(reader, b"GET")
        assert (answer.status, answer.first("Connection")) == (200, b"close")
        assert await reader.read() == b""
    assert lines_of(server) == [b"GET /ws HTTP/1.1"]
    assert server.received[0].first("Upgrade") is None


async def test_a_refusal_says_nothing_of_what_it_refuses(recording, capsys):
    _, port = recording
    secret = request("GET", "/x", "Authorization : Bearer hunter2", "X: hunter2")
    long = request("GET", "/x", "Authorization: Bearer hunter2" + "a" * 1_100_000)
    for raw in (secret, long, request("GET", "/x", "Sec-WebSocket-Key1: hunter2"), request("GET", "/hunter2 hunter2")):
        exchange = await ask(port, raw)
        assert exchange.answer.status == (431 if raw is long else 400)
        assert b"hunter2" not in exchange.answer.body
    said = capsys.readouterr()
    assert "hunter2" not in said.out + said.err
    assert said.err.count("what is no request") + said.out.count("what is no request") == 4


async def test_a_bug_of_ours_is_told_in_our_words(recording, monkeypatch):
    async def handle(self, request):
        raise ZeroDivisionError

    monkeypatch.setattr(DataListener, "handle", handle)
    async with build(settings(recording[0].url)) as running:
        exchange = await ask(running.data_port, request("GET", "/x", "Accept: text/html"))
    assert exchange.answer.status == 500
    assert exchange.answer.body == b"alertmanager-ai-proxy: a bug of the proxy's; its log says more\n"
    assert exchange.answer.first("Server") is None


async def test_a_head_is_answered_without_a_body_also_by_ourselves(recording):
    server, port = recording
    server.respond = lambda _: b"nonsense"
    exchange = await ask(port, request("HEAD", "/x"))
    assert (exchange.answer.status, exchange.goes_on) == (502, True)
    assert exchange.answer.first("Content-Length") not in (None, b"0")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(GET, id="a GET"),
        pytest.param(request("DELETE", "/x"), id="a DELETE"),
        pytest.param(request("POST", "/x", body=b"{}"), id="a length"),
        pytest.param(request("POST", "/x", CHUNKED, body=TWO), id="chunks"),
        pytest.param(request("POST", "/api/v2/alerts", JSON, body=b"[]"), id="alerts"),
    ],
)
async def test_an_aiohttp_that_keeps_heads_elsewhere_sends_its_own(recording, raw, monkeypatch):
    server, port = recording
    server.respond = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    monkeypatch.setattr(heads, "_replace_head", lambda writer, head: None)
    exchange = await ask(port, raw)
    assert (exchange.answer.status, exchange.answer.body) == (200, b"hello")
    assert server.received[0].body == (b"" if b"POST" not in raw else b"[]" if b"alerts" in raw else b"{}")


async def test_nothing_is_added_about_the_way(recording):
    server, port = recording
    server.respond = lambda _: EMPTY
    exchange = await ask(port, GET)
    told = {name.lower() for name, _ in [*server.received[0].headers, *exchange.answer.headers]}
    assert told == {b"host", b"content-length"}
