"""The data listener in front of an Alertmanager that keeps every byte."""

import asyncio
import contextlib
import gzip
import json
import random
import time
from pathlib import Path

import pytest
from fakes import OK, FakeModel, answer, body, exchange, fake_alertmanager, post, posted, settings, status_of, verdict
from serving import serving

from proxy.app import build
from proxy.classification.classification import Severity
from proxy.gateway import forwarder

TRAFFIC = Path(__file__).parents[1] / "testdata" / "traffic" / "prometheus-2.42.jsonl"


@pytest.fixture
async def transparent(alertmanager):
    async with build(settings(alertmanager.url)) as running:
        yield running


@pytest.fixture
def model():
    return FakeModel([verdict(Severity.CRITICAL)])


@pytest.fixture
async def enriched(alertmanager, model):
    async with build(settings(alertmanager.url, enrichment__mode="enriched"), model=model) as running:
        yield running


def recorded():
    return [json.loads(line) for line in TRAFFIC.read_text().splitlines()]


def generated(count):
    """Bodies of all sorts, most of them alerts, some nonsense."""
    rng = random.Random(1)
    for n in range(count):
        alerts = [
            {**posted(f"A{n}", pod=f"p{i}", text="".join(rng.choices('aü"\\\n<🔥', k=5))), "unknown": [1.50, None]}
            for i in range(rng.randint(0, 5))
        ]
        content = json.dumps(alerts, indent=rng.choice([None, 1]), ensure_ascii=rng.random() < 0.5).encode()
        yield content if rng.random() < 0.9 else content[: rng.randint(0, len(content))] + b"\xff"


async def one_by_one(port, requests):
    """Send requests over one connection, each after the answer to the one before; return the statuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    statuses = []
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        statuses.append(status_of(head))
        assert b"content-length: 0" in head.lower()
    writer.close()
    await writer.wait_closed()
    return statuses


async def test_transparent_means_the_same_bytes_for_what_a_real_prometheus_sent(transparent, alertmanager):
    requests = recorded()
    sent = [request["head"].encode() + request["body"].encode() for request in requests]
    assert await one_by_one(transparent.data_port, sent) == [200] * len(sent)
    assert len(alertmanager.received) == 41
    for request, received in zip(requests, alertmanager.received, strict=True):
        assert received.body == request["body"].encode()
        # The order of headers means nothing in HTTP; their names, values and number do.
        head = request["head"].removesuffix("\r\n\r\n").split("\r\n")
        assert received.line == head[0]
        assert sorted(": ".join(pair) for pair in received.headers) == sorted(head[1:])


async def test_transparent_means_the_same_bytes_for_generated_bodies(transparent, alertmanager):
    bodies = list(generated(500))
    await one_by_one(transparent.data_port, [post(content, close=False) for content in bodies])
    assert [received.body for received in alertmanager.received] == bodies


@pytest.mark.parametrize("mode", ["transparent", "enriched", "transparent_with_recommendations"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[", id="bad JSON"),
        pytest.param(b'{"labels":{"a":"b"}}', id="not an array"),
        pytest.param(b'[{"labels":1}]', id="wrong types"),
        pytest.param(b'[{"labels":{"a":"\xff"}}]', id="invalid UTF-8"),
        pytest.param(b'[{"LABELS":{"alertname":"A"}}]', id="LABELS"),
        pytest.param(b'[{"labels":{"alertname":"A"},"annotations":null}]', id="null annotations"),
        pytest.param(b"[null]", id="null"),
        pytest.param(b"[]", id="no alerts"),
        pytest.param(b"null", id="null instead of an array"),
        pytest.param(gzip.compress(body(posted())), id="gzip without saying so"),
    ],
)
async def test_a_body_that_is_not_understood_goes_as_it_came(alertmanager, model, mode, content):
    refusal = answer("400 Bad Request", b'{"code":400,"message":"no"}', Content_Type="application/json", X_Own="1")
    alertmanager.respond = lambda _: refusal
    async with build(settings(alertmanager.url, enrichment__mode=mode), model=model) as running:
        raw = await exchange(running.data_port, post(content))
    assert [received.body for received in alertmanager.received] == [content]
    assert status_of(raw) == 400
    assert raw.endswith(b'\r\n\r\n{"code":400,"message":"no"}')
    assert b"X-Own: 1" in raw
    assert model.asked == []


def post_with(header, content, **options):
    """A POST with one more header."""
    return post(content, **options).replace(b"Connection: close", b"Connection: close\r\n" + header.encode())


@pytest.mark.parametrize(
    ("header", "content_type", "encode"),
    [
        pytest.param("Content-Encoding: gzip", "application/json", gzip.compress, id="gzip"),
        pytest.param("X-Nothing: 1", "text/plain", bytes, id="not JSON by its type"),
    ],
)
async def test_what_is_not_plain_json_is_not_looked_into(enriched, alertmanager, model, header, content_type, encode):
    content = encode(body(posted()))  # here, not in the table: an old alert would be left alone anyway
    await exchange(enriched.data_port, post_with(header, content, content_type=content_type))
    [received] = alertmanager.received
    assert received.body == content
    assert received.header("Content-Encoding") == ("gzip" if "gzip" in header else None)
    assert model.asked == []


async def test_a_content_encoding_that_is_not_true_is_ignored_as_alertmanager_does(enriched, alertmanager):
    await exchange(enriched.data_port, post_with("Content-Encoding: gzip", body(posted())))
    [received] = alertmanager.received
    assert received.header("Content-Encoding") == "gzip"
    assert received.alerts[0]["labels"]["ai_severity"] == "critical"


@pytest.mark.parametrize(
    "path",
    ["/api/v2/alerts", "/api/v2/alerts/", "/am/api/v2/alerts", "/deep/er/api/v2/alerts/?x=1&x=2&y=%22%24"],
)
async def test_alerts_are_enriched_whatever_the_route_prefix(enriched, alertmanager, path):
    raw = await exchange(enriched.data_port, post(body(posted()), path))
    assert status_of(raw) == 200
    [received] = alertmanager.received
    assert received.line == f"POST {path} HTTP/1.1"
    assert received.alerts[0]["labels"]["ai_severity"] == "critical"
    assert received.header("Content-Length") == str(len(received.body))


@pytest.mark.parametrize("path", ["/api/v2/silences", "/api/v1/alerts", "/api/v2/alerts/groups", "//x/..%2F"])
async def test_other_posts_pass_untouched(enriched, alertmanager, path):
    content = body(posted())
    await exchange(enriched.data_port, post(content, path))
    assert [(r.line, r.body) for r in alertmanager.received] == [(f"POST {path} HTTP/1.1", content)]


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/a/../b",
        "/%2F%41?filter=a%3D%22b%22&filter=c=~\"d|e\"&x='$'",
        "//double//slash",
        "/a%00b;c=d?e",
    ],
)
async def test_path_and_query_arrive_as_they_were_sent(transparent, alertmanager, target):
    request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1")
    await exchange(transparent.data_port, request)
    assert alertmanager.received[0].head.split(b"\r\n")[0].decode("latin-1") == f"GET {target} HTTP/1.1"


async def test_the_absolute_form_means_our_alertmanager(transparent, alertmanager):
    await exchange(
        transparent.data_port, b"GET http://elsewhere:1/-/ready?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert alertmanager.received[0].line == "GET /-/ready?a=b HTTP/1.1"


@pytest.mark.parametrize("absolute", ["http://foo/api/v2/alerts", "http://foo?x/api/v2/alerts"])
async def test_what_is_enriched_is_what_alertmanager_takes_as_alerts(enriched, alertmanager, absolute):
    await exchange(enriched.data_port, post(body(posted()), absolute))
    [received] = alertmanager.received
    assert ("ai_severity" in received.alerts[0]["labels"]) is received.line.startswith("POST /api/v2/alerts HTTP")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
async def test_every_method_passes(transparent, alertmanager, method):
    await exchange(transparent.data_port, f"{method} /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert alertmanager.received[0].line == f"{method} /x HTTP/1.1"


async def test_nothing_is_added_to_a_request(transparent, alertmanager):
    await exchange(
        transparent.data_port, b"GET /x HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nX-A: 2\r\nConnection: close\r\n\r\n"
    )
    assert alertmanager.received[0].headers == [("Host", "x"), ("X-A", "1"), ("X-A", "2")]


async def test_headers_of_one_connection_stay_there(transparent, alertmanager):
    await exchange(
        transparent.data_port,
        b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Proxy-Authorization: Basic eA==\r\nAuthorization: Basic eA==\r\n\r\n",
    )
    assert alertmanager.received[0].headers == [("Host", "x"), ("Authorization", "Basic eA==")]


async def test_the_answer_has_alertmanagers_headers_and_no_others(transparent, alertmanager):
    alertmanager.respond = lambda _: answer("200 OK", b"hi", Date="D", Vary="Origin", ETag='"1"', Set_Cookie="a=b")
    raw = await exchange(transparent.data_port, b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, content = raw.partition(b"\r\n\r\n")
    names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    assert names == {b"date", b"vary", b"etag", b"set-cookie", b"content-length", b"connection"}
    assert content == b"hi"


async def test_no_cookie_is_remembered(transparent, alertmanager):
    alertmanager.respond = lambda _: answer("200 OK", Set_Cookie="a=b")
    for _ in range(2):
        await exchange(transparent.data_port, b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert alertmanager.received[1].header("Cookie") is None


@pytest.mark.parametrize("location", ["/elsewhere", "http://127.0.0.1:1/"])
@pytest.mark.parametrize("request_line", [b"GET /x", b"POST /api/v2/alerts"])
async def test_redirects_are_relayed_and_not_followed(transparent, alertmanager, location, request_line):
    alertmanager.respond = lambda _: answer("302 Found", Location=location)
    raw = await exchange(
        transparent.data_port, request_line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    assert status_of(raw) == 302
    assert f"Location: {location}".encode() in raw
    assert len(alertmanager.received) == 1


async def test_head_keeps_its_content_length(transparent, alertmanager):
    alertmanager.respond = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"
    raw = await exchange(transparent.data_port, b"HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"Content-Length: 1234" in raw
    assert raw.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body_end_at_their_head(transparent, alertmanager, status):
    alertmanager.respond = lambda _: f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode()
    raw = await asyncio.wait_for(
        exchange(transparent.data_port, b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 5
    )
    assert raw.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert raw.endswith(b"\r\n\r\n")


async def test_compressed_answers_stay_compressed(transparent, alertmanager):
    packed = gzip.compress(b"metrics " * 1000)
    alertmanager.respond = lambda _: answer("200 OK", packed, Content_Encoding="gzip")
    raw = await exchange(
        transparent.data_port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
    )
    assert raw.endswith(b"\r\n\r\n" + packed)
    assert alertmanager.received[0].header("Accept-Encoding") == "gzip"


async def test_answers_are_streamed(transparent, alertmanager):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    alertmanager.respond = lambda _: chunked
    reader, writer = await asyncio.open_connection("127.0.0.1", transparent.data_port)
    writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    # The answer's end never comes; its first part does.
    assert (await asyncio.wait_for(reader.readuntil(b"first"), 5)).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await alertmanager.stop()


async def test_an_answer_that_breaks_off_breaks_off(alertmanager):
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
    sent = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(half)
        await writer.drain()
        await sent.wait()
        writer.close()

    async with serving(serve) as port, build(settings(f"http://127.0.0.1:{port}")) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.data_port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"half")
        sent.set()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_body_beyond_a_mebibyte_passes_in_every_mode(enriched, alertmanager):
    big = body(*(posted("A", pod=f"p{n}", filler="x" * 10_000) for n in range(300)))
    assert len(big) > 3_000_000
    assert status_of(await exchange(enriched.data_port, post(big))) == 200
    [received] = alertmanager.received
    assert len(received.alerts) == 300
    assert all(alert["labels"]["ai_severity"] == "critical" for alert in received.alerts)


async def test_a_body_beyond_the_limit_is_streamed_as_it_came(alertmanager):
    big = body(*(posted("A", pod=f"p{n}") for n in range(3000)))
    assert len(big) > 500_000
    given = settings(alertmanager.url, enrichment__mode="enriched", web__max_body_size="64KiB")
    async with build(given, model=FakeModel()) as running:
        assert status_of(await exchange(running.data_port, post(big))) == 200
    assert [received.body for received in alertmanager.received] == [big]
    assert alertmanager.received[0].header("Content-Length") == str(len(big))


async def test_a_chunked_body_is_enriched_too(enriched, alertmanager):
    content = body(posted())
    request = post(content).replace(f"Content-Length: {len(content)}".encode(), b"Transfer-Encoding: chunked")
    head = request.removesuffix(content)
    await exchange(enriched.data_port, head + f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n")
    [received] = alertmanager.received
    assert received.alerts[0]["labels"]["ai_severity"] == "critical"
    assert received.header("Transfer-Encoding") is None


async def test_expect_100_continue_is_answered_before_the_body(enriched, alertmanager):
    content = body(posted())
    head = post(content).removesuffix(content).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", enriched.data_port)
    writer.write(head)
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(content)
    assert status_of(await asyncio.wait_for(reader.read(), 5)) == 200
    writer.close()
    assert alertmanager.received[0].header("Expect") is None


async def test_http_1_0_is_answered_and_closed(enriched, alertmanager):
    content = body(posted())
    request = post(content).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Connection: close\r\n", b"")
    raw = await asyncio.wait_for(exchange(enriched.data_port, request), 5)
    assert status_of(raw) == 200
    assert alertmanager.received[0].alerts[0]["labels"]["ai_severity"] == "critical"


async def test_one_connection_serves_many_requests_and_so_does_the_one_upstream(transparent, alertmanager):
    await one_by_one(transparent.data_port, [post(body(posted()), close=False)])
    own_questions_and_this = alertmanager.connections
    await one_by_one(transparent.data_port, [post(body(posted()), close=False)] * 20)
    assert alertmanager.connections == own_questions_and_this


async def test_a_4xx_to_our_text_is_followed_by_the_labels_alone(enriched, alertmanager):
    alertmanager.respond = lambda r: answer("400 Bad Request", b"no") if b"ai_summary" in r.body else OK
    raw = await exchange(enriched.data_port, post(body(posted())))
    assert status_of(raw) == 200
    first, second = (received.alerts[0] for received in alertmanager.received)
    assert first["labels"] == second["labels"]
    assert "ai_summary" in first["annotations"]
    assert set(second["annotations"]) == {"summary"}


async def test_a_4xx_that_stays_is_relayed(enriched, alertmanager):
    alertmanager.respond = lambda _: answer("422 Unprocessable Entity", b"no")
    raw = await exchange(enriched.data_port, post(body(posted())))
    assert status_of(raw) == 422
    assert len(alertmanager.received) == 2


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"])
async def test_errors_of_alertmanager_are_relayed(transparent, alertmanager, status):
    alertmanager.respond = lambda _: answer(status, b"busy", Retry_After="1")
    raw = await exchange(transparent.data_port, post(body(posted())))
    assert raw.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert raw.endswith(b"busy")
    assert len(alertmanager.received) == 1


async def test_an_alertmanager_that_was_never_there_means_502_at_once(unused_tcp_port):
    async with build(settings(f"http://127.0.0.1:{unused_tcp_port}")) as running:
        begun = time.monotonic()
        raw = await exchange(running.data_port, post(body(posted())))
        took = time.monotonic() - begun
        other = await exchange(running.data_port, b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (status_of(raw), status_of(other)) == (502, 502)
    assert b"Alertmanager at http://127.0.0.1" in raw
    assert took < forwarder.RETRY_FOR / 2


async def test_a_restart_of_alertmanager_loses_no_post(transparent, alertmanager):
    await exchange(transparent.data_port, post(body(posted())))
    await alertmanager.stop()
    pending = asyncio.create_task(exchange(transparent.data_port, post(body(posted("Late")))))
    await asyncio.sleep(0.7)
    assert not pending.done()
    await alertmanager.start()
    assert status_of(await pending) == 200
    assert alertmanager.received[-1].alerts[0]["labels"]["alertname"] == "Late"


async def test_an_alertmanager_that_stays_away_is_given_up_after_seconds(transparent, alertmanager, monkeypatch):
    monkeypatch.setattr(forwarder, "RETRY_FOR", 0.5)
    monkeypatch.setattr(forwarder, "RETRY_EVERY", (0.05, 0.05))
    await exchange(transparent.data_port, post(body(posted())))
    await alertmanager.stop()
    begun = time.monotonic()
    assert status_of(await exchange(transparent.data_port, post(body(posted())))) == 502
    assert 0.5 - 0.1 <= time.monotonic() - begun <= 0.5 + 0.5


async def test_a_connection_that_died_while_idle_costs_no_post(transparent, alertmanager):
    calls = []

    def dies_once(received):
        calls.append(received)
        return b"" if len(calls) == 2 else OK

    alertmanager.respond = dies_once
    assert await one_by_one(transparent.data_port, [post(body(posted()), close=False)] * 3) == [200, 200, 200]
    assert len(calls) == 4


async def test_an_alertmanager_that_hangs_means_504_in_time():
    async with (
        fake_alertmanager(respond=lambda _: None) as hanging,
        build(settings(hanging.url, alertmanager__timeout="500ms", enrichment__budget="100ms")) as running,
    ):
        begun = time.monotonic()
        raw = await exchange(running.data_port, post(body(posted())))
        assert status_of(raw) == 504
        assert 0.4 < time.monotonic() - begun < 3
        assert len(hanging.received) == 1


async def test_nothing_is_acknowledged_before_alertmanager_did(transparent, alertmanager):
    asked = asyncio.Event()

    def never(_):
        asked.set()

    alertmanager.respond = never
    reader, writer = await asyncio.open_connection("127.0.0.1", transparent.data_port)
    writer.write(post(body(posted())))
    await asyncio.wait_for(asked.wait(), 5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.3)
    writer.close()
    await alertmanager.stop()


async def test_a_sender_that_hangs_up_does_not_stop_its_post(enriched, alertmanager, model):
    model.answers = [None]
    _, writer = await asyncio.open_connection("127.0.0.1", enriched.data_port)
    writer.write(post(body(posted())))
    while not model.asked:
        await asyncio.sleep(0.01)
    writer.close()
    await writer.wait_closed()
    model.release.set()
    async with asyncio.timeout(5):
        while not alertmanager.received:
            await asyncio.sleep(0.01)
