"""Long bodies, and many of them: what is held, what is read, and what goes as it came."""

import asyncio
import contextlib
import gzip
import json
import time
import tracemalloc
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import RawTestServer
from fakes import OK, FakeModel, answer, body, exchange, post, posted, settings, status_of, verdict
from serving import serving
from yarl import URL

from proxy.app import build
from proxy.classification.classification import Severity
from proxy.gateway.bodies import FREE, LARGE, BodyMemory, unfolded
from proxy.gateway.forwarder import Forwarder
from proxy.gateway.listener import DataListener
from proxy.gateway.pipeline import Pipeline, Prepared

KIB, MIB = 1 << 10, 1 << 20


def long(size, name="Long"):
    """A POST of about `size` bytes, in alerts of 10 kB."""
    return body(*(posted(name, pod=f"p{n}", filler="x" * 10_000) for n in range(size // 10_200)))


def in_chunks(content):
    head = post(content).removesuffix(content)
    head = head.replace(f"Content-Length: {len(content)}".encode(), b"Transfer-Encoding: chunked")
    return head + f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"


@asynccontextmanager
async def enriching(alertmanager, **flags):
    given = settings(alertmanager.url, enrichment__mode="enriched", **flags)
    async with build(given, model=FakeModel([verdict(Severity.CRITICAL)])) as running:
        yield running


def labelled(received):
    return ["ai_severity" in alert["labels"] for alert in received.alerts]


async def unread(running, reason):
    async with ClientSession() as client, client.get(f"http://127.0.0.1:{running.admin_port}/metrics") as answered:
        lines = (await answered.text()).splitlines()
    sample = f'aiproxy_posts_forwarded_unread_total{{reason="{reason}"}} '
    return sum(float(line.removeprefix(sample)) for line in lines if line.startswith(sample))


class Stuck:
    """A pipeline that is done with a body when it is told so."""

    idle = False

    def __init__(self):
        self.begun = []
        self.known = []
        self.go = asyncio.Semaphore(0)

    async def run(self, content):
        self.begun.append(content)
        await self.go.acquire()
        return Prepared(content)

    def known_only(self, content):
        self.known.append(content)
        return Prepared(content)


@asynccontextmanager
async def listening(alertmanager, pipeline, *, memory=64 * MIB, prepare_within=20):
    faults, reasons = [], []
    async with ClientSession() as session:
        listener = DataListener(
            Forwarder(session, session, URL(alertmanager.url), 30, lambda _: None),
            pipeline,
            prepare_within=prepare_within,
            body_limit=16 * MIB,
            memory=BodyMemory(memory),
            on_unread=reasons.append,
            on_post=lambda _: None,
            on_fault=faults.append,
        )
        async with RawTestServer(listener.handle) as server:
            yield server.port, faults, reasons


async def until(true):
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_body_that_says_that_it_is_too_long_is_passed_on_as_it_comes(alertmanager):
    """The first part has arrived at the other side before the rest is sent."""
    content = long(200 * KIB)
    arrived = asyncio.Event()

    async def serve(reader, writer):
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET "):
            writer.close()  # a question of the proxy's own
            return
        got = await reader.readexactly(1000)
        arrived.set()
        got += await reader.readexactly(len(content) - 1000)
        writer.write(OK if got == content else b"HTTP/1.1 500 Changed\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with serving(serve) as port:
        given = settings(f"http://127.0.0.1:{port}", enrichment__mode="enriched", web__max_body_size="64KiB")
        async with build(given) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.data_port)
            request = post(content)
            writer.write(request[: -len(content) + 2000])
            await asyncio.wait_for(arrived.wait(), 20)
            writer.write(request[-len(content) + 2000 :])
            assert status_of(await asyncio.wait_for(reader.read(), 20)) == 200
            assert await unread(running, "too_long") == 1
            writer.close()


@pytest.mark.parametrize("first", [10 * KIB, 100 * KIB], ids=["after a while", "at once"])
async def test_a_body_that_turns_out_to_be_too_long_is_passed_on_as_it_came(alertmanager, first):
    content = long(200 * KIB)
    request = in_chunks(content)
    async with enriching(alertmanager, web__max_body_size="64KiB") as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.data_port)
        writer.write(request[:first])
        await asyncio.sleep(0.1)
        writer.write(request[first:])
        assert status_of(await asyncio.wait_for(reader.read(), 20)) == 200
        assert await unread(running, "too_long") == 1
        writer.close()
    assert [received.body for received in alertmanager.posts] == [content]


async def test_a_body_as_long_as_allowed_is_read(alertmanager):
    content = body(posted())
    content = content[:-1] + b" " * (64 * KIB - len(content)) + b"]"
    async with enriching(alertmanager, web__max_body_size="64KiB") as running:
        for more in (b"", b" "):
            assert status_of(await exchange(running.data_port, post(content[:-1] + more + b"]"))) == 200
    assert [labelled(received) for received in alertmanager.posts] == [[True], [False]]


async def test_what_finds_no_room_goes_as_it_came_and_what_prometheus_sends_always_finds_some(alertmanager):
    content, usual = long(600 * KIB), long(200 * KIB)
    async with enriching(alertmanager, web__max_body_memory="64KiB") as running:
        assert status_of(await exchange(running.data_port, post(content))) == 200
        assert await unread(running, "no_memory") == 1
        assert status_of(await exchange(running.data_port, post(usual))) == 200
    assert alertmanager.posts[0].body == content
    assert all(labelled(alertmanager.posts[1]))


async def test_room_is_for_many_and_given_back(alertmanager):
    content = long(600 * KIB)
    async with listening(alertmanager, stuck := Stuck(), memory=unfolded(content) + len(content)) as (port, _, why):
        for _ in range(3):
            stuck.go.release()
            assert status_of(await exchange(port, post(content))) == 200
        assert (len(stuck.begun), why) == (3, [])

        holding = asyncio.create_task(exchange(port, post(content)))
        await until(lambda: len(stuck.begun) == 4)
        assert status_of(await exchange(port, post(content))) == 200
        assert (len(stuck.begun), why) == (4, ["no_memory"])
        stuck.go.release()
        assert status_of(await holding) == 200


async def test_a_body_that_could_never_be_read_within_the_bound_goes_as_it_came(alertmanager):
    """Short as bytes, and hundreds of times as much when it is unfolded."""
    content = b"[" + b"{}," * 200_000 + b"{}]"
    async with enriching(alertmanager, web__max_body_memory="16MiB") as running:
        assert status_of(await exchange(running.data_port, post(content))) == 200
        assert await unread(running, "no_memory") == 1
    assert alertmanager.posts[0].body == content


async def test_a_body_waits_for_room_to_be_read_in(alertmanager):
    content = long(600 * KIB)
    room = unfolded(content) + 2 * (len(content) - FREE)
    async with listening(alertmanager, stuck := Stuck(), memory=room) as (port, _, why):
        both = [asyncio.create_task(exchange(port, post(content))) for _ in range(2)]
        await until(lambda: stuck.begun)
        await asyncio.sleep(0.2)
        assert len(stuck.begun) == 1
        stuck.go.release()
        await until(lambda: len(stuck.begun) == 2)
        stuck.go.release()
        assert [status_of(raw) for raw in await asyncio.gather(*both)] == [200, 200]
        assert why == []


async def test_long_bodies_are_enriched_one_at_a_time_and_short_ones_beside_them(alertmanager):
    async with listening(alertmanager, stuck := Stuck()) as (port, faults, why):
        both = [asyncio.create_task(exchange(port, post(long(LARGE + 100 * KIB, name)))) for name in "AB"]
        await until(lambda: stuck.begun)
        short = asyncio.create_task(exchange(port, post(long(LARGE - 100 * KIB))))
        await until(lambda: len(stuck.begun) == 2)
        await asyncio.sleep(0.2)
        assert [len(content) > LARGE for content in stuck.begun] == [True, False]
        for _ in range(3):
            stuck.go.release()
        found = await asyncio.gather(*both, short)
        assert [status_of(raw) for raw in found] == [200] * 3
        assert len(stuck.begun) == 3
        assert (faults, why) == ([], [])


async def test_who_waits_for_its_turn_too_long_goes_with_what_is_known(alertmanager):
    class Stubborn(Stuck):
        """Goes on for a while when its time is over, as a thread does."""

        async def run(self, content):
            self.begun.append(content)
            try:
                await self.go.acquire()
            except asyncio.CancelledError:
                await self.go.acquire()
                raise

    first, second = long(LARGE + 100 * KIB, "A"), long(LARGE + 100 * KIB, "B")
    async with listening(alertmanager, stuck := Stubborn(), prepare_within=0.5) as (port, faults, _):
        ahead = asyncio.create_task(exchange(port, post(first)))
        await until(lambda: stuck.begun)
        assert status_of(await exchange(port, post(second))) == 200
        assert (stuck.begun, stuck.known, faults) == ([first], [second], ["late"])
        stuck.go.release()
        assert status_of(await ahead) == 200


async def test_the_time_for_alertmanager_is_not_used_up_by_what_goes_before(alertmanager, monkeypatch):
    async def never(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(Pipeline, "run", never)
    async with enriching(alertmanager, enrichment__budget="200ms", alertmanager__timeout="1200ms") as running:
        assert status_of(await exchange(running.data_port, post(body(posted())))) == 200


async def test_unread_bodies_are_held_to_be_tried_again_when_they_are_short(alertmanager):
    short, longer = long(LARGE - 100 * KIB), long(LARGE + 100 * KIB)
    calls = []

    def hangs_up_once(received):
        calls.append(received)
        return b"" if len(calls) == 1 else OK

    alertmanager.respond = hangs_up_once
    async with build(settings(alertmanager.url, web__max_body_memory="1MiB")) as running:
        assert unfolded(short) > MIB, "which does not matter, as it is not read"
        assert status_of(await exchange(running.data_port, post(short))) == 200
        assert len(calls) == 2
        calls.clear()
        assert status_of(await exchange(running.data_port, post(longer))) == 502
        assert len(calls) == 1
        assert (await unread(running, "idle"), await unread(running, "no_memory")) == (2, 0)


async def test_a_streamed_post_has_as_long_as_any_other_from_its_last_byte_on(alertmanager):
    content = long(200 * KIB)
    alertmanager.respond = lambda received: OK if b'"Slow"' in received.body else None
    flags = {"web__max_body_size": "64KiB", "enrichment__budget": "100ms", "alertmanager__timeout": "500ms"}
    async with build(settings(alertmanager.url, **flags)) as running:
        begun = time.monotonic()
        raw = await exchange(running.data_port, post(content))
        assert status_of(raw) == 504
        assert b"has not answered in time" in raw
        assert time.monotonic() - begun >= 0.4

        reader, writer = await asyncio.open_connection("127.0.0.1", running.data_port)
        request = post(long(200 * KIB, "Slow"))
        writer.write(request[:-1])
        await asyncio.sleep(1)
        writer.write(request[-1:])
        assert status_of(await asyncio.wait_for(reader.read(), 20)) == 200, "the last byte counts, not the first"
        writer.close()


async def test_a_streamed_post_whose_answer_does_not_end_is_cut_off(alertmanager):
    alertmanager.respond = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    flags = {"web__max_body_size": "64KiB", "enrichment__budget": "100ms", "alertmanager__timeout": "500ms"}
    async with build(settings(alertmanager.url, **flags)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.data_port)
        writer.write(post(long(200 * KIB)))
        raw = await asyncio.wait_for(reader.readuntil(b"half"), 20)
        assert status_of(raw) == 200
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


BOMB = gzip.compress(bytes(64 * MIB))


@pytest.mark.parametrize(
    ("to", "request_line", "status"),
    [
        ("data", b"POST /api/v2/alerts", 200),
        ("data", b"POST /api/v2/silences", 200),
        ("data", b"GET /bomb", 200),
        ("data", b"POST /bomb/api/v2/alerts", 200),
        ("admin", b"POST /enrichment/mode", 413),
    ],
    ids=["alerts", "another POST", "answer", "answer to alerts", "admin"],
)
async def test_what_is_packed_is_not_unpacked(alertmanager, to, request_line, status):
    packed = answer("200 OK", BOMB, Content_Encoding="gzip", Content_Type="application/json")
    alertmanager.respond = lambda received: packed if "/bomb" in received.line else OK
    head = request_line + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    content = b"" if b"bomb" in request_line else BOMB
    head += b"Content-Encoding: gzip\r\n" * bool(content) + b"Content-Length: %d\r\n\r\n" % len(content)
    async with enriching(alertmanager) as running:
        port = running.data_port if to == "data" else running.admin_port
        tracemalloc.start()
        try:
            raw = await exchange(port, head + content)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert status_of(raw) == status
    assert most < 16 * MIB
    if to == "data":
        assert raw.endswith(BOMB) if b"bomb" in request_line else alertmanager.received[0].body == BOMB


@pytest.mark.parametrize(
    ("content", "at_least"),
    [
        pytest.param(b"[" + b"0," * 20_000 + b"0]", 20_000 * 100, id="many values"),
        pytest.param(b"[" + b"{}," * 20_000 + b"{}]", 20_000 * 150, id="many objects"),
        pytest.param(json.dumps(["x" * 100_000]).encode(), 300_000, id="one long text"),
        pytest.param(json.dumps(["x" * 100_000 + "🔥"], ensure_ascii=False).encode(), 900_000, id="wide characters"),
        pytest.param(b"[" * 900 + b"]" * 900, 900 * 60, id="nested"),
    ],
)
def test_what_a_body_unfolds_into_is_not_thought_less_of_than_it_is(content, at_least):
    assert unfolded(content) >= at_least
