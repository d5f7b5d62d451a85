"""The memory of those that went bare for want of room."""

import pytest
from simulated import Time

from proxy.alert import identity
from proxy.decisions.overflow import Overflow

LIFETIME = 3600.0
A, B, C = (identity({"alertname": name}) for name in "ABC")


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def overflow(time):
    return Overflow(2, LIFETIME, lambda: time.monotonic, lambda: time.now)


def test_who_was_added_is_known_and_nobody_else(overflow):
    assert not overflow.seen(A)
    overflow.add(A)
    assert (overflow.seen(A), overflow.seen(B), len(overflow)) == (True, False, 1)


@pytest.mark.parametrize("begun", [0, 1800, 3599])
def test_who_is_seen_within_the_lifetime_is_known_for_ever(overflow, time, begun):
    time.passes(seconds=begun)
    overflow.add(A)
    for _ in range(50):
        time.passes(seconds=LIFETIME)
        assert overflow.seen(A)
    assert len(overflow) == 1


@pytest.mark.parametrize("begun", [0, 1800, 3599])
def test_who_is_not_seen_for_two_lifetimes_is_forgotten(overflow, time, begun):
    time.passes(seconds=begun)
    overflow.add(A)
    time.passes(seconds=2 * LIFETIME)
    assert not overflow.seen(A)
    assert len(overflow) == 0


def test_after_a_long_silence_nobody_is_left_and_new_ones_are_known(overflow, time):
    overflow.add(A)
    time.passes(days=30)
    overflow.add(B)
    assert (overflow.seen(A), overflow.seen(B)) == (False, True)
    time.passes(seconds=LIFETIME)
    assert overflow.seen(B)


def test_over_its_capacity_it_remembers_only_when_that_was(overflow, time):
    overflow.add(A)
    overflow.add(B)
    assert overflow.lost_at is None
    time.passes(minutes=1)
    overflow.add(C)
    assert (overflow.seen(C), overflow.lost_at, len(overflow)) == (False, time.now, 2)


def test_the_forgotten_leave_room(overflow, time):
    overflow.add(A)
    overflow.add(B)
    time.passes(seconds=2 * LIFETIME)
    overflow.add(C)
    assert (overflow.seen(C), overflow.lost_at) == (True, None)


# Those whose end is far away

LONG = 6 * LIFETIME


@pytest.mark.parametrize("passes", [0, LIFETIME, LONG - 1])
def test_whose_end_is_far_away_is_known_until_then_unseen(overflow, time, passes):
    overflow.add(A, LONG)
    time.passes(seconds=passes)
    assert overflow.seen(A)


def test_whose_end_has_passed_leaves_room(overflow, time):
    overflow.add(A, LONG)
    overflow.add(B, LONG)
    time.passes(seconds=LONG + LIFETIME)
    overflow.add(C)
    assert (overflow.seen(A), overflow.seen(C), overflow.lost_at, len(overflow)) == (False, True, None, 1)


@pytest.mark.parametrize("lasts", [0.0, LONG])
def test_whose_end_was_far_away_is_known_as_long_as_it_is_seen(overflow, time, lasts):
    overflow.add(A, LONG)
    for _ in range(20):
        time.passes(seconds=max(lasts, LIFETIME) - 1)
        assert overflow.seen(A, lasts)
    assert len(overflow) == 1


def test_a_nearer_end_takes_no_time_away(overflow, time):
    overflow.add(A, LONG)
    assert overflow.seen(A, LIFETIME)
    assert len(overflow) == 1
    time.passes(seconds=LONG - 1)
    assert overflow.seen(A)


@pytest.mark.parametrize("before", [0, LIFETIME])
def test_whose_end_moves_far_away_is_known_until_then(overflow, time, before):
    overflow.add(A)
    time.passes(seconds=before)
    assert overflow.seen(A, LONG)
    assert len(overflow) == 1
    time.passes(seconds=LONG - 1)
    assert overflow.seen(A)
