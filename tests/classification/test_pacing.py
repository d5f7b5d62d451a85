"""What is released of a day's caps by when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.classification.pacing import DAY, NANO, Amounts, Price, Unit, day_of, released, released_at

CAPS = st.integers(1000, 10**12)
SECONDS = st.floats(0, DAY, exclude_max=True)


@pytest.mark.parametrize(
    ("hour", "share"), [(0, 0.2), (6, 0.4), (9, 0.5), (12, 0.6), (24, 1.0), (30, 1.0), (-1, 0.2)], ids=str
)
def test_a_fifth_is_there_at_midnight_and_the_rest_comes_evenly(hour, share):
    caps = Amounts(1_000_000, 5 * NANO)
    now = released(caps, 7, 7 * DAY + hour * 3600)
    assert (now.tokens, now.nano_usd) == (pytest.approx(share * 1_000_000), pytest.approx(share * 5 * NANO))


def test_of_no_cap_nothing_is_released():
    assert released(Amounts(0, 5), 7, 8 * DAY) == Amounts(0, 5)


@given(CAPS, SECONDS, SECONDS)
def test_it_never_gets_less_within_a_day_and_never_more_than_the_cap(cap, one, other):
    early, late = (released(Amounts(cap), 3, 3 * DAY + second).tokens for second in sorted((one, other)))
    assert 0 <= early <= late <= cap


@given(CAPS, st.floats(0, 1))
def test_at_the_moment_that_is_named_it_is_there(cap, share):
    amount = int(cap * share)
    at = released_at(cap, 3, amount)
    assert 3 * DAY <= at <= 4 * DAY
    assert released(Amounts(cap), 3, at).tokens >= amount
    # And not much earlier; a moment is only as exact as the time since 1970 is.
    assert at == 3 * DAY or released(Amounts(cap), 3, at - 1).tokens <= amount + 1


def test_more_than_the_cap_is_there_tomorrow():
    assert released_at(1000, 3, 1001) == 4 * DAY
    assert day_of(released_at(1000, 3, 1001)) == 4
    assert day_of(4 * DAY - 0.001) == 3


def test_a_price_is_of_a_million_and_a_call_is_never_cheaper_than_it_is():
    price = Price.per_million(0.15, 0.60)
    assert price.of(1_000_000, 0) == 0.15 * NANO
    assert price.of(0, 1_000_000) == 0.60 * NANO
    assert Price.per_million(0.0375, 0).of(1, 0) == 38
    assert Price.per_million(0, 0).of(10**9, 10**9) == 0


def test_amounts_are_shown_in_tokens_and_dollars():
    amounts = Amounts(7, 1_500_000_000)
    assert (amounts.shown(Unit.TOKENS), amounts.shown(Unit.USD)) == (7, 1.5)


@pytest.mark.parametrize(
    ("has", "needs", "covers"),
    [
        (Amounts(5, 5), Amounts(5, 5), True),
        (Amounts(5, 4), Amounts(5, 5), False),
        (Amounts(4, 5), Amounts(5, 5), False),
        (Amounts(5, -9), Amounts(5, 0), True),
    ],
)
def test_what_is_not_needed_need_not_be_there(has, needs, covers):
    assert has.covers(needs) is covers
