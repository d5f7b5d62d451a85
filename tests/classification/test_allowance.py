import pytest
from simulated import Time

from proxy.classification.allowance import WaitingAllowance


@pytest.fixture
def time():
    return Time()


def test_what_is_taken_is_gone(time):
    allowance = WaitingAllowance(6, monotonic=lambda: time.monotonic)
    assert [allowance.take(3), allowance.take(2), allowance.take(3), allowance.take(3)] == [3, 2, 1, 0]


def test_it_refills_by_a_tenth_of_the_time_that_passes(time):
    allowance = WaitingAllowance(6, monotonic=lambda: time.monotonic)
    allowance.take(6)
    time.passes(seconds=10)
    assert allowance.take(6) == pytest.approx(1)


def test_it_never_holds_more_than_its_capacity(time):
    allowance = WaitingAllowance(6, monotonic=lambda: time.monotonic)
    allowance.give_back(5)
    time.passes(seconds=3600)
    assert allowance.take(100) == 6


def test_what_was_not_needed_can_be_used_again(time):
    allowance = WaitingAllowance(6, monotonic=lambda: time.monotonic)
    allowance.give_back(allowance.take(6) - 1)
    assert allowance.take(6) == 5


def test_a_wait_that_took_longer_than_granted_gives_nothing_back(time):
    allowance = WaitingAllowance(6, monotonic=lambda: time.monotonic)
    allowance.take(6)
    allowance.give_back(-1)
    assert allowance.take(6) == 0
