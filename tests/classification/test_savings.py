"""What the class cache saves."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeModel, verdict
from simulated import simulated
from tiers import FakeVerdicts, Replica, class_of

from proxy.classification.savings import Savings
from proxy.classification.usage import Usage


def test_a_call_that_was_not_made_is_worth_the_mean_of_those_that_were():
    told = []
    savings = Savings(lambda tokens, usd: told.append((tokens, usd)))
    savings.made(Usage(1, 400, 100, 0.01))
    savings.made(Usage(2, 800, 100, 0.02))
    savings.saved(2)
    savings.made(Usage(1, 3200, 0, None))
    savings.saved(1)
    assert (savings.calls, savings.tokens) == (3, 2 * 700 + (500 + 900 + 3200) / 3)
    assert savings.usd == pytest.approx(0.03 + 0.01)
    assert told == [(1400, pytest.approx(0.03)), (pytest.approx(4600 / 3), pytest.approx(0.01))]


def test_a_call_about_several_counts_for_each_of_them():
    savings = Savings()
    savings.made(Usage(1, 800, 200), 5)
    savings.made(Usage(1, 480, 20))
    savings.saved(1)
    assert savings.tokens == 1500 / 6


def test_what_was_saved_before_the_first_call_is_counted_with_it():
    savings = Savings()
    savings.saved(3)
    savings.made(Usage(1))  # of which nothing is known
    assert (savings.calls, savings.tokens) == (3, 0)
    savings.made(Usage(1, 480, 20))
    savings.made(Usage(1, 480, 20))
    assert (savings.tokens, savings.usd) == (1500, 0)


@simulated
async def test_each_class_whose_verdict_is_known_saves_a_call():
    store, known = FakeVerdicts(), []
    store.put_aside(class_of("Disk"), verdict())
    async with Replica(FakeModel(), store, on_known=known.append) as proxy:
        await proxy.ask("Disk")  # from the store
        await asyncio.sleep(0)
        assert known == [1]
        await proxy.ask("Cpu")  # by the model
        await asyncio.sleep(0)
        assert known == [1]
        await proxy.ask("Disk", "Cpu", "Cpu")  # from memory
        assert known == [1, 2]
