"""The two tiers, and whose turn it is to ask; in simulated time."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from simulated import simulated
from structlog.testing import capture_logs
from tiers import CPU, DISK, FakeVerdicts
from verdicts import a_class, a_verdict

from proxy.classification.cache import FAILED, SECOND_BEST, ClassCache
from proxy.classification.classification import Source
from proxy.classification.turns import AWAY, LEASE
from proxy.errors import StoreError, StoreTimeout

AWAY_NOW = StoreTimeout("no answer")


def a_cache(store=None, ttl=3600.0):
    return ClassCache(ttl, store=store, monotonic=asyncio.get_running_loop().time)


def known(**more):
    """`a_verdict` as the cache gives it."""
    return replace(a_verdict(**more), source=Source.CACHE)


async def told(cache):
    """Return when the store knows all that it is to be told, but for leases that are held."""
    await asyncio.sleep(0)
    while cache._turns._news:
        await asyncio.sleep(0.001)


@simulated
async def test_a_verdict_is_known_for_its_time_in_both_tiers():
    store = FakeVerdicts()
    cache = a_cache(store, ttl=100)
    cache.keep(DISK, a_verdict())
    await told(cache)
    assert store.verdicts[DISK][1] - store.now == pytest.approx(100, abs=1)
    await asyncio.sleep(99)
    assert cache.known(DISK) == known()
    await asyncio.sleep(2)
    assert cache.known(DISK) is None


@simulated
async def test_labels_without_a_text_are_known_for_a_moment_and_to_nobody_else():
    store = FakeVerdicts()
    cache = a_cache(store)
    cache.keep(DISK, a_verdict(summary=""))
    await told(cache)
    assert store.verdicts == {}
    await asyncio.sleep(FAILED - 1)
    assert cache.known(DISK) == known(summary="")
    await asyncio.sleep(2)
    assert cache.known(DISK) is None


@simulated
async def test_a_failure_is_known_for_a_moment_and_to_nobody_else():
    store = FakeVerdicts()
    cache = a_cache(store)
    cache.keep_failure(DISK, "timeout")
    await told(cache)
    await asyncio.sleep(FAILED - 1)
    assert (cache.failed(DISK), cache.failed(CPU), store.verdicts) == ("timeout", "", {})
    await asyncio.sleep(2)
    assert cache.failed(DISK) == ""


@simulated
async def test_a_verdict_ends_the_memory_of_a_failure():
    cache = a_cache()
    cache.keep_failure(DISK, "timeout")
    cache.keep(DISK, a_verdict())
    assert cache.failed(DISK) == ""


@simulated
async def test_several_classes_are_one_question():
    store = FakeVerdicts()
    store.put_aside(DISK, a_verdict())
    cache = a_cache(store)
    await cache.find([DISK, CPU])
    assert store.asked == [("get", [DISK, CPU])]
    assert (cache.known(DISK), cache.known(CPU)) == (known(), None)


@pytest.mark.parametrize(("ttl", "left", "lasts"), [(100, 1000, 100), (100, 20, 20)])
def test_what_is_found_lasts_no_longer_than_the_store_and_the_settings_say(ttl, left, lasts):
    @simulated
    async def scenario():
        store = FakeVerdicts()
        store.put_aside(DISK, a_verdict(), left)
        cache = a_cache(store, ttl)
        await cache.find([DISK])
        await asyncio.sleep(lasts - 1)
        assert cache.known(DISK) == known()
        await asyncio.sleep(2)
        assert cache.known(DISK) is None

    scenario()


@simulated
async def test_a_store_that_does_not_answer_is_left_alone_for_a_while():
    store = FakeVerdicts()
    store.put_aside(DISK, a_verdict())
    store.faults = {"get": AWAY_NOW}
    cache = a_cache(store)
    await cache.find([DISK])
    store.faults = {}
    await asyncio.sleep(AWAY - 1)
    await cache.find([DISK])
    assert await cache.turn(DISK) is None
    assert (store.counts, cache.known(DISK)) == ({"get": 1}, None)
    await asyncio.sleep(2)
    await cache.find([DISK])
    assert cache.known(DISK) == known()


@simulated
async def test_a_store_that_is_left_alone_is_told_all_the_same():
    store = FakeVerdicts()
    cache = a_cache(store)
    cache.leave_alone()
    cache.keep(DISK, a_verdict())
    await told(cache)
    assert store.verdicts[DISK][0] == a_verdict()


@simulated
async def test_a_store_that_takes_nothing_is_still_read_and_its_lease_given_back():
    store = FakeVerdicts()
    store.put_aside(CPU, a_verdict())
    store.faults = {"put": StoreError("full")}
    cache = a_cache(store)
    assert await cache.turn(DISK) is None
    cache.keep(DISK, a_verdict())
    await told(cache)
    assert store.held == set()
    await cache.find([CPU])
    assert cache.known(CPU) == known()


@pytest.mark.parametrize("operation", ["get", "lease", "put", "release"])
def test_a_bug_of_the_store_costs_what_it_knows_and_is_said(operation):
    @simulated
    async def scenario():
        store = FakeVerdicts()
        store.faults = {operation: ZeroDivisionError("x")}
        cache = a_cache(store)
        with capture_logs() as said:
            await cache.find([DISK])
            await cache.turn(CPU)
            cache.keep(DISK, a_verdict())
            cache.give_up(CPU)
            await cache.close()
        assert cache.known(DISK) == known()
        assert {entry["log_level"] for entry in said} == {"error"}

    scenario()


@simulated
async def test_an_outage_of_the_store_is_no_news_here():
    store = FakeVerdicts()
    store.faults = dict.fromkeys(("get", "lease", "put", "release"), AWAY_NOW)
    cache = a_cache(store)
    with capture_logs() as said:
        await cache.find([DISK])
        cache.keep(DISK, a_verdict())
        await cache.close()
    assert {entry["log_level"] for entry in said} == {"debug"}


@simulated
async def test_where_nothing_is_shared_it_is_always_our_turn_and_nothing_is_given_back():
    store = FakeVerdicts(shared=False)
    cache = a_cache(store)
    assert await cache.turn(DISK) is None
    cache.keep_failure(DISK, "timeout")
    cache.give_up(DISK)
    cache.keep(DISK, a_verdict())
    await cache.close()
    assert store.asked == [("put", [DISK])]


@simulated
async def test_one_asks_and_the_other_uses_the_answer():
    store = FakeVerdicts()
    one, other = a_cache(store), a_cache(store)
    assert await one.turn(DISK) is None
    waiting = asyncio.create_task(other.turn(DISK))
    await asyncio.sleep(2)
    assert not waiting.done()
    one.keep(DISK, a_verdict())
    begun = store.now
    assert await waiting == known()
    assert store.now - begun < 1
    assert store.held == set()


@pytest.mark.parametrize("ends", ["keep_failure", "give_up", "close"])
def test_one_that_gets_no_answer_leaves_the_turn_to_the_other_at_once(ends):
    @simulated
    async def scenario():
        store = FakeVerdicts()
        one, other = a_cache(store), a_cache(store)
        await one.turn(DISK)
        waiting = asyncio.create_task(other.turn(DISK))
        await asyncio.sleep(0.1)
        if ends == "keep_failure":
            one.keep_failure(DISK, "timeout")
        elif ends == "give_up":
            one.give_up(DISK)
        else:
            await one.close()
        begun = store.now
        assert await waiting is None
        assert store.now - begun < 1
        assert store.leases[DISK][0] == other._turns._holder
        await other.close()

    scenario()


@simulated
async def test_a_turn_lasts_while_its_holder_lives_and_ends_soon_after_its_death():
    store = FakeVerdicts()
    one, other = a_cache(store), a_cache(store)
    await one.turn(DISK)
    waiting = asyncio.create_task(other.turn(DISK))
    await asyncio.sleep(10 * LEASE)
    assert not waiting.done()
    one._turns._speaking.cancel()  # as when its process is killed: nobody renews, nothing is given back
    begun = store.now
    assert await waiting is None
    assert store.now - begun < LEASE + 3
    await other.close()


@simulated
async def test_who_waits_long_asks_less_often():
    store = FakeVerdicts()
    one, other = a_cache(store), a_cache(store)
    await one.turn(DISK)
    waiting = asyncio.create_task(other.turn(DISK))
    await asyncio.sleep(3)
    assert store.counts["get"] >= 6
    before = store.counts["get"]
    await asyncio.sleep(60)
    assert 28 <= store.counts["get"] - before <= 34
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await one.close()


@pytest.mark.parametrize("operation", ["get", "lease"])
def test_a_store_that_stays_away_while_one_waits_means_its_own_turn(operation):
    @simulated
    async def scenario():
        store = FakeVerdicts()
        one, other = a_cache(store), a_cache(store)
        await one.turn(DISK)
        waiting = asyncio.create_task(other.turn(DISK))
        await asyncio.sleep(2)
        store.faults = {operation: AWAY_NOW}
        begun = store.now
        assert await waiting is None
        assert AWAY < store.now - begun < AWAY + 1
        await one.close()
        await other.close()

    scenario()


@simulated
async def test_a_store_that_is_away_for_a_moment_means_no_herd_of_calls():
    store = FakeVerdicts()
    one, other = a_cache(store), a_cache(store)
    classes = [a_class(f"{n}") for n in range(600)]
    await asyncio.gather(*(one.turn(key) for key in classes))
    waiting = [asyncio.create_task(other.turn(key)) for key in classes]
    await asyncio.sleep(2)
    store.faults = dict.fromkeys(("get", "put", "lease", "release"), AWAY_NOW)
    await asyncio.sleep(1)
    store.faults = {}
    await asyncio.sleep(AWAY)
    for key in classes:
        one.keep(key, a_verdict())
    assert await asyncio.gather(*waiting) == [known()] * len(classes)


@simulated
async def test_many_classes_at_once_are_a_few_questions():
    store = FakeVerdicts(delay=0.01)
    one, other = a_cache(store), a_cache(store)
    classes = [a_class(f"{n}") for n in range(1000)]
    assert await asyncio.gather(*(one.turn(key) for key in classes)) == [None] * 1000
    assert store.counts == {"lease": 4, "get": 4}
    assert max(len(keys) for _, keys in store.asked) == 256
    waiting = [asyncio.create_task(other.turn(key)) for key in classes]
    await asyncio.sleep(20)
    before = store.counts["get"]
    await asyncio.sleep(60)
    assert store.counts["get"] - before <= 4 * 60 / 7
    for key in classes:
        one.keep(key, a_verdict())
    assert await asyncio.gather(*waiting) == [known()] * 1000
    await one.close()
    await other.close()
    assert store.held == set()


@simulated
async def test_a_verdict_of_a_second_choice_is_not_kept_for_long():
    store = FakeVerdicts()
    cache = a_cache(store, ttl=7200)
    cache.keep(DISK, a_verdict(), first_choice=False)
    await told(cache)
    assert store.verdicts[DISK][1] - store.now == pytest.approx(SECOND_BEST, abs=1)
    await asyncio.sleep(SECOND_BEST - 1)
    assert cache.known(DISK) == known()
    await asyncio.sleep(2)
    assert cache.known(DISK) is None


@simulated
async def test_a_verdict_that_came_between_the_look_and_the_turn_is_used_and_the_turn_given_back():
    store = FakeVerdicts()
    cache = a_cache(store)
    await cache.find([DISK])
    store.put_aside(DISK, a_verdict())
    assert await cache.turn(DISK) == known()
    await told(cache)
    assert store.held == set()


@pytest.mark.parametrize("after", [0.05, 0.1, 0.15, 0.2, 0.25], ids=lambda s: f"after {s} s")
def test_a_turn_that_is_broken_off_is_given_back(after):
    @simulated
    async def scenario():
        store = FakeVerdicts(delay=0.1)
        cache = a_cache(store)
        turn = asyncio.create_task(cache.turn(DISK))
        await asyncio.sleep(after)
        turn.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await turn
        await cache.close()
        assert store.held == set()

    scenario()


@simulated
async def test_what_is_still_told_of_one_call_does_not_end_the_turn_of_the_next():
    store = FakeVerdicts()
    one, other = a_cache(store), a_cache(store)
    await one.turn(DISK)
    store.delay = 0.5
    one.give_up(DISK)
    assert await one.turn(DISK) is None
    store.delay = 0
    waiting = asyncio.create_task(other.turn(DISK))
    await asyncio.sleep(5)
    assert not waiting.done()
    one.keep(DISK, a_verdict())
    assert await waiting == known()


@simulated
async def test_what_is_told_of_a_class_is_told_in_order():
    store = FakeVerdicts(shared=False, delay=0.5)
    cache = a_cache(store)
    cache.keep(DISK, a_verdict("info"))
    await asyncio.sleep(0.1)
    store.delay = 0
    cache.keep(DISK, a_verdict("critical"))
    await cache.close()
    await asyncio.sleep(1)
    assert store.verdicts[DISK][0] == a_verdict("critical")


@simulated
async def test_a_call_that_is_given_up_takes_nothing_from_what_is_still_to_be_told():
    store = FakeVerdicts(delay=0.5)
    cache = a_cache(store)
    cache.give_up(CPU)
    await asyncio.sleep(0.1)
    cache.keep(DISK, a_verdict())
    cache.give_up(DISK)
    await cache.close()
    assert set(store.verdicts) == {DISK}


@simulated
async def test_who_waits_for_a_turn_when_all_ends_goes_free_and_holds_nothing():
    store = FakeVerdicts(delay=0.1)
    cache = a_cache(store)
    turn = asyncio.create_task(cache.turn(DISK))
    await asyncio.sleep(0.05)
    await cache.close()
    assert await turn is None
    assert store.held == set()


@simulated
async def test_close_waits_for_the_last_of_what_is_told_of_a_class():
    store = FakeVerdicts(shared=False, delay=0.5)
    cache = a_cache(store)
    cache.keep(DISK, a_verdict("info"))
    await asyncio.sleep(0.1)
    cache.keep(DISK, a_verdict("critical"))
    await asyncio.sleep(0.6)
    await cache.close()
    assert store.verdicts[DISK][0] == a_verdict("critical")


@simulated
async def test_close_waits_for_what_is_being_told():
    store = FakeVerdicts(delay=0.5)
    cache = a_cache(store)
    cache.keep(DISK, a_verdict())
    await cache.turn(CPU)
    await cache.close()
    assert (set(store.verdicts), store.held) == ({DISK}, set())
