"""What a whole proxy counts, and how it ends."""

import asyncio
import re

from built import Proxy
from fakes import (
    FakeModel,
    answer,
    body,
    exchange,
    fake_alertmanager,
    post,
    posted,
    settings,
    status_of,
    verdict,
)

from proxy import app
from proxy.errors import ClassifierTimeout


async def test_posts_are_counted_by_the_code_the_sender_got(alertmanager, proxy_with, unused_tcp_port):
    proxy = await proxy_with(settings(alertmanager.url))
    for status in ("200 OK", "400 Bad Request", "400 Bad Request"):
        alertmanager.respond = lambda _, status=status: answer(status)
        await exchange(proxy.running.data_port, post(body(posted())))
    await exchange(proxy.running.data_port, post(body(posted()), "/api/v2/silences"))
    assert await proxy.metrics("aiproxy_posts_total") == {
        'aiproxy_posts_total{code="200"}': 1,
        'aiproxy_posts_total{code="400"}': 2,
    }
    away = await proxy_with(settings(f"http://127.0.0.1:{unused_tcp_port}"))
    await exchange(away.running.data_port, post(body(posted())))
    assert await away.metrics("aiproxy_posts_total") == {'aiproxy_posts_total{code="502"}': 1}


async def test_a_post_without_an_answer_is_counted_as_504(proxy_with):
    async with fake_alertmanager(respond=lambda _: None) as hanging:
        proxy = await proxy_with(settings(hanging.url, alertmanager__timeout="300ms", enrichment__budget="100ms"))
        await exchange(proxy.running.data_port, post(body(posted())))
        assert await proxy.metrics("aiproxy_posts_total") == {'aiproxy_posts_total{code="504"}': 1}


async def test_calls_of_the_model_are_counted_by_outcome_and_waits_by_post(alertmanager, proxy_with):
    model = FakeModel([verdict(), ClassifierTimeout("x"), ClassifierTimeout("x"), ZeroDivisionError()])
    proxy = await proxy_with(settings(alertmanager.url, enrichment__mode="enriched"), model)
    assert await proxy.metric("aiproxy_model_usable") == 1
    for n in range(4):
        await proxy.post(posted(f"A{n}"))
    await proxy.post(posted("A0", pod="cached"))
    assert await proxy.metrics("aiproxy_model_call_duration_seconds_count") == {
        'aiproxy_model_call_duration_seconds_count{outcome="ok"}': 1,
        'aiproxy_model_call_duration_seconds_count{outcome="timeout"}': 2,
        'aiproxy_model_call_duration_seconds_count{outcome="bug"}': 1,
    }
    assert await proxy.metric("aiproxy_post_waited_seconds_count") == 4


async def test_repeated_attempts_are_counted_by_cause(alertmanager, proxy_with):
    proxy = await proxy_with(settings(alertmanager.url))
    await proxy.post(posted())
    replies = [b"", answer("200 OK")]
    alertmanager.respond = lambda _: replies.pop(0)
    await proxy.post(posted())
    assert await proxy.metrics("aiproxy_upstream_retries_total") == {
        'aiproxy_upstream_retries_total{cause="disconnected"}': 1
    }
    await alertmanager.stop()
    pending = asyncio.create_task(exchange(proxy.running.data_port, post(body(posted()))))
    async with asyncio.timeout(5):
        while not await proxy.metric('aiproxy_upstream_retries_total{cause="refused"}'):
            await asyncio.sleep(0.02)
    alertmanager.respond = lambda _: answer("200 OK")
    await alertmanager.start()
    assert status_of(await pending) == 200


async def test_a_model_that_is_off_is_not_usable(alertmanager, proxy_with):
    proxy = await proxy_with(settings(alertmanager.url))
    assert await proxy.metric("aiproxy_model_usable") == 0
    assert await proxy.metric("aiproxy_model_enabled") == 0


async def test_decisions_are_counted(alertmanager, proxy_with):
    proxy = await proxy_with(settings(alertmanager.url, enrichment__mode="enriched"))
    await proxy.post(posted(), posted("Old", begun=-60), posted("Watchdog"))
    await proxy.reaches("aiproxy_decisions_unkept", 0)
    assert await proxy.metrics("aiproxy_decisions") == {
        "aiproxy_decisions_living": 3,
        "aiproxy_decisions_labelled": 1,
        "aiproxy_decisions_bare": 2,
        "aiproxy_decisions_unkept": 0,
    }
    counted = (await proxy.status())["decisions"]
    assert counted == {"living": 3, "labelled": 1, "bare": 2, "handing_over": 0, "full": False}


async def test_while_it_stops_it_is_not_ready_and_still_healthy(alertmanager):
    """A POST in flight keeps the end waiting; whoever balances the load must hear of it at once."""
    model, started, stop = FakeModel([None]), asyncio.get_running_loop().create_future(), asyncio.Event()

    async def serve():
        given = settings(alertmanager.url, enrichment__mode="enriched", enrichment__budget="8s")
        async with app.build(given, model=model) as running:
            started.set_result(running)
            await stop.wait()

    served = asyncio.create_task(serve())
    proxy = Proxy(alertmanager, await started, model)
    pending = asyncio.create_task(exchange(proxy.running.data_port, post(body(posted()))))
    async with asyncio.timeout(5):
        while not model.asked:
            await asyncio.sleep(0.01)
    assert (await proxy.get("/-/ready"))[0] == 200

    stop.set()
    await asyncio.sleep(0)
    status, text = await proxy.get("/-/ready")
    assert (status, "shutting down" in text) == (503, True)
    assert '"ready": false' in (await proxy.get("/api/v1/status"))[1]
    assert (await proxy.get("/-/healthy"))[0] == 200
    assert not served.done()

    model.release.set()
    assert status_of(await pending) == 200
    await asyncio.wait_for(served, 5)
    assert re.fullmatch("info|noise|warning|critical", alertmanager.posts[0].alerts[0]["labels"]["ai_severity"])
