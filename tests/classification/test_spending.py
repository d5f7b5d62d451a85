"""The budget of one process: what is reserved, what is counted in the end, and what it does without its store."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from spending import (
    CAP,
    CAPS,
    ESTIMATE,
    MAX_TOKENS,
    MIDNIGHT,
    PRICE,
    PROMPT,
    TODAY,
    MemoryStore,
    a_budget,
    exhaust,
    held,
    refused,
    spend,
)

from proxy.classification.pacing import DAY, NANO, Amounts, Price, Unit
from proxy.classification.usage import Usage
from proxy.errors import ClassifierOverBudget, StoreError

# What a call counts as


async def test_a_call_is_reserved_before_it_is_made_and_counts_what_it_took(clock):
    budget = a_budget(CAPS, clock)
    hold = await budget.reserve(0, PROMPT)
    assert held(budget) == ESTIMATE
    hold.settle(Usage(1, 480, 90), "ok")
    assert held(budget) == 570


async def test_a_call_that_was_not_made_counts_nothing(clock):
    budget = a_budget(CAPS, clock)
    (await budget.reserve(0, PROMPT)).release()
    assert held(budget) == 0


async def test_a_call_is_settled_once(clock):
    budget = a_budget(CAPS, clock)
    hold = await budget.reserve(0, PROMPT)
    hold.settle(Usage(1, 480, 90), "ok")
    hold.settle(None, "unavailable")
    hold.release()
    assert held(budget) == 570


@pytest.mark.parametrize(
    ("usage", "outcome", "counted"),
    [
        pytest.param(Usage(1), "ok", ESTIMATE, id="an answer that nobody counted"),
        pytest.param(Usage(2), "ok", 2 * ESTIMATE, id="two of them"),
        pytest.param(Usage(2), "invalid_answer", 2 * ESTIMATE, id="an answer that is no verdict"),
        pytest.param(Usage(4), "timeout", ESTIMATE, id="a provider may have worked on it"),
        pytest.param(Usage(4), "unavailable", ESTIMATE, id="it may have broken off"),
        pytest.param(Usage(1), "cancelled", ESTIMATE, id="it was given up"),
        pytest.param(None, "unavailable", ESTIMATE, id="lost with the worker"),
        pytest.param(Usage(1), "rate_limited", 0, id="turned away"),
        pytest.param(Usage(1), "rejected", 0, id="refused"),
        pytest.param(Usage(0), "timeout", 0, id="never sent"),
        pytest.param(Usage(2, 480, 90), "timeout", 570, id="what is counted holds, however it ended"),
        pytest.param(Usage(1, 480, None), "ok", 480 + MAX_TOKENS, id="an answer without its count"),
        pytest.param(Usage(1, None, 90), "ok", PROMPT // 3 + 90, id="a prompt without its count"),
    ],
)
async def test_what_is_not_known_counts_as_estimated(clock, usage, outcome, counted):
    budget = a_budget(CAPS, clock)
    (await budget.reserve(0, PROMPT)).settle(usage, outcome)
    assert held(budget) == counted


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        pytest.param(Usage(1, 1000, 100), 0.00021, id="by its price"),
        pytest.param(Usage(1, 1000, 100, 0.00005), 0.00005, id="what the call is said to have cost holds"),
        pytest.param(Usage(1), PRICE.of(PROMPT // 3, MAX_TOKENS) / NANO, id="as estimated"),
    ],
)
async def test_money_is_counted_at_the_price_of_the_model(clock, usage, usd):
    budget = a_budget(Amounts(nano_usd=NANO), clock)
    (await budget.reserve(0, PROMPT)).settle(usage, "ok")
    assert budget.spent() == Amounts(0, round(usd * NANO))


async def test_a_model_without_a_price_costs_tokens_and_no_money(clock):
    budget = a_budget(Amounts(CAP, NANO), clock, prices=[None])
    (await budget.reserve(0, PROMPT)).settle(Usage(1, 1000, 100), "ok")
    assert budget.spent() == Amounts(1100, 0)


async def test_a_price_that_a_call_tells_is_known_from_then_on(clock):
    budget = a_budget(Amounts(nano_usd=NANO), clock, prices=[None])
    (await budget.reserve(0, PROMPT)).settle(Usage(1, 900, 100, 0.01), "ok")
    assert budget.spent() == Amounts(0, NANO // 100)
    await budget.reserve(0, PROMPT)
    assert budget.spent().nano_usd == pytest.approx(NANO // 100 + ESTIMATE * NANO / 100_000, abs=2)


async def test_a_free_model_is_asked_when_the_money_is_spent(clock):
    budget = a_budget(Amounts(nano_usd=10_000), clock, prices=[PRICE, Price(0, 0), None])
    assert [await refused(budget, model) for model in range(3)] == [True, False, False]
    assert [budget.affords(model) for model in range(3)] == [False, True, True]


# What is reserved


async def test_calls_at_the_same_moment_never_exceed_what_is_released(clock):
    budget = a_budget(Amounts(tokens=100_000), clock, MemoryStore())
    calls = await asyncio.gather(*(budget.reserve(0, PROMPT) for _ in range(64)), return_exceptions=True)
    holds = [hold for hold in calls if not isinstance(hold, BaseException)]
    assert len(holds) == 20_000 // ESTIMATE
    assert all(isinstance(call, ClassifierOverBudget) for call in calls if call not in holds)
    assert held(budget) == len(holds) * ESTIMATE


async def test_of_calls_at_the_same_moment_one_asks_for_all(clock):
    budget = a_budget(Amounts(tokens=100 * CAP), clock, store := MemoryStore())
    await asyncio.gather(*(budget.reserve(0, PROMPT) for _ in range(64)))
    assert store.asked == 1


async def test_no_more_is_taken_than_is_missing(clock):
    budget = a_budget(Amounts(tokens=100_000), clock, store := MemoryStore())
    await spend(budget, ESTIMATE - 350)
    await budget.reserve(0, PROMPT)
    assert store.days[TODAY].tokens == held(budget) == 2 * ESTIMATE - 350


async def test_a_call_that_took_too_much_is_paid_for_by_the_next_ones(clock):
    budget = a_budget(CAPS, clock)
    await exhaust(budget)
    clock.now += DAY / 400  # 2000 more
    await spend(budget, 10_000)
    over = held(budget) - budget.released().tokens
    assert (over > 6000, await refused(budget)) == (True, True)
    clock.now += over / CAP / 0.8 * DAY
    assert await refused(budget)
    clock.now += (ESTIMATE + 2) / CAP / 0.8 * DAY
    assert not await refused(budget)


async def test_near_the_end_of_the_cap_the_most_that_a_call_takes_is_reserved(clock):
    budget = a_budget(CAPS, clock)
    await spend(budget, 3 * ESTIMATE)
    before = held(budget)
    (await budget.reserve(0, PROMPT)).release()
    await budget.reserve(0, PROMPT)
    assert held(budget) == before + ESTIMATE  # there is enough left of the day to make up for it
    clock.now = MIDNIGHT + DAY - 1
    while not await refused(budget):
        await spend(budget, 3 * ESTIMATE)
    assert CAP - 3 * ESTIMATE < held(budget) <= CAP - ESTIMATE  # one that takes what is estimated would have been fine


async def test_tomorrow_calls_are_trusted_again(clock):
    budget = a_budget(Amounts(tokens=20_000), clock)
    await spend(budget, 4 * ESTIMATE)
    clock.now += DAY
    await budget.reserve(0, PROMPT)
    assert held(budget) == ESTIMATE


# When it is spent


async def test_when_it_is_spent_calls_are_refused_until_enough_is_released(clock):
    budget = a_budget(CAPS, clock)
    assert await exhaust(budget) == CAP // 5 // ESTIMATE
    assert not budget.affords(0)
    (short,) = [held(budget) + ESTIMATE - CAP // 5]
    clock.now += (short - 2) / CAP / 0.8 * DAY
    assert (budget.affords(0), await refused(budget)) == (False, True)
    clock.now += 4 / CAP / 0.8 * DAY
    assert (budget.affords(0), await refused(budget)) == (True, False)


async def test_a_call_that_took_less_than_reserved_makes_room_at_once(clock):
    budget = a_budget(CAPS, clock)
    await exhaust(budget)
    clock.now += DAY / 100
    hold = await budget.reserve(0, PROMPT)
    await exhaust(budget)
    assert not budget.affords(0)
    hold.settle(Usage(1, 1, 1), "ok")
    assert budget.affords(0)


async def test_midnight_begins_a_new_day(clock):
    budget = a_budget(CAPS, clock, store := MemoryStore())
    await exhaust(budget)
    clock.now = MIDNIGHT + DAY
    assert (held(budget), budget.affords(0), budget.status()["next_at"]) == (0, True, None)
    await spend(budget, 570)
    assert (held(budget), set(store.days)) == (570, {TODAY, TODAY + 1})


async def test_midnight_while_the_store_is_asked_refuses_nobody(clock):
    class AtMidnight(MemoryStore):
        async def exchange(self, day, *rest):
            taken = await super().exchange(day, *rest)
            clock.now = MIDNIGHT + DAY
            return taken

    budget = a_budget(CAPS, clock, store := AtMidnight())
    clock.now -= 1 - DAY
    await budget.reserve(0, PROMPT)
    assert (held(budget), store.asked) == (ESTIMATE, 2)


async def test_what_a_file_refuses_at_midnight_is_not_taken_of_the_new_day(clock):
    class AwayAtMidnight(MemoryStore):
        shared = False

        async def exchange(self, day, *rest):
            clock.now = MIDNIGHT + DAY
            budget.spent()  # somebody looks at the metrics meanwhile
            raise StoreError("away")

    budget = a_budget(Amounts(3 * ESTIMATE), clock, AwayAtMidnight())
    clock.now -= 1 - DAY
    assert await refused(budget), "a fifth of it is less than a call"


async def test_a_clock_that_is_set_back_over_midnight_gives_nothing_twice(clock):
    budget = a_budget(CAPS, clock)
    await exhaust(budget)
    clock.now -= 60
    assert await refused(budget)
    clock.now -= 3 * DAY  # it was wrong all the time
    assert not await refused(budget)


async def test_one_line_a_day_says_so_and_when_it_goes_on(clock):
    budget = a_budget(CAPS, clock)
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            await exhaust(budget)
            clock.now += 3600
        clock.now = MIDNIGHT + DAY
        await exhaust(budget)
    assert [(line["log_level"], line["unit"], line["next_call_at"]) for line in said] == [
        ("error", "tokens", "2024-10-04T00:00:21+00:00"),
        ("error", "tokens", "2024-10-05T00:00:21+00:00"),
    ]
    assert (said[0]["released"], said[0]["limit_of_the_day"]) == (200_000, 1_000_000)


async def test_the_status_says_what_is_spent_and_when_it_goes_on(clock):
    budget = a_budget(Amounts(CAP, NANO), clock)
    await spend(budget, 570)
    status = budget.status()
    assert status["units"]["tokens"] == {"limit": CAP, "spent": 570, "released": CAP // 5}
    assert status["units"]["usd"]["limit"] == 1
    assert status["units"]["usd"]["spent"] == pytest.approx(PRICE.of(569, 1) / NANO)
    assert (status["day"], status["next_at"], status["error"]) == ("2024-10-04", None, "")
    await exhaust(budget)
    assert budget.status()["next_at"].startswith("2024-10-04T00:0")


async def test_only_what_has_a_cap_is_shown(clock):
    assert set(a_budget(Amounts(nano_usd=NANO), clock).status()["units"]) == {"usd"}
    assert a_budget(CAPS, clock).units == [Unit.TOKENS]
