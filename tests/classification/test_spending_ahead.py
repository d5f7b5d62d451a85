"""What a process has taken ahead of the day's budget, and what it does without its store."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from spending import (
    CAP,
    CAPS,
    CHUNK,
    ESTIMATE,
    NOON,
    PROMPT,
    TODAY,
    MemoryStore,
    a_budget,
    exhaust,
    held,
    refused,
    spend,
    tidied,
)

from proxy.classification import spending
from proxy.classification.pacing import DAY, Amounts
from proxy.classification.spending import AWAY
from proxy.classification.usage import Usage
from proxy.errors import StoreError


async def test_a_chunk_is_taken_ahead_and_not_each_call_asks(clock):
    caps = Amounts(tokens=100 * CAP)
    budget = a_budget(caps, clock, store := MemoryStore())
    for _ in range(200):
        await spend(budget, 600)
    assert store.asked <= 2  # 120,000 tokens; a chunk is 200,000
    assert store.days[TODAY].tokens >= held(budget) == 120_000


async def test_what_is_left_is_given_back_at_the_end(clock):
    budget = a_budget(CAPS, clock, store := MemoryStore())
    await spend(budget, 570)
    hold = await budget.reserve(0, PROMPT)
    assert store.days[TODAY].tokens > 570 + ESTIMATE
    await budget.close()
    assert store.days[TODAY].tokens == 570 + ESTIMATE
    assert hold.is_open


async def test_what_others_spent_is_known_from_the_start(clock):
    store = MemoryStore()
    store.days[TODAY] = Amounts(tokens=CAP // 5)
    budget = a_budget(CAPS, clock, store)
    await budget.open()
    assert (held(budget), await refused(budget)) == (CAP // 5, True)


async def test_more_than_two_chunks_in_hand_are_for_others(clock):
    budget = a_budget(CAPS, clock, store := MemoryStore())
    holds = [await budget.reserve(0, PROMPT) for _ in range(10)]
    for hold in holds:
        hold.release()
    await tidied(budget)
    assert (held(budget), store.days[TODAY].tokens <= 2 * CHUNK) == (0, True)


async def test_what_was_spent_beyond_what_was_taken_is_told_at_once(clock):
    budget = a_budget(CAPS, clock, store := MemoryStore())
    await spend(budget, 10 * CHUNK)
    await tidied(budget)
    assert store.days[TODAY].tokens == 10 * CHUNK


async def test_while_a_shared_store_is_away_what_was_taken_ahead_is_there(clock):
    caps = Amounts(tokens=100 * CAP)
    budget = a_budget(caps, clock, store := MemoryStore())
    for _ in range(130):  # most of a chunk
        await spend(budget, ESTIMATE)
    store.away, asked = True, store.asked
    with structlog.testing.capture_logs() as said:
        calls = await exhaust(budget)
    assert 100 * CHUNK // 2 - ESTIMATE < calls * ESTIMATE <= 2 * 100 * CHUNK
    assert store.asked == asked + 1
    assert held(budget) <= store.days[TODAY].tokens  # never more than the others know of
    assert [line["event"] for line in said] == [
        "the store of the budget does not answer",
        "the budget is spent as far as the day has come, the rules decide until more of it is released",
    ]
    assert (budget.affords(0), budget.status()["error"]) == (False, "away")
    asked = store.asked
    assert await refused(budget)
    assert store.asked == asked  # it is left alone for a while
    store.away = False
    clock.now += AWAY
    assert (budget.affords(0), await refused(budget), budget.status()["error"]) == (True, False, "")


async def test_a_shared_store_that_was_never_there_gives_nothing(clock):
    store = MemoryStore()
    store.away = True
    assert await refused(a_budget(CAPS, clock, store))


async def test_a_store_that_was_away_is_asked_again_whatever_the_clock_does(clock):
    clock.now += 2 * 3600
    budget = a_budget(CAPS, clock, store := OwnStore())
    store.away = True
    await spend(budget, 570)
    store.away, asked = False, store.asked
    clock.now -= 3600
    await exhaust(budget)
    assert (store.asked > asked, budget.status()["error"]) == (True, "")


async def test_what_is_left_below_the_line_is_used_up_before_more_is_asked_for(clock):
    caps = Amounts(tokens=100 * CAP)
    budget = a_budget(caps, clock, store := MemoryStore())
    store.days[TODAY] = Amounts(tokens=20 * CAP - 100 * CHUNK // 4)
    assert await exhaust(budget) == 100 * CHUNK // 4 // ESTIMATE
    assert store.asked <= 3


class OwnStore(MemoryStore):
    """Of one proxy alone."""

    shared = False


async def test_without_its_own_store_memory_goes_on_and_tells_it_later(clock):
    store = OwnStore()
    budget = a_budget(CAPS, clock, store)
    await spend(budget, 570)
    store.away = True
    await exhaust(budget)
    assert CAP // 5 - ESTIMATE < held(budget) <= CAP // 5
    assert await refused(budget)
    store.away = False
    clock.now += DAY / 100
    await spend(budget, 570)
    assert held(budget) <= store.days[TODAY].tokens <= CAP // 5 + CAP // 100


async def test_what_a_store_knew_before_is_added_once_it_can_be_read(clock):
    store = OwnStore()
    store.days[TODAY], store.away = Amounts(tokens=100_000), True
    budget = a_budget(CAPS, clock, store)
    await spend(budget, 50_000)
    await tidied(budget)
    store.away = False
    clock.now += AWAY
    await spend(budget, 570)
    assert held(budget) == 150_570


async def test_a_store_that_has_lost_the_day_learns_it_again(clock):
    budget = a_budget(CAPS, clock, store := MemoryStore())
    await spend(budget, 100_000)
    await tidied(budget)
    store.days.clear()
    await spend(budget, 570)
    await spend(budget, 570)
    assert store.days[TODAY].tokens >= 101_000


async def test_what_was_given_back_unheard_is_not_given_back_twice(clock):
    class Deaf(MemoryStore):
        """Does as it is told; its answers can be lost."""

        lost = False

        async def exchange(self, *asked):
            taken = await super().exchange(*asked)
            if self.lost:
                raise StoreError("lost")
            return taken

    one, other = (a_budget(CAPS, clock, store) for store in [Deaf()] * 2)
    store = one._store
    await spend(other, 50_000)
    await tidied(other)
    holds = [await one.reserve(0, PROMPT) for _ in range(10)]
    store.lost = True
    for hold in holds:
        hold.release()
    await tidied(one)
    store.lost = False
    clock.now += AWAY
    await one.close()
    await other.close()
    assert store.days[TODAY].tokens == 50_000


async def test_a_call_that_is_given_up_while_the_store_is_asked_leaves_nothing_untold(clock):
    class Hangs(MemoryStore):
        hangs = False
        hanging = asyncio.Event()

        async def exchange(self, *asked):
            if self.hangs:
                self.hanging.set()
                await asyncio.Event().wait()
            return await super().exchange(*asked)

    budget = a_budget(CAPS, clock, store := Hangs())
    hold = await budget.reserve(0, PROMPT)
    store.hangs = True
    hold.settle(Usage(1, 49_999, 1), "ok")
    await store.hanging.wait()  # it is being told that more was spent than was taken
    budget._tidying.cancel()
    await asyncio.sleep(0)
    store.hangs = False
    await spend(budget, 570)
    assert store.days[TODAY].tokens >= held(budget) == 50_570


async def test_a_store_that_hangs_does_not_hold_up_the_stop(clock, monkeypatch):
    class Hangs(MemoryStore):
        async def exchange(self, *asked):
            await asyncio.Event().wait()

    monkeypatch.setattr(spending, "LAST_WORDS", 0.01)
    await asyncio.wait_for(a_budget(CAPS, clock, Hangs()).close(), 10)


@pytest.mark.parametrize("cap", [30_000, 100_000, 250_000, CAP])
async def test_what_a_call_has_left_over_is_there_for_the_next_one_at_once(clock, cap):
    clock.now = NOON
    budget = a_budget(Amounts(tokens=cap), clock)
    for _ in range(5):
        await spend(budget, 500)
    assert held(budget) == 5 * 500
