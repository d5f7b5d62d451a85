"""What Redis alone can do to a store: be away, be frozen, be emptied, be another one."""

import asyncio
import contextlib
import time

import pytest
from kept import an_identity, bare, kept, loaded
from redis.crc import key_slot
from redis_servers import Relay, redis_sentinel, redis_server

from proxy.decisions.store import Change
from proxy.decisions.stores import redis as adapter
from proxy.errors import StoreError, StoreTimeout

A, B = an_identity("A"), an_identity("B")
SHORT = 0.2


@pytest.fixture(params=["alone", "cluster", "sentinel"])
def servers(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def own(tmp_path):
    """A server that a test may do anything to."""
    with redis_server(tmp_path) as server:
        yield server


def keeping_data(servers) -> list[redis_server]:
    if isinstance(servers, redis_server):
        return [servers]
    return servers.data if isinstance(servers, redis_sentinel) else servers.servers


@contextlib.contextmanager
def frozen(servers):
    try:
        for server in keeping_data(servers):
            server.freeze()
        yield
    finally:
        for server in keeping_data(servers):
            server.thaw()
    for server in keeping_data(servers):
        with server.client() as client:
            client.ping()  # it has read what was sent before


@contextlib.contextmanager
def takes(at_most: float):
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < at_most


async def until_it_works(store, within: float = 15) -> None:
    async with asyncio.timeout(within):
        while True:
            with contextlib.suppress(StoreError):
                await store.claim([kept("C")])
                return
            await asyncio.sleep(0.05)


async def ask_until_it_fails(store) -> None:
    async with asyncio.timeout(10):
        while True:
            await store.get([A])


# Frozen: it answers nobody, and reads later what it was sent


@pytest.mark.parametrize("beaten", [True, False], ids=["its clock is known", "nothing is known of it"])
async def test_what_a_frozen_server_was_sent_is_void(servers, redis_store, beaten):
    store, witness = redis_store(servers.url, SHORT), redis_store(servers.url)
    # Scripts that the servers do not know would do nothing anyway.
    await witness.forget(list(await witness.claim([kept(f"{n}") for n in range(64)])))
    await witness.claim([kept("C")])
    if beaten:
        await until_it_works(store)
        await witness.claim([kept("B")])
        await witness.write_state("before")
    with frozen(servers):
        for attempt in (
            store.claim([kept(f"{n}") for n in range(64)]),
            store.forget([B]),
            store.write_state("after"),
            store.get([A]),
            store.beat("me", ""),
        ):
            with pytest.raises(StoreTimeout, match=r"does not answer within 0\.2 s"), takes(0.7):
                await attempt
    assert set(await loaded(witness)) == {an_identity("C"), *([B] if beaten else [])}
    assert (await witness.beat("me", "")).state == ("before" if beaten else None)


async def test_after_a_freeze_no_question_gets_the_answer_to_another(servers, redis_store):
    store = redis_store(servers.url, SHORT)
    await until_it_works(store)
    await store.claim([kept("A", "critical"), kept("B", "info")])
    with frozen(servers):
        late = await asyncio.gather(*(store.get([A]) for _ in range(8)), return_exceptions=True)
    assert {type(each) for each in late} == {StoreTimeout}
    await until_it_works(store)
    found = await asyncio.gather(*(store.get([B]) for _ in range(8)))
    assert all(bare(each.values()) == bare([kept("B", "info")]) for each in found)


async def test_after_a_cancellation_no_question_gets_the_answer_to_another(servers, redis_store):
    store = redis_store(servers.url)
    await store.claim([kept("A", "critical"), kept("B", "info")])
    for n in range(100):
        task = asyncio.create_task(store.get([A]))
        await asyncio.sleep(n * 0.00002)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert bare((await store.get([B])).values()) == bare([kept("B", "info")])


async def test_what_a_cut_network_delivers_late_is_void(alone, redis_store):
    witness = redis_store(alone.url)
    async with Relay(alone.port) as relay:
        store = redis_store(f"redis://127.0.0.1:{relay.port}", SHORT)
        await until_it_works(store)
        relay.cut()
        for _ in range(2):
            with pytest.raises(StoreError), takes(0.7):
                await store.claim([kept("A")])
        relay.mend()
        await until_it_works(store)
        await asyncio.sleep(0.1)
        assert dict(await witness.get([A])) == {}
        assert (await store.claim([kept("A", "info", life=2)]))[A].life == 2
        await store.aclose()


@pytest.mark.parametrize("wrong_by", [3600, -3600])
async def test_a_wrong_idea_of_the_servers_clock_is_corrected(alone, redis_store, wrong_by):
    store = redis_store(alone.url, 1.0)
    await store.beat("me", "")
    clock = store._topology.at(("127.0.0.1", alone.port)).clock
    loop = asyncio.get_running_loop()
    clock.told(time.time() + wrong_by, loop.time())
    assert (await store.claim([kept("A")]))[A].life == 1
    assert clock.at(loop.time()) == pytest.approx(time.time(), abs=1)


async def test_a_moment_on_a_clock_that_was_set_back_is_void(own, redis_store):
    """Were it believed, the claim would be good for an hour."""
    store, witness = redis_store(own.url, SHORT), redis_store(own.url)
    await store.claim([kept("B")])  # a script that the server does not know would do nothing anyway
    store._topology.at(("127.0.0.1", own.port)).clock.told(time.time() + 3600, asyncio.get_running_loop().time())
    with frozen(own), pytest.raises(StoreError):
        await store.claim([kept("A")])
    assert dict(await witness.get([A])) == {}


# Away


async def test_a_server_that_is_away_is_an_error_at_once_until_it_is_back(own, redis_store):
    store = redis_store(own.url, 3.0)
    before = await store.beat("me", "")
    await store.claim([kept("A")])
    own.kill()
    for attempt in (store.claim([kept("A")]), store.get([A]), store.beat("me", ""), store.forget([A])):
        with pytest.raises(StoreError, match=r"Connect call failed|Connection closed"), takes(0.7):
            await attempt
    with pytest.raises(StoreError):
        await loaded(store)
    with pytest.raises(StoreError):
        await anext(store.changes())
    own.start()
    assert await loaded(store) == {}
    assert dict(await store.get([A])) == {}
    assert (await store.beat("me", "")).generations != before.generations


async def test_a_restart_between_two_questions_is_no_error(own, redis_store):
    store = redis_store(own.url)
    for _ in range(2):
        assert await loaded(store) == {}
        own.kill()
        own.start()
        await asyncio.sleep(0.05)


async def test_a_primary_of_a_cluster_that_is_away_is_an_error_until_it_is_back(cluster, redis_store):
    store = redis_store(cluster.url, 3.0)
    before = await store.beat("me", "")
    every = [kept(f"{n}") for n in range(64)]
    await store.claim(every)
    for server in cluster.servers:
        server.kill()
        with pytest.raises(StoreError), takes(1):
            await store.claim(every)
        server.start()
        async with asyncio.timeout(15):
            while True:
                with contextlib.suppress(StoreError):
                    # Whichever it was, what it kept is gone.
                    now = (await store.beat("me", "")).generations
                    if now != before.generations and len(now) == 3:
                        break
                await asyncio.sleep(0.05)
        assert len(await loaded(store)) < 64
        await until_it_works(store)
        async with asyncio.timeout(15):
            while len(await loaded(store)) < 64:
                with contextlib.suppress(StoreError):
                    await store.claim(every)
        before = await store.beat("me", "")


async def test_an_emptied_server_is_another_generation(servers, redis_store):
    store = redis_store(servers.url)
    await store.claim([kept("A")])
    before = await store.beat("me", "")
    for server in keeping_data(servers):
        with server.client() as client, contextlib.suppress(Exception):  # a replica refuses
            client.flushall()
        after = await store.beat("me", "")
        if server.process and server is not getattr(servers, "data", [None, None])[1]:
            assert after.generations != before.generations
        before = after
    assert dict(await store.get([A])) == {}


async def test_scripts_that_a_server_forgot_are_sent_again(servers, redis_store):
    store = redis_store(servers.url)
    await store.claim([kept("A")])
    for server in keeping_data(servers):
        with server.client() as client:
            client.script_flush()
    held = await store.claim([kept(f"{n}", life=n + 1) for n in range(64)])
    assert sorted(k.life for k in held.values()) == list(range(1, 65))


# Refusing


@pytest.mark.parametrize("password", ["wr0ng-s3cret", ""])
async def test_a_wrong_password_is_an_error_that_does_not_tell_it(tmp_path, redis_store, password):
    with redis_server(tmp_path, 0, "--requirepass", "s3cret/@?") as server:
        store = redis_store(server.url, password=password)
        with pytest.raises(StoreError, match=r"(?i)password|authentication") as raised:
            await store.claim([kept("A")])
        assert "wr0ng-s3cret" not in str(raised.value)


async def test_a_password_may_come_with_a_name_or_without(tmp_path, redis_store):
    with redis_server(tmp_path, 0, "--requirepass", "s3cret/@?") as server:
        await redis_store(server.url, password="s3cret/@?").claim([kept("A")])
        await redis_store(server.url, username="default", password="s3cret/@?").claim([kept("A")])


async def test_not_even_a_server_that_repeats_it_makes_us_tell_the_password(tmp_path, redis_store):
    with redis_server(tmp_path, 0, "--rename-command", "AUTH", "") as server:
        with pytest.raises(StoreError, match="unknown command") as raised:
            await redis_store(server.url, password="s3cret-s3cret").get([A])
        assert "s3cret" not in str(raised.value)


async def test_a_replica_is_an_error_until_it_is_a_primary(own, alone, redis_store):
    store = redis_store(own.url)
    with own.client() as client:
        client.replicaof("127.0.0.1", alone.port)
        with pytest.raises(StoreError, match="read only replica"):
            await store.claim([kept("A")])
        with pytest.raises(StoreError):
            await store.beat("me", "")
        client.replicaof("NO", "ONE")
    await store.claim([kept("A")])


async def test_a_full_server_is_an_error_and_can_still_be_read(own, redis_store):
    store = redis_store(own.url)
    await store.claim([kept("A")])
    with own.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match="memory"):
            await store.claim([kept("B")])
        assert set(await store.get([A, B])) == {A}
        client.config_set("maxmemory", 0)
    assert set(await store.claim([kept("B")])) == {B}


async def test_a_server_that_still_loads_is_an_error(own, redis_store):
    store = redis_store(own.url)
    await store.claim([kept(f"{n}") for n in range(500)])
    with own.client() as client:
        client.config_set("key-load-delay", 1000)
        client.config_set("loading-process-events-interval-bytes", 1024)
        reloading = asyncio.create_task(asyncio.to_thread(client.execute_command, "DEBUG", "RELOAD"))
        with pytest.raises(StoreError, match="loading"):
            await ask_until_it_fails(store)
        await reloading
    assert len(await loaded(store)) == 500


async def test_keys_that_others_wrote_are_not_ours(own, redis_store, prefix):
    store = redis_store(own.url)
    with own.client() as client:
        client.hset(f"{prefix}:d:{A.hex()}", mapping={"life": "x", "labels": "?", "annotations": "?"})
        client.hset(f"{prefix}:d:no-identity", mapping={"life": "1"})
        client.set(f"{prefix}:changes", "x")
        assert await loaded(store) == {}
        assert dict(await store.get([A])) == {}
        client.set(f"{prefix}:d:{B.hex()}", "x")
        assert dict(await store.get([B])) == {}
        # They cost nobody anything, and give way.
        mine = [kept("A"), kept("B"), kept("C")]
        assert bare((await store.claim(mine)).values()) == bare(mine)
        assert set(await loaded(store)) >= {A, B}


async def test_what_is_too_deep_to_be_read_spoils_no_load(own, redis_store, prefix):
    store = redis_store(own.url)
    await store.claim([kept("A")])
    with own.client() as client:
        client.hset(f"{prefix}:d:{B.hex()}", mapping={"life": "1", "labels": "[" * 100_000, "annotations": "{}"})
        client.set(f"{{{prefix}}}:state", b"\xff\xfe")
    assert set(await loaded(store)) == {A}
    assert (await store.beat("me", "")).state == "\ufffd\ufffd"


async def test_something_that_is_no_redis_is_an_error(alertmanager, redis_store):
    store = redis_store(f"redis://127.0.0.1:{alertmanager.port}", 0.5)
    with pytest.raises(StoreError):
        await store.get([A])


# Another one


@pytest.mark.parametrize("dies", [False, True], ids=["a failover", "a death"])
async def test_after_a_failover_the_new_primary_is_asked(tmp_path, redis_store, dies):
    with redis_sentinel(tmp_path) as servers:
        store, idle = redis_store(servers.url, 1.0), redis_store(servers.url)
        await idle.claim([kept("A", "critical")])
        await store.claim([kept("A", "critical")])
        with servers.primary().client() as client:
            assert client.execute_command("WAIT", 1, 1000) == 1
        if dies:
            servers.primary().kill()
            with pytest.raises(StoreError), takes(1.5):
                await store.claim([kept("A")])
        else:
            await asyncio.to_thread(servers.failover)
        await until_it_works(store)
        for each in (store, idle):  # who asked nothing meanwhile notices nothing
            assert bare((await each.claim([kept("A", "info", life=2)])).values()) == bare([kept("A", "critical")])


async def test_a_sentinel_that_knows_no_such_service_is_an_error(sentinel, redis_store):
    store = redis_store(f"redis+sentinel://127.0.0.1:{sentinel.sentinel.port}/other")
    with pytest.raises(StoreError, match="No such master"):
        await store.get([A])


async def test_sentinels_that_are_away_are_left_out(sentinel, redis_store):
    away = redis_store(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.sentinel.port}/main")
    assert set(await away.claim([kept("A")])) == {A}


async def test_slots_that_move_are_followed(cluster, redis_store, prefix):
    store = redis_store(cluster.url)
    await store.claim([kept(f"{n}") for n in range(64)])
    with cluster.moving(key_slot(f"{prefix}:d:{A.hex()}".encode())):
        # What is not there yet is on its way.
        assert dict(await store.get([A])) == {}
        assert set(await store.claim([kept("A", "critical")])) == {A}
    assert bare((await store.claim([kept("A", "info", life=2)])).values()) == bare([kept("A", "critical")])
    assert set(await loaded(store)) >= {A}


async def test_slots_that_move_lose_nothing(cluster, redis_store, prefix):
    """Each primary is asked for its generation by a slot that it keeps; now by another one."""
    store = redis_store(cluster.url)
    before = (await store.beat("me", "")).generations
    with cluster.moving(key_slot(max(before).encode())):
        pass
    store._topology.forget()
    after = (await store.beat("me", "")).generations
    assert set(after) != set(before)
    assert before | after == after | before


# The rest


async def test_a_proxy_that_fell_silent_is_no_peer(own, redis_store, prefix):
    store = redis_store(own.url)
    with own.client() as client:
        now = client.time()[0]
        client.hset(f"{{{prefix}}}:peers", mapping={"gone": f"{now - 5} x", "there": f"{now - 2} y z", "odd": "?"})
        assert (await store.beat("me", "m")).peers == {"me": "m", "there": "y z"}
        assert set(client.hkeys(f"{{{prefix}}}:peers")) == {"me", "there"}
        assert 0 < client.ttl(f"{{{prefix}}}:peers") <= 60


async def test_a_decision_ends_with_its_key(own, redis_store, prefix):
    store = redis_store(own.url)
    await store.claim([kept("A", left=100)])
    with own.client() as client:
        assert 95 < client.ttl(f"{prefix}:d:{A.hex()}") <= 100
        client.pexpire(f"{prefix}:d:{A.hex()}", 5000)
        assert (await store.get([A]))[A].left == pytest.approx(5, abs=0.5)
        client.persist(f"{prefix}:d:{A.hex()}")
        assert (await store.get([A]))[A].left == 7 * 24 * 3600


async def test_changes_outlast_a_long_silence(alone, redis_store, monkeypatch):
    monkeypatch.setattr(adapter, "SILENCE", 0.05)
    store = redis_store(alone.url, SHORT)
    changes = store.changes()
    assert await anext(changes) == Change()
    next_one = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.4)
    assert not next_one.done()
    await redis_store(alone.url).write_state("new")
    assert await asyncio.wait_for(next_one, 5) == Change()
    await changes.aclose()


async def test_changes_end_with_their_connection(own, redis_store, monkeypatch):
    monkeypatch.setattr(adapter, "SILENCE", 0.05)
    monkeypatch.setattr(adapter, "PATIENCE", 0.2)
    store = redis_store(own.url)
    changes = store.changes()
    await anext(changes)
    with frozen(own), pytest.raises(StoreError), takes(2):
        await anext(changes)
    changes = store.changes()
    await anext(changes)
    own.kill()
    with pytest.raises(StoreError):
        await anext(changes)


async def test_nobody_else_is_kept_waiting_by_a_closed_store(own, redis_store):
    store = redis_store(own.url)
    await asyncio.gather(*(store.get([A]) for _ in range(50)))
    with own.client() as client:
        assert client.info("clients")["connected_clients"] <= 9
        await store.aclose()
        async with asyncio.timeout(5):
            while client.info("clients")["connected_clients"] > 1:
                await asyncio.sleep(0.01)


# The address


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://x", "begins with"),
        ("redis+other://x", "begins with"),
        ("redis://", "HOST:PORT"),
        ("redis://:s3cret@x:port", "HOST:PORT"),
        ("redis://anna:s3cret@x", "HOST:PORT"),  # store.username and store.password are for that
        ("redis://:s3cret@[x", "is no URL"),
        ("redis://x,y", "several"),
        ("redis://x/one", "number"),
        ("redis+cluster://x/1", "no databases"),
        ("redis+sentinel://x", "/SERVICE"),
        ("redis://x?socket_timeout=9", "no parameter socket_timeout"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_telling_the_password(url, says):
    with pytest.raises(ValueError, match=says) as raised:
        adapter.RedisStore(url)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("prefix", ["", "a b", "{a}", "a*"])
def test_a_prefix_that_would_mean_something_else_is_refused(prefix):
    with pytest.raises(ValueError, match="prefix"):
        adapter.RedisStore("redis://x", prefix=prefix)


async def test_a_database_is_one_of_its_own(own, redis_store):
    await redis_store(f"{own.url}/3").claim([kept("A")])
    assert dict(await redis_store(own.url).get([A])) == {}
    assert set(await redis_store(f"{own.url}/3").get([A])) == {A}
