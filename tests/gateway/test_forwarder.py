"""The way to Alertmanager when it fails: what is tried again, for how long, and what the sender is told."""

import asyncio
import contextlib
import re
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession
from fakes import (
    NO_ALERTS,
    OK,
    FakeModel,
    answer,
    body,
    exchange,
    fake_alertmanager,
    post,
    posted,
    settings,
    status_of,
)
from retried import Proxy
from serving import serving
from yarl import URL

from proxy.app import build
from proxy.errors import UpstreamError, UpstreamRefused, UpstreamTimeout
from proxy.gateway import forwarder
from proxy.gateway.alertmanager import AlertmanagerClient


@pytest.fixture
async def proxy(alertmanager):
    async with build(settings(alertmanager.url)) as running:
        yield Proxy(running)


@pytest.fixture
def impatient(monkeypatch):
    """An outage is retried for 0.4 s, at an even pace."""
    monkeypatch.setattr(forwarder, "RETRY_FOR", 0.4)
    monkeypatch.setattr(forwarder, "RETRY_EVERY", (0.05, 0.05))


async def test_an_outage_is_retried_from_its_first_failure_and_not_for_each_post_anew(proxy, alertmanager, impatient):
    assert await proxy.post() == (200, 0)
    await asyncio.sleep(0.5)  # longer ago than RETRY_FOR: the outage counts from its own beginning
    await alertmanager.stop()

    begun = time.monotonic()
    status, retried = await proxy.post()
    assert status == 502
    assert retried >= 3
    assert 0.3 <= time.monotonic() - begun <= 0.4 + 0.5
    for _ in range(3):
        assert await proxy.post() == (502, 0), "at once"

    await alertmanager.start()
    assert await proxy.post() == (200, 0)
    await alertmanager.stop()
    status, retried = await proxy.post()
    assert (status, retried >= 3) == (502, True), "the next outage is another one"


async def test_posts_at_the_same_time_share_one_outage(proxy, alertmanager, impatient):
    assert await proxy.post() == (200, 0)
    await alertmanager.stop()
    begun = time.monotonic()
    found = await asyncio.gather(*(exchange(proxy.port, post(body(posted(f"A{n}")))) for n in range(5)))
    assert [status_of(raw) for raw in found] == [502] * 5
    assert time.monotonic() - begun <= 0.4 + 0.5


async def test_an_alertmanager_that_never_answered_is_not_tried_again(unused_tcp_port):
    async with build(settings(f"http://127.0.0.1:{unused_tcp_port}")) as running:
        for _ in range(2):
            assert await Proxy(running).post() == (502, 0)


async def test_an_alertmanager_that_always_hangs_up_is_asked_twice(alertmanager):
    alertmanager.respond = lambda _: b""
    async with build(settings(alertmanager.url)) as running:
        proxy = Proxy(running)
        assert await proxy.post() == (502, 0)
        assert len(alertmanager.posts) == 2
        assert await proxy.retries("disconnected") == 1


class Pooled:
    """A server whose connections die together: each hangs up at the next request, and new ones answer."""

    def __init__(self):
        self.posts = 0
        self.connections = 0
        self.dead = False
        self.together = asyncio.Barrier(4)

    async def serve(self, reader, writer):
        self.connections += 1
        born_dead = self.dead
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    writer.write(NO_ALERTS.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                    break
                await reader.readexactly(int(re.search(rb"content-length: (\d+)", head.lower())[1]))
                self.posts += 1
                if not self.dead:
                    await self.together.wait()  # four at once need four connections
                elif not born_dead:
                    break
                writer.write(OK)
        writer.close()


@asynccontextmanager
async def pooled():
    server = Pooled()
    async with serving(server.serve) as port:
        yield server, f"http://127.0.0.1:{port}"


async def test_several_dead_connections_cost_no_post():
    async with pooled() as (server, url), build(settings(url)) as running:
        proxy = Proxy(running)
        found = await asyncio.gather(*(exchange(proxy.port, post(body(posted(f"A{n}")))) for n in range(4)))
        assert [status_of(raw) for raw in found] == [200] * 4
        connections = server.connections
        server.dead = True

        assert await proxy.post() == (200, 0)
        assert server.posts == 4 + 2, "once on a dead connection, once on a fresh one"
        assert server.connections == connections + 1
        assert await proxy.retries("disconnected") == 1


async def test_a_second_attempt_without_our_text_keeps_the_first_deadline_and_the_first_answer(alertmanager):
    """The model takes most of the time; what is left of it is for both attempts."""
    alertmanager.respond = lambda r: answer("422 No", b"first") if b"ai_summary" in r.body else None
    given = settings(
        alertmanager.url, enrichment__mode="enriched", enrichment__budget="800ms", alertmanager__timeout="1s"
    )
    async with build(given, model=FakeModel([None])) as running:
        begun = time.monotonic()
        raw = await exchange(running.data_port, post(body(posted())))
        assert time.monotonic() - begun <= 1 + 0.5
    assert (status_of(raw), raw.endswith(b"first")) == (422, True)
    assert [b"ai_summary" in received.body for received in alertmanager.posts] == [True, False]


async def test_an_answer_that_is_too_long_means_502_and_the_post_is_not_repeated(proxy, alertmanager, monkeypatch):
    monkeypatch.setattr(forwarder, "ANSWER_LIMIT", 1000)
    alertmanager.respond = lambda _: answer("200 OK", b"x" * 1001)
    raw = await exchange(proxy.port, post(body(posted())))
    assert status_of(raw) == 502
    assert b"an answer of more than 1000 bytes" in raw
    assert len(alertmanager.posts) == 1
    assert await proxy.retries("disconnected") == 0


@pytest.mark.parametrize("length", [1000, 999], ids=["as long as allowed", "shorter"])
async def test_an_answer_within_the_limit_is_relayed(proxy, alertmanager, monkeypatch, length):
    monkeypatch.setattr(forwarder, "ANSWER_LIMIT", 1000)
    alertmanager.respond = lambda _: answer("200 OK", b"x" * length)
    raw = await exchange(proxy.port, post(body(posted())))
    assert (status_of(raw), raw.endswith(b"\r\n\r\n" + b"x" * length)) == (200, True)


async def test_an_answer_in_many_pieces_is_relayed_whole(proxy, alertmanager):
    long = bytes(range(256)) * 4000
    alertmanager.respond = lambda _: answer("400 Bad Request", long)
    raw = await exchange(proxy.port, post(body(posted())))
    assert raw.endswith(b"\r\n\r\n" + long)


async def test_our_own_question_is_given_up_in_time():
    async with fake_alertmanager(silent=True) as silent, ClientSession() as session:
        with pytest.raises(UpstreamError, match=re.escape("/api/v2/alerts: no answer within 0.2 s")) as raised:
            await asyncio.wait_for(AlertmanagerClient(session, URL(silent.url), 0.2).alerts(), 5)
    assert not isinstance(raised.value, UpstreamRefused)


@pytest.mark.parametrize(
    ("reply", "kind", "why"),
    [
        pytest.param(answer("401 Unauthorized"), UpstreamRefused, "401, it wants credentials", id="401"),
        pytest.param(answer("403 Forbidden"), UpstreamRefused, "403, it refuses our credentials", id="403"),
        pytest.param(answer("404 Not Found"), UpstreamRefused, "--web.route-prefix", id="404"),
        pytest.param(answer("500 Oops"), UpstreamRefused, "500, it should answer 200", id="500"),
        pytest.param(b"", UpstreamError, "Server disconnected", id="hangs up"),
        pytest.param(answer("200 OK", b"{}"), UpstreamRefused, "no list of alerts", id="an object"),
        pytest.param(answer("200 OK", b"<html>"), UpstreamRefused, "no list of alerts", id="a page"),
    ],
)
async def test_what_our_own_question_says_to_an_operator(alertmanager, reply, kind, why):
    alertmanager.held = reply
    async with ClientSession() as session:
        with pytest.raises(UpstreamError, match=re.escape(why)) as raised:
            await AlertmanagerClient(session, URL(alertmanager.url), 5).alerts()
    assert type(raised.value) is kind


async def test_the_deadline_of_a_post_bounds_its_retries(alertmanager, monkeypatch):
    monkeypatch.setattr(forwarder, "RETRY_EVERY", (0.05, 0.05))
    given = settings(alertmanager.url, alertmanager__timeout="500ms", enrichment__budget="100ms")
    async with build(given) as running:
        proxy = Proxy(running)
        assert await proxy.post() == (200, 0)
        await alertmanager.stop()
        status, retried = await proxy.post()
        assert (status, retried >= 3) == (UpstreamTimeout.status, True)
