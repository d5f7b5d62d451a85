"""What every SpendingStore keeps; each adapter runs all of it, against the real thing."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis_servers import redis_server
from spending import Clock, a_budget

from proxy.classification.pacing import NOTHING, Amounts
from proxy.classification.spending import SpendingStore, Taken
from proxy.classification.stores.redis_spending import RedisSpending
from proxy.classification.stores.sqlite_spending import NAME, SqliteSpending
from proxy.errors import ClassifierOverBudget, StoreError
from proxy.storage.topology import topology

DAY = 20_000
LIMIT = Amounts(1000, 1000)


@pytest.fixture(params=["sqlite", "alone"])
def kind(request):
    return request.param


@pytest.fixture
async def opened(kind, request, tmp_path: Path, prefix: str) -> AsyncIterator[Callable[[], SpendingStore]]:
    """Return a function that opens a store of `kind`; those of one test see the same."""
    async with AsyncExitStack() as stores:

        def open_() -> SpendingStore:
            if kind == "sqlite":
                store: SqliteSpending | RedisSpending = SqliteSpending(tmp_path / NAME, timeout=5)
            else:
                url = request.getfixturevalue(kind).url
                store = RedisSpending(topology(url), prefix=prefix, timeout=5)
            stores.push_async_callback(store.__aexit__, None, None, None)
            return store

        yield open_


@pytest.fixture
def store(opened):
    return opened()


async def take(store: SpendingStore, tokens: int = 0, nano_usd: int = 0, *, day: int = DAY, **rest) -> Taken:
    given = {"change": NOTHING, "limit": LIMIT, "known": NOTHING} | rest
    return await store.exchange(day, given["change"], Amounts(tokens, nano_usd), given["limit"], given["known"])


async def test_what_is_taken_is_added_up(store):
    assert await take(store, 300, 20) == Taken(Amounts(300, 20), Amounts(300, 20))
    assert await take(store, 0, 5) == Taken(Amounts(0, 5), Amounts(300, 25))


async def test_no_more_is_given_than_leaves_the_sum_within_the_limit(store):
    await take(store, 900)
    assert await take(store, 300, 20) == Taken(Amounts(100, 20), Amounts(1000, 20))
    assert await take(store, 300) == Taken(NOTHING, Amounts(1000, 20))


async def test_what_was_spent_counts_beyond_the_limit_and_leaves_nothing_to_take(store):
    assert await take(store, 5, 5, change=Amounts(1500, 10)) == Taken(Amounts(0, 5), Amounts(1500, 15))


async def test_what_is_given_back_can_be_taken_again_and_nothing_more(store):
    await take(store, 1000, 10)
    assert (await take(store, 600, change=Amounts(-400))).granted == Amounts(400)
    assert (await take(store, change=Amounts(-5000, -5))).total == Amounts(0, 5)


async def test_each_day_is_counted_by_itself(store):
    await take(store, 700)
    assert (await take(store, 700, day=DAY + 1)).total == Amounts(700)
    assert (await take(store, 1)).total == Amounts(701)


async def test_a_day_that_was_lost_begins_with_what_is_known_of_it(store):
    assert (await take(store, 10, change=Amounts(5), known=Amounts(100, 50))).total == Amounts(115, 50)
    assert (await take(store, 0, known=Amounts(900, 900))).total == Amounts(115, 50)


async def test_amounts_are_exact_however_large(store):
    large = Amounts(10**12 + 1, 10**15 + 1)
    taken = await take(store, large.tokens, large.nano_usd, limit=large + large)
    assert taken == Taken(large, large)
    assert (await take(store, 1, 1, limit=large + large)).total == large + Amounts(1, 1)


async def test_of_many_that_take_at_once_none_gets_what_another_got(opened):
    stores = [opened() for _ in range(4)]
    await take(stores[0])
    taken = await asyncio.gather(*(take(store, 30, 1) for store in stores * 20))
    assert sum(one.granted.tokens for one in taken) == 1000
    assert (await take(stores[0])).total == Amounts(1000, 80)


async def test_it_is_there_for_the_next_process(opened):
    await take(opened(), 300, 20)
    assert (await take(opened())).total == Amounts(300, 20)


# SQLite


async def test_a_file_that_is_no_database_is_moved_aside(tmp_path):
    (tmp_path / NAME).write_text("no database at all, but long enough to look like one" * 100)
    async with SqliteSpending(tmp_path / NAME, timeout=5) as store:
        assert (await take(store, 5)).total == Amounts(5)
    assert (tmp_path / f"{NAME}.corrupt").exists()


async def test_a_file_that_cannot_be_used_says_why(tmp_path):
    (tmp_path / NAME).mkdir()
    async with SqliteSpending(tmp_path / NAME, timeout=5) as store:
        with pytest.raises(StoreError, match=r"spending\.db"):
            await take(store, 5)


async def test_days_that_are_over_are_forgotten(tmp_path):
    async with SqliteSpending(tmp_path / NAME, timeout=5) as store:
        for day in range(DAY, DAY + 5):
            await take(store, 5, day=day)
    db = sqlite3.connect(tmp_path / NAME)
    assert [day for (day,) in db.execute("SELECT day FROM spent")] == [DAY + 3, DAY + 4]
    db.close()


# Redis


@pytest.fixture
def inside(alone: redis_server):
    with alone.client() as client:
        yield client


async def test_a_day_goes_by_itself(alone, prefix, inside):
    async with RedisSpending(topology(alone.url), prefix=prefix, timeout=5) as store:
        await take(store, 5)
    assert 2 * 86_400 - 60 < inside.ttl(f"{prefix}:b:{DAY}") <= 2 * 86_400


@pytest.mark.parametrize("spoil", ["SET {key} x", "HSET {key} tokens x nano_usd y", "LPUSH {key} x"])
async def test_what_somebody_else_wrote_counts_as_nothing(alone, prefix, inside, spoil):
    async with RedisSpending(topology(alone.url), prefix=prefix, timeout=5) as store:
        inside.execute_command(*spoil.format(key=f"{prefix}:b:{DAY}").split())
        assert (await take(store, 5)).total == Amounts(5)


async def test_it_needs_no_other_rights_than_are_documented(alone, prefix, inside):
    page = Path(__file__).parents[2] / "docs" / "explanation" / "identity.md"
    [line] = re.findall(r"^ACL SETUSER aiproxy .*$", page.read_text(), re.MULTILINE)
    *command, rights = line.split(maxsplit=3)
    inside.execute_command("ACL", "DELUSER", "aiproxy")
    inside.execute_command(*command, *rights.replace("PASSWORD", "s3cret").replace("aiproxy", prefix).split())
    servers = topology(alone.url, username="aiproxy", password="s3cret")
    async with RedisSpending(servers, prefix=prefix, timeout=5) as store:
        assert (await take(store, 5, change=Amounts(7))).total == Amounts(12)


async def test_what_was_given_up_is_not_taken_later(tmp_path, prefix):
    async with (
        redis_server(tmp_path) as server,
        RedisSpending(topology(server.url), prefix=prefix, timeout=0.2) as store,
    ):
        await take(store, 5)
        server.freeze()
        with pytest.raises(StoreError):
            await take(store, 500)
        server.thaw()
        patient = RedisSpending(topology(server.url), prefix=prefix, timeout=5)
        assert (await take(patient)).total == Amounts(5)
        await patient.aclose()


async def test_with_redis_away_each_of_two_goes_on_with_what_it_has_and_together_they_stay_within(tmp_path, prefix):
    clock, caps = Clock(), Amounts(tokens=10_000_000)
    async with redis_server(tmp_path) as server:
        stores = [RedisSpending(topology(server.url), prefix=prefix, timeout=1) for _ in range(2)]
        budgets = [a_budget(caps, clock, store) for store in stores]
        for budget in budgets:
            (await budget.reserve(0, 3000)).release()
        with server.client() as client:
            told = int(client.hget(f"{prefix}:b:{DAY}", "tokens"))
        server.kill()
        made = [0, 0]
        for n, budget in enumerate(budgets):
            while budget.affords(0):
                try:
                    await budget.reserve(0, 3000)
                except ClassifierOverBudget:
                    break
                made[n] += 1
        for store in stores:
            await store.aclose()
    assert min(made) > 5
    assert sum(made) * 1400 <= told
