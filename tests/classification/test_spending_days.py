"""A day of storms costs what it may: never more than the cap, and no less than 99 % of it while there is demand.

The real budgets on the real stores; only the clock and the providers are made up.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack

import pytest
from spending import IN_USD, MIDNIGHT, Clock, Storm, a_budget, as_estimated, less, unheard, unknown, wild

from proxy.classification.pacing import DAY, Amounts, Unit
from proxy.classification.stores.redis_spending import RedisSpending
from proxy.classification.stores.sqlite_spending import NAME, SqliteSpending
from proxy.classification.usage import Usage
from proxy.storage.topology import topology

TOKENS = Amounts(tokens=2_000_000)
USD = Amounts(nano_usd=1000 * IN_USD)
"""Of a thousand calls as they are estimated."""
BOTH = Amounts(2_000_000, 1000 * IN_USD)

usages = pytest.mark.parametrize("takes", [as_estimated, less, unknown, unheard, wild])


@usages
@pytest.mark.parametrize(("caps", "unit"), [(TOKENS, Unit.TOKENS), (USD, Unit.USD)], ids=["tokens", "usd"])
async def test_a_day_of_storms_spends_the_cap_and_never_more(takes, caps, unit):
    clock = Clock()
    storm = Storm(caps, clock, lambda: a_budget(caps, clock), takes)
    await storm.day()
    assert 0.99 <= storm.share(unit) <= 1
    # At no moment more than was released, but for calls that took more than anybody could know.
    assert storm.most <= (1.05 if takes is wild else 1)


async def test_of_two_caps_the_narrower_holds():
    clock = Clock()
    storm = Storm(BOTH, clock, lambda: a_budget(BOTH, clock))
    await storm.day()
    assert 0.99 <= storm.share(Unit.USD) <= 1
    assert storm.share(Unit.TOKENS) < 0.75


@pytest.fixture
async def sqlite(tmp_path):
    """Return what opens the file, as another process would."""
    async with AsyncExitStack() as stores:

        def open_() -> SqliteSpending:
            store = SqliteSpending(tmp_path / NAME)
            stores.push_async_callback(store.__aexit__, None, None, None)
            return store

        yield open_


@pytest.fixture
async def redis(alone, prefix):
    """As above, with connections of its own."""
    async with AsyncExitStack() as stores:

        def open_() -> RedisSpending:
            store = RedisSpending(topology(alone.url), prefix=prefix, timeout=5)
            stores.push_async_callback(store.aclose)
            return store

        yield open_


@pytest.mark.parametrize("takes", [less, wild])
async def test_so_does_one_that_is_killed_and_started_again(sqlite, takes):
    clock = Clock()
    storm = Storm(TOKENS, clock, lambda: a_budget(TOKENS, clock, sqlite()), takes)
    await storm.day(step=600, deaths=4)
    assert 0.99 <= storm.share(Unit.TOKENS) <= 1


@usages
async def test_so_do_two_proxies_that_share_a_redis(redis, takes):
    clock = Clock()
    storm = Storm(TOKENS, clock, lambda: a_budget(TOKENS, clock, redis()), takes)
    await storm.day(proxies=2, step=600)
    assert 0.99 <= storm.share(Unit.TOKENS) <= 1
    assert storm.most <= (1.05 if takes is wild else 1)


@pytest.mark.parametrize("caps", [TOKENS, USD], ids=["tokens", "usd"])
async def test_and_two_that_are_killed_and_started_again(redis, caps):
    clock = Clock()
    storm = Storm(caps, clock, lambda: a_budget(caps, clock, redis()), less)
    await storm.day(proxies=2, step=600, deaths=4)
    (unit,) = [unit for unit in Unit if caps.of(unit)]
    assert 0.99 <= storm.share(unit) <= 1


async def test_a_storm_at_night_leaves_the_day_its_share():
    clock = Clock()
    storm = Storm(TOKENS, clock, lambda: a_budget(TOKENS, clock), less)
    (budget,) = [storm.open_budget()]
    for second in range(0, 6 * 3600, 120):
        clock.now = MIDNIGHT + second
        await storm.ask_all([budget])
    assert 0.39 <= storm.share(Unit.TOKENS) <= 0.4  # a fifth, and a quarter of the rest


async def test_what_quiet_hours_have_left_is_there_for_a_storm():
    clock = Clock(MIDNIGHT + 12 * 3600)
    storm = Storm(TOKENS, clock, lambda: a_budget(TOKENS, clock), less)
    await storm.ask_all([storm.open_budget()])
    assert 0.59 <= storm.share(Unit.TOKENS) <= 0.6


async def test_calls_over_midnight_are_of_the_day_on_which_they_began():
    clock = Clock(MIDNIGHT + DAY - 1)
    budget = a_budget(TOKENS, clock)
    holds = [await budget.reserve(0, 3000) for _ in range(4)]
    clock.now += 2
    before = budget.spent()
    for hold in holds:
        hold.settle(less(random.Random(1)), "ok")
    assert (before, budget.spent()) == (Amounts(), Amounts())
    assert budget.status()["day"] == "2024-10-05"


async def test_what_such_a_call_takes_beyond_its_reservation_is_of_the_day_on_which_it_ends():
    clock = Clock(MIDNIGHT + DAY - 1)
    budget = a_budget(TOKENS, clock)
    hold = await budget.reserve(0, 3000)
    clock.now += 2
    hold.settle(Usage(1, 4000, 1000), "ok")
    assert budget.spent() == Amounts(5000 - 1400)
