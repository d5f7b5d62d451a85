"""What every VerdictStore keeps; each adapter runs all of it, against the real thing."""

import asyncio
import contextlib
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_servers import redis_server
from verdicts import RECORD, a_class, a_record, a_verdict

from proxy.classification import answers
from proxy.classification.cache import ClassCache
from proxy.classification.classification import Category, Confidence, Severity
from proxy.classification.stores import records
from proxy.classification.stores.redis import RedisVerdicts
from proxy.classification.verdicts import Cached
from proxy.decisions.stores.redis import RedisStore
from proxy.errors import StoreError, StoreTimeout
from proxy.storage.topology import topology

A, B, C = a_class("A"), a_class("B"), a_class("C")
YEAR = 366 * 24 * 3600.0

shared = pytest.mark.parametrize("kind", ["alone", "cluster", "sentinel"])


@pytest.fixture(params=["sqlite", "alone", "cluster", "sentinel"])
def kind(request):
    return request.param


@pytest.fixture
def store(opened):
    return opened()


async def test_an_empty_store_knows_nothing(store):
    assert dict(await store.get([A, B])) == {}
    assert dict(await store.get([])) == {}


@pytest.mark.parametrize(
    "verdict",
    [
        pytest.param(a_verdict(), id="with text"),
        pytest.param(a_verdict("noise", summary="", recommendations=(), model=""), id="bare"),
        pytest.param(
            a_verdict("critical", summary="日本語 🚨 " * 50, recommendations=("Ünïcödé, \"'\\",) * 3), id="long"
        ),
    ],
)
async def test_a_verdict_is_kept_whole(store, verdict):
    await store.put({A: Cached(verdict, 1234.5)})
    cached = (await store.get([A]))[A]
    assert cached.classification == verdict
    assert 1200 < cached.left <= 1234.5


async def test_of_many_classes_those_are_found_that_are_there(store):
    every = {a_class(f"{n}"): a_verdict(["critical", "info"][n % 2], summary=f"{n}") for n in range(300)}
    await asyncio.gather(*(store.put({key: Cached(verdict, 60)}) for key, verdict in every.items()))
    found = await store.get([*every, A])
    assert {key: cached.classification for key, cached in found.items()} == every


async def test_what_is_put_takes_the_place_of_what_was_there(store):
    await store.put({A: Cached(a_verdict("info"), 1000)})
    await store.put({A: Cached(a_verdict("critical"), 50)})
    cached = (await store.get([A]))[A]
    assert cached.classification == a_verdict("critical")
    assert cached.left <= 50


async def test_what_has_nothing_left_has_ended(store):
    await store.put({A: Cached(a_verdict(), 0.05)})
    await store.put({B: Cached(a_verdict(), 60)})
    await asyncio.sleep(0.1)
    assert set(await store.get([A, B])) == {B}


@pytest.mark.parametrize("ttl", [0, -1])
async def test_what_has_nothing_left_when_it_is_put_changes_nothing(store, ttl):
    await store.put({A: Cached(a_verdict("info"), 60)})
    for key in (A, B):
        await store.put({key: Cached(a_verdict("critical"), ttl)})
    found = await store.get([A, B])
    assert {key: cached.classification for key, cached in found.items()} == {A: a_verdict("info")}


async def test_nothing_is_kept_for_ever(store):
    await store.put({A: Cached(a_verdict(), 1e12)})
    assert YEAR - 60 < (await store.get([A]))[A].left <= YEAR


async def test_what_is_stored_is_what_the_verdict_says_and_nothing_else(store, inside):
    await store.put({A: Cached(replace(a_verdict(), rule="a rule"), 60)})
    assert json.loads(inside.read(A)) == RECORD


SPOILT = {
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "half a record": a_record()[:-5],
    "no object": b'["warning"]',
    "nothing": b"null",
    "a number of too many digits": b'{"format":' + b"1" * 5000 + b"}",
    "nesting without end": b"[" * 16_000,
    "of the format before": a_record(format=0),
    "of the format to come": a_record(format=2),
    "of no format": a_record(format=None),
    "an unknown severity": a_record(severity="urgent"),
    "no severity": a_record(severity=None),
    "a severity that is no text": a_record(severity=["critical"]),
    "an unknown category": a_record(category="weather"),
    "an unknown confidence": a_record(confidence="0.9"),
    "of no model": a_record(model=None),
    "a model that is no text": a_record(model={}),
    "a model with markup": a_record(model="<!channel>"),
    "a model that is a link": a_record(model="http://example.com"),
    "a model with control characters": a_record(model="gpt\x00"),
    "a model that is a novel": a_record(model="m" * 257),
    "a model that calls people": a_record(model="gpt @channel"),
    "a model that chats make a link of": a_record(model="www.evil.example/login"),
    "a summary that is no text": a_record(summary=5),
    "a summary that is a novel": a_record(summary="x" * 161),
    "recommendations that are none": a_record(recommendations="Look."),
    "more recommendations than are shown": a_record(recommendations=["Look."] * 4),
    "a recommendation that is a novel": a_record(recommendations=["x" * 121]),
    "too long": a_record() + b" " * records.LIMIT,
}


async def test_what_cannot_be_read_is_absent_and_gives_way(store, inside):
    await store.put({B: Cached(a_verdict(), 60)})
    keys = {what: a_class(what) for what in SPOILT}
    for what, key in keys.items():
        inside.write(key, SPOILT[what])
    inside.write(A, a_record())  # so that it is for no other reason
    found = await store.get([*keys.values(), A, B])
    assert {what for what, key in keys.items() if key in found} == set()
    assert set(found) == {A, B}
    for key in keys.values():
        await store.put({key: Cached(a_verdict(), 60)})
    assert set(await store.get([*keys.values()])) == set(keys.values())


async def test_text_from_a_poisoned_store_is_plain(store, inside):
    await store.put({B: Cached(a_verdict(), 60)})
    text = "See [here](http://example.com) <script>alert(1)</script> <!channel> now\x00\n"
    inside.write(A, a_record(summary=text, recommendations=[text]))
    verdict = (await store.get([A]))[A].classification
    assert (verdict.summary, verdict.recommendations) == ("See here alert(1) now", ("See here alert(1) now",))


# Leases


async def test_a_store_of_its_own_lets_everybody_ask(store):
    if not store.shared:
        assert await store.lease([A], "one", 60)
        assert await store.lease([A], "other", 60)
        await store.release([A], "one")


@shared
async def test_one_of_many_is_to_ask(opened):
    stores = [opened() for _ in range(5)]
    granted = await asyncio.gather(*(store.lease([A], f"{n}", 60) for n, store in enumerate(stores)))
    assert sorted(map(len, granted)) == [0, 0, 0, 0, 1]
    assert await stores[0].lease([B], "0", 60)


@shared
async def test_in_a_storm_of_classes_each_is_asked_about_by_one(opened):
    classes = [a_class(f"{n}") for n in range(1000)]
    caches = [ClassCache(3600, store=opened()) for _ in range(2)]
    turns = {(n, key): asyncio.create_task(cache.turn(key)) for n, cache in enumerate(caches) for key in classes}
    while sum(turn.done() for turn in turns.values()) < len(classes):
        await asyncio.sleep(0.01)
    asking = [key for (_, key), turn in turns.items() if turn.done() and turn.result() is None]
    assert sorted(asking) == sorted(classes)
    for (n, key), turn in turns.items():
        if turn.done():
            caches[n].keep(key, a_verdict())
    found = await asyncio.gather(*turns.values())
    assert [verdict is None for verdict in found].count(True) == len(classes)
    for cache in caches:
        await cache.close()


@shared
async def test_who_holds_a_lease_gets_it_again_and_for_longer(store, inside):
    assert await store.lease([A], "one", 30)
    assert await store.lease([A], "one", 60)
    assert 30_000 < inside.run("PTTL", "l", A) <= 60_000
    assert not await store.lease([A], "other", 60)


@shared
async def test_a_lease_is_given_back_by_its_holder_alone(store):
    assert await store.lease([A], "one", 60)
    await store.release([A], "other")
    assert not await store.lease([A], "other", 60)
    await store.release([A], "one")
    assert await store.lease([A], "other", 60)
    await store.release([B], "one")  # nobody's


@shared
async def test_a_lease_ends_by_itself(store):
    assert await store.lease([A], "one", 0.05)
    await asyncio.sleep(0.1)
    assert await store.lease([A], "other", 60)
    await store.release([A], "one")  # the one that it had has ended
    assert not await store.lease([A], "third", 60)


@shared
async def test_a_lease_keeps_nobody_from_the_verdict(store):
    assert await store.lease([A], "one", 60)
    await store.put({A: Cached(a_verdict(), 60)})
    assert set(await store.get([A])) == {A}


# Redis: what others write, and how it fails


@shared
@pytest.mark.parametrize("foreign", ["HSET", "RPUSH", "SADD"])
async def test_a_key_of_another_type_is_absent_and_gives_way(store, inside, foreign):
    fields = ("severity", "critical") if foreign == "HSET" else ("one",)
    for kind in "vl":
        inside.run(foreign, kind, A, *fields)
        inside.run("PEXPIRE", kind, A, 60_000)
    await store.release([A], "one")
    assert dict(await store.get([A])) == {}
    assert await store.lease([A], "one", 60)
    await store.put({A: Cached(a_verdict(), 60)})
    assert set(await store.get([A])) == {A}
    assert not await store.lease([A], "other", 60)


@shared
async def test_a_key_without_an_end_is_absent_and_gives_way(store, inside):
    inside.run("SET", "v", A, a_record())
    inside.run("SET", "l", A, "somebody")
    assert dict(await store.get([A])) == {}
    assert await store.lease([A], "one", 60)
    await store.put({A: Cached(a_verdict(), 60)})
    assert 0 < inside.run("PTTL", "v", A) <= 60_000
    assert 0 < inside.run("PTTL", "l", A) <= 60_000


@shared
async def test_a_lease_that_does_not_end_for_long_is_nobodys(store, inside):
    inside.run("SET", "l", A, "somebody", "PX", 10**9)
    assert await store.lease([A], "one", 60)
    assert 0 < inside.run("PTTL", "l", A) <= 60_000


@pytest.fixture
def own(tmp_path):
    """A server that a test may do anything to."""
    with redis_server(tmp_path) as server:
        yield server


async def until_it_works(store: RedisVerdicts) -> None:
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(StoreError):
                await store.put({C: Cached(a_verdict(), 60)})
                # Now its clock is known, and it knows the scripts.
                await store.lease([C], "one", 60)
                await store.release([C], "one")
                return
            await asyncio.sleep(0.02)


async def test_a_redis_that_is_frozen_is_an_error_soon_and_comes_back(own, redis_verdicts):
    store = redis_verdicts(own.url, 0.1)
    await until_it_works(store)
    assert await store.lease([B], "one", 60)
    own.freeze()
    for attempt in (
        store.get([A]),
        store.put({A: Cached(a_verdict(), 60)}),
        store.lease([A], "one", 60),
        store.release([B], "one"),
    ):
        begun = time.monotonic()
        with pytest.raises(StoreTimeout, match=r"does not answer within 0\.1 s"):
            await attempt
        assert time.monotonic() - begun < 2
    own.thaw()
    await until_it_works(store)
    # What was given up was not done when the server heard of it.
    assert await store.lease([A], "other", 60)
    assert not await store.lease([B], "other", 60)


async def test_a_redis_that_is_gone_is_an_error_until_it_is_back(own, redis_verdicts):
    store = redis_verdicts(own.url, 1)
    await until_it_works(store)
    own.kill()
    for attempt in (store.get([C]), store.put({A: Cached(a_verdict(), 60)}), store.lease([A], "one", 60)):
        with pytest.raises(StoreError, match=r"^Redis at 127\.0\.0\.1:\d+: "):
            await attempt
    own.start()
    await until_it_works(store)
    assert set(await store.get([C])) == {C}


async def test_a_redis_that_is_almost_full_takes_decisions_and_no_verdicts(own, redis_verdicts, prefix):
    store = redis_verdicts(own.url)
    await store.put({A: Cached(a_verdict(), 60)})
    with own.client() as client:
        client.execute_command("DEBUG", "POPULATE", 40_000, "of-others", 500)
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", used * 110 // 100)
    with pytest.raises(StoreError, match="almost full"):
        await store.put({B: Cached(a_verdict(), 60)})
    assert set(await store.get([A, B])) == {A}
    assert await store.lease([B], "one", 60)
    async with RedisStore(own.url, prefix=prefix, timeout=5) as decisions:
        await decisions.write_state("taken")
        assert (await decisions.beat("me", "")).state == "taken"
    with own.client() as client:
        client.config_set("maxmemory", used * 2)
    await store.put({B: Cached(a_verdict(), 60)})


async def test_the_documented_acl_is_enough(own, redis_verdicts, prefix):
    with own.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "proxy", "on", ">hunter2", f"~{prefix}:*", f"~{{{prefix}}}:*", "+@read", "+@write",
            "+@pubsub", "+@scripting", "+time", "+ping",
        )  # fmt: skip
    store = redis_verdicts(own.url, username="proxy", password="hunter2")
    assert await store.lease([A], "one", 60)
    await store.put({A: Cached(a_verdict(), 60)})
    assert set(await store.get([A])) == {A}
    await store.release([A], "one")


@pytest.mark.parametrize("prefix", ["", "a b", "{a}", "a*", "a?"])
def test_a_prefix_that_is_none_is_refused(prefix):
    with pytest.raises(ValueError, match="the prefix is a name"):
        RedisVerdicts(topology("redis://127.0.0.1"), prefix=prefix)


async def test_verdicts_and_decisions_of_one_prefix_do_not_meet(alone, redis_verdicts, prefix):
    await redis_verdicts(alone.url).put({A: Cached(a_verdict(), 60)})
    async with RedisStore(alone.url, prefix=prefix, timeout=5) as decisions:
        assert [kept async for slice_ in decisions.load() for kept in slice_] == []


# Records


_TEXT = st.text(max_size=200)
_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | _TEXT, st.lists, max_leaves=5)
_MEMBERS = {
    "severity": st.sampled_from([s.value for s in Severity]),
    "category": st.sampled_from([c.value for c in Category]),
    "confidence": st.sampled_from([c.value for c in Confidence]),
    "summary": _TEXT,
    "recommendations": st.lists(_TEXT, max_size=5),
}


@settings(max_examples=50)
@given(st.fixed_dictionaries(_MEMBERS))
def test_a_models_verdict_reads_as_it_was_written(members):
    verdict = answers.verdict(members, "ollama/llama3.2:1b")
    assert records.read(records.written(verdict), 1.5) == Cached(verdict, 1.5)


def test_half_a_character_is_no_reason_to_fail():
    verdict = a_verdict(model="half \ud83d")
    assert records.read(records.written(verdict), 1) == Cached(replace(verdict, model="half _"), 1)


@pytest.mark.parametrize("model", ["accounts/…#x/deployments/y", "a//b", "a///b", "gpt (beta)", "<b>", "m" * 300])
def test_a_model_of_any_name_has_a_record(model: str):
    cached = records.read(records.written(a_verdict(model=model)), 1)
    assert cached is not None
    assert cached.classification.summary == a_verdict().summary


@pytest.mark.parametrize("name", ["ops@corp.example", "db-7.eu.example.com", "10.0.0.7", "aa:bb:cc:dd:ee:ff"])
def test_what_was_restored_from_an_alert_stays_in_its_place(name: str):
    verdict = a_verdict(summary=f"Mail to {name} fails.", recommendations=(f"Ask {name}.",))
    assert records.read(records.written(verdict), 1) == Cached(verdict, 1)


_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | _TEXT, st.lists, max_leaves=5)


@given(st.dictionaries(st.sampled_from([*RECORD, "more"]), _JSON | st.sampled_from([*RECORD.values()])))
def test_of_whatever_an_object_holds_a_model_could_have_said_the_same(members):
    found = records.read(json.dumps(members).encode(), 1)
    if found is not None:
        assert found.classification == answers.verdict(members, members["model"], restored=True)
        assert members["format"] == 1


@given(st.binary(max_size=100))
def test_bytes_are_no_verdict(record):
    assert records.read(record, 1) is None
