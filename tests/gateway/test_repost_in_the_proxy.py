"""Late text through the whole proxy, in front of an Alertmanager that keeps every byte."""

import asyncio
import contextlib
import json
import time

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import RawTestServer
from fakes import OK, FakeModel, answer, body, exchange, post, posted, settings, stamp, status_of, verdict
from yarl import URL

from proxy.alert import identity
from proxy.app import build
from proxy.classification.classifier import unheard
from proxy.decisions.recovery import Recovery
from proxy.gateway.bodies import BodyMemory
from proxy.gateway.forwarder import Forwarder
from proxy.gateway.listener import DataListener
from proxy.gateway.pipeline import Pipeline, Prepared
from proxy.gateway.repost import Reposter

SOON = 0.3
"""Seconds after which a POST of ours, if there is one, has arrived."""


class Model(FakeModel):
    """Answers about an alert once it is told to."""

    def __init__(self):
        super().__init__()
        self.told = {}

    def tell(self, name):
        self.told.setdefault(name, asyncio.Event()).set()

    async def classify(self, alert, early=unheard, seconds=None):
        await self.told.setdefault(alert.name, asyncio.Event()).wait()
        return verdict()


@pytest.fixture
def model():
    return Model()


@pytest.fixture
async def proxy_with(alertmanager, model):
    async with contextlib.AsyncExitStack() as stack:

        async def make(mode="enriched", budget="100ms", **flags):
            chosen = settings(alertmanager.url, enrichment__mode=mode, enrichment__budget=budget, **flags)
            return await stack.enter_async_context(build(chosen, model=model))

        yield make


def data_listener(forwarder, pipeline, **options):
    return DataListener(
        forwarder,
        pipeline,
        prepare_within=1,
        body_limit=1000,
        memory=BodyMemory(1000),
        on_unread=lambda _: None,
        on_post=lambda _: None,
        on_fault=pytest.fail,
        **options,
    )


async def send(running, *alerts, content=None):
    assert status_of(await exchange(running.data_port, post(content or body(*alerts)))) == 200


def texts(received):
    return {alert["labels"]["alertname"]: alert["annotations"].get("ai_model") for alert in received.alerts}


@pytest.mark.parametrize("mode", ["enriched", "transparent_with_recommendations"])
async def test_late_text_follows_by_itself(proxy_with, alertmanager, model, mode):
    proxy = await proxy_with(mode)
    mine, other = posted("Mine", severity="warning"), posted("Other")
    model.tell("Other")
    await send(proxy, other)
    await send(proxy, content=json.dumps([other, mine | {"unknown": [1.50, None]}], indent=1).encode())
    model.tell("Mine")
    await asyncio.sleep(SOON)
    *_, first, second = alertmanager.posts
    [_, before], [after] = first.alerts, second.alerts
    assert {**before, "annotations": None} == {**after, "annotations": None}
    assert (before["annotations"].get("ai_model"), after["annotations"]["ai_model"]) == (None, "fake-1")
    assert second.line == first.line
    kept = ("user-agent", "content-type", "host")
    assert [second.header(name) for name in kept] == [first.header(name) for name in kept]
    assert alertmanager.connections == 2, "of the two questions at the start"


async def test_text_that_lands_while_another_alert_is_waited_for_goes_with_the_post(proxy_with, alertmanager, model):
    proxy = await proxy_with(budget="400ms", alertmanager__timeout="5s")
    await send(proxy, posted("A"))
    second = asyncio.create_task(send(proxy, posted("A"), posted("B")))
    await asyncio.sleep(0.1)
    model.tell("A")
    await second
    await asyncio.sleep(SOON)
    assert [texts(received) for received in alertmanager.posts] == [
        {"A": None},
        {"A": "fake-1"},
        {"A": "fake-1", "B": None},
    ]


async def test_a_resolve_counts_from_the_moment_it_comes_in(proxy_with, alertmanager, model, monkeypatch):
    proxy = await proxy_with()
    firing = posted("A", begun=0.1)
    await send(proxy, firing)
    await asyncio.sleep(0.2)
    go = asyncio.Event()
    monkeypatch.setattr(Recovery, "settled", lambda *_: go.wait())
    resolve = asyncio.create_task(send(proxy, {**firing, "endsAt": stamp()}))
    await asyncio.sleep(0.1)
    model.tell("A")
    await asyncio.sleep(SOON)
    assert len(alertmanager.posts) == 1
    go.set()
    await resolve
    await asyncio.sleep(SOON)
    assert len(alertmanager.posts) == 2, "the resolve was the last"


async def test_a_resolve_and_a_firing_copy_in_one_post_are_a_resolve(proxy_with, alertmanager, model, monkeypatch):
    found, run = [], Pipeline.run

    async def noted(*args):
        found.append(await run(*args))
        return found[-1]

    monkeypatch.setattr(Pipeline, "run", noted)
    proxy = await proxy_with("transparent_with_recommendations")
    firing, other = posted("A", begun=-1), posted("B")
    await send(proxy, {**firing, "endsAt": stamp()}, firing, other)
    model.tell("A")
    await asyncio.sleep(SOON)
    assert len(alertmanager.posts) == 1
    [prepared] = found
    one, two = identity(firing["labels"]), identity(other["labels"])
    assert (set(prepared.identities), prepared.resolved) == ({one, two}, {one})
    assert [sent.alert.identity for sent in prepared.awaiting] == [two]


async def test_a_post_that_is_streamed_may_hold_a_resolve(proxy_with, alertmanager, model):
    proxy = await proxy_with(web__max_body_size="64KiB")
    firing = posted("A", begun=0.1)
    await send(proxy, firing)
    await asyncio.sleep(0.2)
    await send(proxy, *({**firing, "endsAt": stamp()} for _ in range(500)))
    model.tell("A")
    await asyncio.sleep(SOON)
    assert len(alertmanager.posts) == 2


async def test_text_that_alertmanager_has_refused_is_not_offered_again(proxy_with, alertmanager, model):
    proxy = await proxy_with()
    alertmanager.respond = lambda r: answer("400 Bad Request") if b"ai_source" in r.body else OK
    await send(proxy, posted("A"))
    model.tell("A")
    await asyncio.sleep(SOON)
    assert len(alertmanager.posts) == 2, "with the text, and without it"


async def test_an_alertmanager_that_was_slow_gets_no_text(proxy_with, alertmanager, model):
    def slow(_):
        time.sleep(1.05)
        return OK

    proxy = await proxy_with()
    alertmanager.respond = slow
    await send(proxy, posted("A"))
    model.tell("A")
    await asyncio.sleep(SOON)
    assert len(alertmanager.posts) == 1


async def test_a_connection_that_breaks_is_no_bug_and_no_text(proxy_with, alertmanager, model, capsys):
    proxy = await proxy_with()
    await send(proxy, posted("A"))
    alertmanager.respond = lambda _: b""
    model.tell("A")
    await asyncio.sleep(SOON)
    assert len(alertmanager.posts) == 2, "one attempt"
    said = capsys.readouterr().out
    assert "text that landed late goes with the next resend" in said
    assert "a bug" not in said


async def test_after_a_switch_to_transparent_no_text_follows(proxy_with, alertmanager, model):
    proxy = await proxy_with()
    await send(proxy, posted("A"))
    async with ClientSession() as client:
        address = f"http://127.0.0.1:{proxy.admin_port}/enrichment/mode"
        async with client.post(address, json={"mode": "transparent"}) as switched:
            assert switched.status == 200
    model.tell("A")
    await asyncio.sleep(SOON)
    assert len(alertmanager.posts) == 1


async def test_in_transparent_mode_no_text_is_awaited(proxy_with, alertmanager, model):
    proxy = await proxy_with()
    await send(proxy, posted("A"))
    async with ClientSession() as client:
        address = f"http://127.0.0.1:{proxy.admin_port}/enrichment/mode"
        for mode in ("transparent", "enriched"):
            async with client.post(address, json={"mode": mode}) as switched:
                assert switched.status == 200
            if mode == "transparent":
                await send(proxy, posted("A"), posted("B"))
    model.tell("A")
    await asyncio.sleep(SOON)
    # What the POST in transparent mode said about it is the latest, and that was: no text.
    assert len(alertmanager.posts) == 2


async def test_a_bug_in_the_text_costs_no_alert(proxy_with, alertmanager, model, monkeypatch):
    proxy = await proxy_with()
    await send(proxy, posted("A"))
    monkeypatch.setattr(Forwarder, "send", lambda *_: 1 / 0)
    model.tell("A")
    await asyncio.sleep(SOON)
    await send(proxy, posted("A"))
    assert texts(alertmanager.posts[-1]) == {"A": "fake-1"}


async def test_the_end_gives_what_is_under_way_a_second(alertmanager, model):
    alertmanager.respond = lambda received: OK if "fake-1" not in received.body.decode() else None
    async with build(
        settings(alertmanager.url, enrichment__mode="enriched", enrichment__budget="100ms"), model=model
    ) as proxy:
        model.tell("Other")
        await send(proxy, posted("A"), posted("B"), posted("C"))
        model.tell("A")
        await asyncio.sleep(SOON)
        begun = time.monotonic()
    assert len(alertmanager.posts) == 2
    assert time.monotonic() - begun < 2.5
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "re-post"]


async def test_a_listener_that_is_drained_posts_nothing_more(alertmanager):
    async with ClientSession() as session:
        forwarder = Forwarder(session, session, URL(alertmanager.url), 5, lambda _: None)
        reposter = Reposter(decision_of=lambda _: None, post=forwarder.send, on_outcome=pytest.fail)
        drained = data_listener(forwarder, None, reposter=reposter)
        reposter.text_landed(identity({"alertname": "A"}))
        await drained.drained(1)
        assert reposter._tidy_timer is None


async def test_a_listener_without_it_forwards_all_the_same(alertmanager):
    class AsItCame:
        idle = False

        async def run(self, content):
            return Prepared(content)

    async with ClientSession() as session:
        forwarder = Forwarder(session, session, URL(alertmanager.url), 5, lambda _: None)
        bare = data_listener(forwarder, AsItCame())
        async with RawTestServer(bare.handle) as server:
            for alerts in ([posted()], [posted()] * 20):
                assert status_of(await exchange(server.port, post(body(*alerts)))) == 200
        await bare.drained(1)
    assert [len(received.alerts) for received in alertmanager.posts] == [1, 20]
