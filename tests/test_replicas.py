"""Proxies of one real Redis, and one of a real file: a switch reaches all, outlives restarts, and never flips back."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import ClientSession
from fakes import FakeModel, body, exchange, fake_alertmanager, post, posted, settings, verdict
from redis_servers import redis_server

from proxy.app import build
from proxy.classification.classification import Severity
from proxy.decisions import reach
from proxy.decisions.stores.redis import RedisStore


class Proxy:
    def __init__(self, alertmanager, running):
        self.alertmanager, self.running = alertmanager, running

    async def ask(self, path, content=None):
        async with ClientSession(f"http://127.0.0.1:{self.running.admin_port}") as client:
            asked = client.get(path) if content is None else client.post(path, json=content)
            async with asked as answered:
                return answered.status, await answered.json()

    async def mode(self):
        return (await self.ask("/enrichment/mode"))[1]["mode"]

    async def follows(self, mode):
        async with asyncio.timeout(5):
            while await self.mode() != mode:
                await asyncio.sleep(0.02)

    async def labels(self, *alerts):
        await exchange(self.running.data_port, post(body(*alerts)))
        return [got["labels"].get("ai_severity") for got in self.alertmanager.posts[-1].alerts]


@asynccontextmanager
async def proxy(store_url, model=None, *, peers=0, **flags):
    async with fake_alertmanager(peers=peers) as am:
        given = settings(am.url, **{"enrichment__mode": "transparent", "store__url": store_url} | flags)
        async with build(given, model=model) as running:
            yield Proxy(am, running)


@pytest.fixture
def redis(tmp_path):
    with redis_server(tmp_path) as server:
        yield server


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "the announcement is missed"])
async def test_a_switch_at_one_proxy_reaches_the_other(redis, monkeypatch, announced):
    async def deaf(_):
        await asyncio.Event().wait()
        yield

    if not announced:
        monkeypatch.setattr(RedisStore, "changes", deaf)
    async with proxy(redis.url) as one, proxy(redis.url) as other:
        status, now = await one.ask("/enrichment/mode", {"mode": "enriched", "by": "anna"})
        assert (status, now["mode"], now["source"], now["switched"]["by"]) == (200, "enriched", "redis", "anna")
        await other.follows("enriched")
        assert (await other.ask("/enrichment/mode"))[1]["switched"] == now["switched"]


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
async def test_a_switch_outlives_a_restart_and_can_be_reset(redis, tmp_path, kind):
    url = redis.url if kind == "redis" else f"sqlite:{tmp_path}/decisions.db"
    async with proxy(url) as before:
        await before.ask("/enrichment/mode", {"mode": "enriched"})
    async with proxy(url) as after:
        assert (await after.ask("/enrichment/mode"))[1]["source"] == kind
        assert await after.mode() == "enriched"
        assert (await after.ask("/enrichment/mode/reset", {}))[1]["mode"] == "transparent"
    async with proxy(url) as later:
        assert (await later.ask("/enrichment/mode"))[1] | {"canary": None} == {
            "mode": "transparent",
            "source": "config",
            "switched": None,
            "canary": None,
        }


async def test_several_proxies_of_one_store_may_be_switched(redis):
    several = {"alertmanager__replicas": "2"}
    async with proxy(redis.url, **several) as one, proxy(redis.url, **several) as other:
        async with asyncio.timeout(5):
            while len((await one.ask("/api/v1/status"))[1]["replicas"]["peers"]) < 2:
                await asyncio.sleep(0.02)
        assert (await one.ask("/enrichment/mode", {"mode": "enriched"}))[0] == 200
        await other.follows("enriched")
    async with proxy("memory:", **several) as alone:
        status, answer = await alone.ask("/enrichment/mode", {"mode": "enriched"})
        assert (status, "set store.url to a Redis" in answer["error"]) == (409, True)


async def test_labelling_goes_on_at_others_while_one_does_not_label(redis):
    """Were it taken for over, an alert that fires would count as older than labelling after a restart."""

    async def since(one):
        return (await one.ask("/api/v1/status"))[1]["labelling_since"]

    async with AsyncExitStack() as stack:
        labels = await stack.enter_async_context(proxy(redis.url, enrichment__mode="enriched"))
        begun = await since(labels)
        async with proxy(redis.url):
            await asyncio.sleep(1.2)  # each has heard of the other
            await stack.aclose()
            async with proxy(redis.url, enrichment__mode="enriched") as again:
                assert await since(again) == begun


async def test_a_redis_that_goes_away_or_is_emptied_flips_no_mode(redis):
    async with proxy(redis.url) as one, proxy(redis.url) as other:
        await one.ask("/enrichment/mode", {"mode": "enriched"})
        await other.follows("enriched")
        redis.kill()
        await asyncio.sleep(1.2)
        assert [await one.mode(), await other.mode()] == ["enriched", "enriched"]
        assert (await one.ask("/enrichment/mode", {"mode": "transparent"}))[0] == 503, "it could not be kept"
        assert await one.mode() == "enriched"
        redis.start()  # empty
        async with asyncio.timeout(10):
            while not (await one.ask("/api/v1/status"))[1]["store"]["up"]:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.2)
        assert [await one.mode(), await other.mode()] == ["enriched", "enriched"]
    async with proxy(redis.url) as third:
        assert await third.mode() == "enriched", "they have written it again"


async def test_labels_are_by_the_rules_until_all_have_noticed_that_the_store_is_back(redis, monkeypatch):
    monkeypatch.setattr(reach, "QUARANTINE", 1.5)
    async with proxy(redis.url, FakeModel([verdict(Severity.NOISE)]), enrichment__mode="enriched") as one:

        async def by_rules():
            return (await one.ask("/api/v1/status"))[1]["labels_by_rules"]

        await asyncio.sleep(2.1)
        assert await by_rules() == ""
        redis.kill()
        async with asyncio.timeout(5):
            while not await by_rules():
                await asyncio.sleep(0.02)
        redis.start()
        async with asyncio.timeout(5):
            while not (await one.ask("/api/v1/status"))[1]["store"]["up"]:
                await asyncio.sleep(0.02)
        assert await by_rules() == "the shared store is away, or has just come back"
        assert await one.labels(posted("JustBack", severity="warning")) == ["warning"]
        async with asyncio.timeout(5):
            while await by_rules():
                await asyncio.sleep(0.02)
        assert await one.labels(posted("Later", severity="warning")) == ["noise"]


async def test_a_switch_for_a_while_ends_on_all_proxies(redis):
    async with proxy(redis.url) as one, proxy(redis.url) as other:
        status, now = await one.ask("/enrichment/mode", {"mode": "transparent_with_recommendations", "for": "2s"})
        assert (status, now["mode"]) == (200, "transparent_with_recommendations")
        await other.follows("transparent_with_recommendations")
        await one.follows("transparent")
        await other.follows("transparent")
        assert (await one.ask("/enrichment/mode"))[1]["source"] == "config"


async def test_a_proxy_that_does_not_label_sends_what_one_that_does_has_decided(redis):
    """As while a roll-out is under way: one configuration is new, one is old."""
    model = FakeModel([verdict(Severity.NOISE)])
    async with proxy(redis.url, model, enrichment__mode="enriched") as new, proxy(redis.url) as old:
        await asyncio.sleep(2.6)  # labelling begins with a lead, and each has heard of the other
        alert = posted("Begins", severity="warning")
        assert await new.labels(alert) == ["noise"]
        assert await old.labels(alert) == ["noise"]
        other = posted("Other", severity="warning")
        assert await old.labels(other) == [None]
        assert await new.labels(other) == [None], "bare is a decision, too"


async def test_what_is_forgotten_at_one_proxy_is_forgotten_at_the_other(redis):
    models = [FakeModel([verdict(severity)]) for severity in (Severity.NOISE, Severity.INFO)]
    async with (
        proxy(redis.url, models[0], enrichment__mode="enriched", llm__enable_cache="false") as one,
        proxy(redis.url, models[1], enrichment__mode="enriched", llm__enable_cache="false") as other,
    ):
        await asyncio.sleep(2.1)
        alert = posted("Flaps", severity="warning")
        assert [await one.labels(alert), await other.labels(alert)] == [["noise"], ["noise"]]
        status, answer = await one.ask("/api/v1/decisions/forget", {"filter": ['alertname="Flaps"']})
        assert (status, answer) == (200, {"forgotten": 1})
        async with asyncio.timeout(5):
            while (await other.ask("/api/v1/status"))[1]["decisions"]["living"]:
                await asyncio.sleep(0.02)
        # Decided anew, and what each Alertmanager held is ended with the same POST.
        assert await other.labels(alert) == ["info", "noise"]
        assert await one.labels(alert) == ["info", "noise"]
        assert await one.labels(alert) == ["info"]


async def test_a_proxy_that_misses_another_in_the_store_labels_by_the_rules_as_that_one_does(redis):
    """A Redis that is cut off from one of two: neither knows what the other one decides."""
    models = [FakeModel([verdict(Severity.NOISE)]) for _ in range(2)]
    flags = {"peers": 2, "enrichment__mode": "enriched", "llm__enable_cache": "false"}
    async with proxy(redis.url, models[0], **flags) as one:
        await asyncio.sleep(2.1)
        assert (await one.ask("/api/v1/status"))[1]["labels_by_rules"] == "only 1 of 2 proxies reach the shared store"
        assert await one.labels(posted("Alone", severity="warning")) == ["warning"]
        async with proxy(redis.url, models[1], **flags):
            async with asyncio.timeout(5):
                while (await one.ask("/api/v1/status"))[1]["labels_by_rules"]:
                    await asyncio.sleep(0.05)
            assert await one.labels(posted("Together", severity="warning")) == ["noise"]
        async with asyncio.timeout(10):
            while not (await one.ask("/api/v1/status"))[1]["labels_by_rules"]:
                await asyncio.sleep(0.1)
        assert await one.labels(posted("AloneAgain", severity="warning")) == ["warning"]


@pytest.fixture
def other(redis):
    """Another proxy, as far as the store tells: it is heard of, and says whether it can use it."""

    def says(**me):
        with redis.client() as client:
            [seconds, _] = client.time()
            client.hset("{aiproxy}:peers", "other", f"{seconds} {json.dumps(me)}")

    return says


async def test_a_proxy_that_is_heard_of_and_cannot_use_the_store_is_missing_all_the_same(redis, other):
    """As one whose answers come too late: it labels by the rules."""
    async with proxy(redis.url, FakeModel([verdict()]), peers=2, enrichment__mode="enriched") as one:

        async def by_rules():
            return (await one.ask("/api/v1/status"))[1]["labels_by_rules"]

        other(reaches=False)
        await asyncio.sleep(0.7)
        assert len((await one.ask("/api/v1/status"))[1]["replicas"]["peers"]) == 2
        assert await by_rules() == "only 1 of 2 proxies reach the shared store"
        other(reaches=True)
        async with asyncio.timeout(5):
            while await by_rules():
                await asyncio.sleep(0.02)


async def test_a_switch_waits_for_a_proxy_that_cannot_follow_unless_somebody_insists(redis, other):
    async with proxy(redis.url, peers=2) as one:
        await asyncio.sleep(0.7)
        status, answer = await one.ask("/enrichment/mode", {"mode": "enriched"})
        assert (status, answer["error"][:42]) == (409, "only 1 of 2 proxies reach the shared store")
        assert await one.mode() == "transparent"
        assert (await one.ask("/enrichment/mode", {"mode": "enriched", "force": True}))[0] == 200
        assert (await one.ask("/enrichment/mode/reset", {}))[1]["mode"] == "transparent"
        other(reaches=True)
        async with asyncio.timeout(5):
            while (await one.ask("/enrichment/mode", {"mode": "enriched"}))[0] != 200:
                await asyncio.sleep(0.02)


async def test_a_proxy_that_starts_while_redis_is_frozen_goes_on_as_it_was_switched(redis, tmp_path):
    remembers = {"storage__path": str(tmp_path / "data")}
    async with proxy(redis.url, **remembers) as one:
        await one.ask("/enrichment/mode", {"mode": "transparent_with_recommendations", "by": "ada"})
    redis.freeze()
    async with proxy(redis.url, **remembers) as again, proxy(redis.url) as unknowing:
        assert await again.mode() == "transparent_with_recommendations"
        assert await unknowing.mode() == "transparent"
        redis.thaw()
        await unknowing.follows("transparent_with_recommendations")
        assert (await again.ask("/enrichment/mode"))[1]["switched"]["by"] == "ada"
