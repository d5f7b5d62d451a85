import pytest

from proxy.classification.allowance import WaitingAllowance


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock():
    return Clock()


def test_what_is_taken_is_gone(clock):
    allowance = WaitingAllowance(6, monotonic=clock)
    assert [allowance.take(3), allowance.take(2), allowance.take(3), allowance.take(3)] == [3, 2, 1, 0]


def test_it_refills_by_a_tenth_of_the_time_that_passes(clock):
    allowance = WaitingAllowance(6, monotonic=clock)
    allowance.take(6)
    clock.time += 10
    assert allowance.take(6) == pytest.approx(1)


def test_it_never_holds_more_than_its_capacity(clock):
    allowance = WaitingAllowance(6, monotonic=clock)
    allowance.give_back(5)
    clock.time += 3600
    assert allowance.take(100) == 6


def test_what_was_not_needed_can_be_used_again(clock):
    allowance = WaitingAllowance(6, monotonic=clock)
    allowance.give_back(allowance.take(6) - 1)
    assert allowance.take(6) == 5


def test_a_wait_that_took_longer_than_granted_gives_nothing_back(clock):
    allowance = WaitingAllowance(6, monotonic=clock)
    allowance.take(6)
    allowance.give_back(-1)
    assert allowance.take(6) == 0
