"""The circuit breaker: examples to read, and a state machine that compares it with a plain account of its rules."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from proxy.classification.breaker import LONGEST_RESET, BreakerState, CircuitBreaker, Limits, Permit

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN

LIMITS = Limits(
    max_failures=3,
    failure_rate=50,
    slow_rate=80,
    slow_call=timedelta(seconds=3),
    min_calls=5,
    reset_timeout=timedelta(seconds=30),
)


@dataclass
class Watched:
    """A breaker, its clock, and what it said."""

    limits: Limits | None = LIMITS
    now: float = 1000.0
    changes: list[tuple[BreakerState, BreakerState]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(
            self.limits, on_change=lambda was, now: self.changes.append((was, now)), monotonic=lambda: self.now
        )

    def admit(self) -> Permit:
        permit = self.breaker.admit()
        assert permit is not None
        return permit

    def calls(self, outcomes: str) -> None:
        """Make calls one by one: `.` works, `x` fails, `s` is slow, `A` is a refusal of the alert A."""
        for one in outcomes:
            match one:
                case ".":
                    self.admit().succeeded(3.0)
                case "s":
                    self.admit().succeeded(3.1)
                case "x":
                    self.admit().failed(1.0)
                case subject:
                    self.admit().failed(1.0, subject)


@pytest.fixture
def one():
    return Watched()


@pytest.mark.parametrize(
    ("outcomes", "why"),
    [
        pytest.param("xxx", "failures in a row: 3", id="failures in a row"),
        pytest.param("xx.xx", "failed: 4 of 5 calls", id="a share of failures"),
        pytest.param(
            ".........." + ".x.x.x.x.x", "failed: 5 of 10 calls", id="a share of the last calls, whatever was before"
        ),
        pytest.param(".ssss", "slow: 4 of 5 calls", id="a share of slow calls"),
        pytest.param("ABC", "failures in a row: 3", id="refusals of different alerts"),
        pytest.param("AxB", "failures in a row: 3", id="refusals and failures"),
        pytest.param("AAxAx", "failures in a row: 3", id="refusals of one alert are one failure"),
    ],
)
def test_it_opens_after(one, outcomes, why):
    one.calls(outcomes[:-1])
    assert (one.breaker.state, one.breaker.why) == (CLOSED, "")
    one.calls(outcomes[-1])
    assert (one.breaker.state, one.breaker.why) == (OPEN, why)
    assert one.breaker.admit() is None
    assert one.changes == [(CLOSED, OPEN)]


@pytest.mark.parametrize(
    "outcomes",
    [
        pytest.param("." * 30, id="calls that work"),
        pytest.param("xx" + "." * 3 + "..x" * 10, id="a failure now and then"),
        pytest.param(".s.s" * 10, id="fewer slow calls than the share"),
        pytest.param("A" * 30, id="one alert that is refused over and over"),
        pytest.param(".A" * 30, id="one alert that is refused between others that work"),
        pytest.param("xx.", id="a call that works ends the row"),
        pytest.param("ssss", id="too few calls for a share"),
    ],
)
def test_it_stays_closed_after(one, outcomes):
    one.calls(outcomes)
    assert (one.breaker.state, one.changes) == (CLOSED, [])


def test_an_alert_refused_again_counts_when_its_refusal_has_left_the_window():
    one = Watched(replace(LIMITS, failure_rate=30, max_failures=10))
    one.calls("A" + "." * 9 + "A" + "." + "A" + "B")
    assert one.breaker.state is CLOSED
    one.calls("C")
    assert one.breaker.why == "failed: 3 of 10 calls"


def test_slow_calls_are_judged_by_a_share_alone(one):
    one.calls("s...s.ss" + "s")
    assert one.breaker.state is CLOSED


def test_without_a_limit_no_call_is_slow():
    one = Watched(replace(LIMITS, slow_call=None))
    for _ in range(30):
        one.admit().succeeded(1e6)
    assert one.breaker.state is CLOSED
    one.calls("xxx")
    one.now += 30
    one.admit().succeeded(1e6)
    assert one.breaker.state is CLOSED


def test_a_slow_failure_is_slow_too():
    one = Watched(replace(LIMITS, failure_rate=100, max_failures=6))
    one.calls("sss.")
    one.admit().failed(60.0)
    assert one.breaker.why == "slow: 4 of 5 calls"


def test_without_limits_it_never_opens():
    one = Watched(None)
    one.calls("x" * 100)
    assert (one.breaker.state, one.changes) == (CLOSED, [])


def test_half_open_lets_one_call_through(one):
    one.calls("xxx")
    one.now += 29.9
    assert (one.breaker.state, one.breaker.ready, one.breaker.admit()) == (OPEN, False, None)
    one.now += 0.1
    assert (one.breaker.state, one.breaker.ready) == (HALF_OPEN, True)
    one.admit()
    assert (one.breaker.state, one.breaker.ready, one.breaker.admit()) == (HALF_OPEN, False, None)


def test_a_probe_that_answers_closes_it_and_the_past_is_forgotten(one):
    one.calls("xxx")
    one.now += 30
    one.calls(".")
    assert (one.breaker.state, one.breaker.why) == (CLOSED, "")
    assert one.changes == [(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED)]
    one.calls("xx")
    assert one.breaker.state is CLOSED
    one.calls("x")
    assert one.breaker.pause == timedelta(seconds=30)


@pytest.mark.parametrize("outcome", ["x", "s", "A"])
def test_each_probe_that_fails_or_is_slow_doubles_the_time_up_to_the_longest(one, outcome):
    one.calls("xxx")
    for pause in (30, 60, 120, 240, 300, 300):
        assert one.breaker.pause == timedelta(seconds=pause)
        one.now += pause - 0.1
        assert one.breaker.admit() is None
        one.now += 0.1
        one.calls(outcome)
    assert one.breaker.why == "failures in a row: 3"


def test_a_time_longer_than_the_longest_stays_as_it_is():
    one = Watched(replace(LIMITS, reset_timeout=timedelta(hours=1)))
    assert timedelta(hours=1) > LONGEST_RESET
    one.calls("xxx")
    one.now += 3600
    one.calls("x")
    assert one.breaker.pause == timedelta(hours=1)


def test_a_probe_that_is_abandoned_is_given_back(one):
    one.calls("xxx")
    one.now += 30
    lost = one.admit()
    lost.abandoned()
    assert one.breaker.state is HALF_OPEN
    second = one.admit()
    lost.abandoned()
    lost.succeeded(1)
    assert one.breaker.admit() is None
    second.succeeded(1)
    assert one.breaker.state is CLOSED


def test_calls_from_before_the_opening_change_nothing(one):
    late = [one.admit() for _ in range(8)]
    one.calls("xxx")
    late[0].succeeded(1)
    late[1].failed(1)
    assert (one.breaker.state, one.breaker.pause) == (OPEN, timedelta(seconds=30))
    one.now += 30
    probe = one.admit()
    late[2].succeeded(1)
    late[3].failed(1)
    late[4].abandoned()
    assert (one.breaker.state, one.breaker.admit()) == (HALF_OPEN, None)
    probe.succeeded(1)
    for permit in late[5:]:
        permit.failed(1)
    assert one.breaker.state is CLOSED


def test_the_first_outcome_of_a_call_counts_and_only_that(one):
    permit = one.admit()
    permit.succeeded(1)
    for _ in range(9):
        permit.failed(1)
    assert one.breaker.state is CLOSED
    one.calls("xx")
    failed = one.admit()
    failed.failed(1)
    failed.succeeded(1)
    assert one.breaker.state is OPEN


def test_a_reset_closes_it_at_once(one):
    late = one.admit()
    one.calls("xx")
    one.breaker.reset()
    late.failed(1)
    one.calls("xx")
    assert (one.breaker.state, one.changes) == (CLOSED, [])
    one.calls("x")
    one.breaker.reset()
    assert (one.breaker.state, one.breaker.why, one.changes) == (CLOSED, "", [(CLOSED, OPEN), (OPEN, CLOSED)])


def test_states_have_numbers_for_the_metric():
    assert [state.number for state in (CLOSED, HALF_OPEN, OPEN)] == [0, 1, 2]


@dataclass
class Call:
    permit: Permit
    era: int
    used: bool = False


class Account(RuleBasedStateMachine):
    """The rules once more, told as plainly as possible: everything is kept, and counted anew each time."""

    permits = Bundle("permits")

    @initialize(
        max_failures=st.integers(1, 8),
        failure_percent=st.integers(1, 100),
        slow_percent=st.integers(1, 100),
        slow_call=st.sampled_from([None, 3]),
        min_calls=st.integers(1, 6),
    )
    def begin(self, max_failures, failure_percent, slow_percent, slow_call, min_calls):
        self.limits = Limits(
            max_failures,
            failure_percent,
            slow_percent,
            None if slow_call is None else timedelta(seconds=slow_call),
            min_calls,
            timedelta(seconds=30),
        )
        self.watched = Watched(self.limits)
        self.breaker = self.watched.breaker
        self.opened_at: float | None = None
        self.pause = 0
        self.probe: Call | None = None
        self.era = 0
        self.history: list[tuple[bool, bool, str]] = []
        self.changes: list[tuple[BreakerState, BreakerState]] = []
        self.told = CLOSED

    def expected(self) -> BreakerState:
        if self.opened_at is None:
            return CLOSED
        return HALF_OPEN if self.watched.now >= self.opened_at + self.pause else OPEN

    def change(self, state: BreakerState) -> None:
        self.era += 1
        self.history.clear()
        self.probe = None
        if state is not self.told:
            self.changes.append((self.told, state))
            self.told = state

    def open(self, pause: int) -> None:
        self.opened_at, self.pause = self.watched.now, pause
        self.change(OPEN)

    def close(self) -> None:
        self.opened_at = None
        self.change(CLOSED)

    @rule(target=permits)
    def admit(self):
        state = self.expected()
        permit = self.breaker.admit()
        if state is OPEN or self.probe is not None:
            assert permit is None
            return None
        assert permit is not None
        if self.told is OPEN:
            self.change(HALF_OPEN)
        call = Call(permit, self.era)
        if state is HALF_OPEN:
            self.probe = call
        return call

    @rule(seconds=st.sampled_from([1, 29, 30, 61, 300]))
    def wait(self, seconds):
        self.watched.now += seconds

    @rule(call=permits)
    def abandon(self, call):
        if call is None:
            return
        call.permit.abandoned()
        if not call.used and call is self.probe:
            self.probe = None
        call.used = True

    @rule()
    def reset(self):
        self.breaker.reset()
        self.close()

    @rule(
        call=permits, fails=st.booleans(), seconds=st.sampled_from([1, 3, 4]), subject=st.sampled_from(["", "A", "B"])
    )
    def land(self, call, fails, seconds, subject):
        if call is None:
            return
        if fails:
            call.permit.failed(seconds, subject)
        else:
            call.permit.succeeded(seconds)
        used, call.used = call.used, True
        if used or call.era != self.era:
            return
        slow = self.limits.slow_call is not None and seconds > 3
        if call is self.probe:
            if fails or slow:
                self.open(min(self.pause * 2, 300))
            else:
                self.close()
            return
        kept = self.history[-2 * self.limits.min_calls :]
        if fails and subject and subject in [subject for _, _, subject in kept]:
            return
        self.history.append((fails, slow, subject if fails else ""))
        if self.too_much():
            self.open(30)

    def too_much(self) -> bool:
        row = 0
        for fails, _, _ in reversed(self.history):
            if not fails:
                break
            row += 1
        last = self.history[-2 * self.limits.min_calls :]
        if row >= self.limits.max_failures:
            return True
        if len(last) < self.limits.min_calls:
            return False
        failing = sum(fails for fails, _, _ in last) / len(last) * 100
        slowness = sum(slow for _, slow, _ in last) / len(last) * 100
        return failing >= self.limits.failure_rate or (
            self.limits.slow_call is not None and slowness >= self.limits.slow_rate
        )

    @invariant()
    def they_agree(self):
        if not hasattr(self, "breaker"):
            return
        assert self.breaker.state is self.expected()
        assert self.breaker.ready is (self.expected() is not OPEN and self.probe is None)
        assert self.watched.changes == self.changes
        assert bool(self.breaker.why) is (self.opened_at is not None)
        if self.opened_at is not None:
            assert self.breaker.pause == timedelta(seconds=self.pause)


Account.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestAccount = Account.TestCase
