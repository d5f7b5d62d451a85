"""The chain: who is asked, in which order, for how long, and what each breaker learns of it.

Time is the loop's. The limits are long, or so short that only their order matters; nothing here measures.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes import FakeModel, an_alert, verdict

from proxy.classification import chain
from proxy.classification.breaker import BreakerState, CircuitBreaker, Limits
from proxy.classification.chain import Chain, Link
from proxy.classification.classification import Classification, Severity
from proxy.classification.classifier import unheard
from proxy.classification.queue import WAITING_LIMIT
from proxy.errors import (
    ClassifierBusy,
    ClassifierError,
    ClassifierInvalidAnswer,
    ClassifierOpen,
    ClassifierRateLimited,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
    ClassifierUndecided,
    ClassifierUnusable,
)

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN
LABELS = verdict(Severity.CRITICAL, summary="")
OTHER = verdict(Severity.NOISE)

LIMITS = Limits(
    max_failures=2,
    failure_rate=100,
    slow_rate=100,
    slow_call=timedelta(seconds=20),
    min_calls=50,
    reset_timeout=timedelta(seconds=30),
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Talker(FakeModel):
    """Tells `LABELS` early, then does as its script says."""

    async def classify(self, alert, early=unheard, seconds=None):
        early(LABELS)
        return await super().classify(alert)


class Made:
    """A chain and its parts."""

    def __init__(
        self, *models, timeout: float = 60, concurrency: int = 4, monotonic: Callable[[], float] | None = None
    ):
        self.clock = Clock()
        self.links = [
            Link(f"model {n}", model, CircuitBreaker(LIMITS, monotonic=self.clock)) for n, model in enumerate(models)
        ]
        options = {"monotonic": monotonic} if monotonic else {}
        self.attempts: list[tuple[int, str]] = []
        self.chain = Chain(
            self.links,
            timeout=timedelta(seconds=timeout),
            concurrency=concurrency,
            on_attempt=lambda n, outcome, _: self.attempts.append((n, outcome)),
            **options,
        )

    async def ask(self, name: str = "HighLatency", early=unheard) -> Classification:
        return await self.chain.classify(an_alert(name), early)

    @property
    def states(self) -> list[BreakerState]:
        return [link.breaker.state for link in self.links]

    def open(self, n: int) -> None:
        for _ in range(LIMITS.max_failures):
            self.links[n].breaker.admit().failed(1)

    def spent(self, n: int) -> int:
        """How many failures the n-th breaker has counted."""
        missing = 0
        while self.links[n].breaker.state is CLOSED:
            self.links[n].breaker.admit().failed(1)
            missing += 1
        return LIMITS.max_failures - missing


async def test_the_first_that_answers_is_the_only_one_asked():
    second = FakeModel([OTHER])
    made = Made(FakeModel(), second)
    assert await made.ask() == verdict()
    assert second.asked == []


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (ClassifierUnavailable, 1),
        (ClassifierTimeout, 1),
        (ClassifierRateLimited, 1),
        (ClassifierRejected, 1),
        (ClassifierUnusable, 0),
        (ClassifierUndecided, 0),
    ],
)
async def test_the_next_is_asked_after(error, counted):
    made = Made(FakeModel([error("x")]), FakeModel([OTHER]))
    assert await made.ask() == OTHER
    assert made.links[0].last_error == f"{error.reason}: x"
    assert [made.spent(0), made.spent(1)] == [counted, 0]


@pytest.mark.parametrize("error", [ClassifierInvalidAnswer, ClassifierBusy, ClassifierError, ZeroDivisionError])
async def test_nobody_else_is_asked_after(error):
    second = FakeModel()
    made = Made(FakeModel([error("x")]), second)
    with pytest.raises(error, match="x"):
        await made.ask()
    assert (second.asked, made.spent(0)) == ([], 0)


@pytest.mark.parametrize("answer", [ClassifierInvalidAnswer, ClassifierUndecided])
async def test_an_invalid_answer_and_none_are_answers(answer):
    made = Made(FakeModel([ClassifierUnavailable("x"), answer("x"), ClassifierUnavailable("x")]))
    for _ in range(3):
        with pytest.raises(ClassifierError):
            await made.ask()
    assert made.states == [CLOSED]


async def test_a_key_that_is_refused_is_not_presented_for_ever():
    made = Made(FakeModel([ClassifierRejected("AuthenticationError 401")]))
    for name in ("A", "A", "A", "B"):
        assert made.states == [CLOSED]
        with pytest.raises(ClassifierRejected):
            await made.ask(name)
    assert made.states == [OPEN]


async def test_all_failing_is_the_error_of_the_last():
    made = Made(FakeModel([ClassifierTimeout("x")]), FakeModel([ClassifierRateLimited("y")]))
    with pytest.raises(ClassifierRateLimited, match="y"):
        await made.ask()


async def test_having_nothing_to_say_hides_no_failure():
    with pytest.raises(ClassifierUndecided):
        await Made(FakeModel([ClassifierUndecided("x")])).ask()
    made = Made(FakeModel([ClassifierTimeout("x")]), FakeModel([ClassifierUndecided("y")]))
    with pytest.raises(ClassifierTimeout, match="x"):
        await made.ask()
    made = Made(FakeModel([ClassifierUndecided("x")]), FakeModel([ClassifierTimeout("y")]))
    with pytest.raises(ClassifierTimeout, match="y"):
        await made.ask()


async def test_an_error_says_nothing_of_the_one_before():
    made = Made(FakeModel([ClassifierTimeout("x")]), FakeModel([ClassifierRejected("y")]))
    with pytest.raises(ClassifierRejected) as caught:
        await made.ask()
    assert caught.value.__suppress_context__


async def test_one_that_is_open_is_passed_over():
    first = FakeModel()
    made = Made(first, FakeModel([OTHER]))
    made.open(0)
    assert await made.ask() == OTHER
    assert first.asked == []


async def test_the_last_error_is_forgotten_with_the_next_answer():
    made = Made(FakeModel([ClassifierUnavailable("x"), verdict()]), FakeModel())
    await made.ask()
    assert made.links[0].last_error == "unavailable: x"
    await made.ask()
    assert made.links[0].last_error == ""


async def test_when_all_are_open_it_says_so_at_once_even_while_others_wait():
    hanging = FakeModel([None])
    made = Made(hanging, concurrency=1)
    calls = [asyncio.create_task(made.ask(name)) for name in ("A", "B")]
    while not hanging.asked:
        await asyncio.sleep(0)
    made.open(0)
    with pytest.raises(ClassifierOpen):
        await made.ask("C")
    hanging.release.set()
    # The one that waited for a place is not asked about either.
    first, second = await asyncio.gather(*calls, return_exceptions=True)
    assert (first, type(second), len(hanging.asked)) == (verdict(), ClassifierOpen, 1)


def test_open_is_an_error_of_its_own():
    assert (ClassifierOpen.reason, ClassifierOpen.retryable) == ("breaker_open", False)


# Time


async def test_one_that_hangs_leaves_time_for_the_next():
    hanging = FakeModel([None])
    made = Made(hanging, FakeModel([OTHER]), timeout=0.1)
    assert await asyncio.wait_for(made.ask(), 10) == OTHER
    assert made.links[0].last_error == "timeout: no answer in time"
    assert made.spent(0) == 1


@pytest.fixture
def granted(monkeypatch):
    """The seconds that each attempt was given."""
    seconds = []

    def timeout(given):
        seconds.append(given)
        return asyncio.timeout(None)

    monkeypatch.setattr(chain, "asyncio", type("Spied", (), {**vars(asyncio), "timeout": staticmethod(timeout)}))
    return seconds


class Takes(FakeModel):
    """Fails after a while by the clock it is given, and keeps in `told` how long it may take."""

    def __init__(self, clock, seconds, told):
        super().__init__([ClassifierUnavailable("x")])
        self.clock, self.seconds, self.told = clock, seconds, told

    async def classify(self, alert, early=unheard, seconds=None):
        self.told.append(seconds)
        self.clock.now += self.seconds
        return await super().classify(alert)


@pytest.mark.parametrize(
    ("took", "left_alone", "seconds"),
    [
        pytest.param([0, 0, 0], [], [20, 30, 60 + chain.GRACE], id="what fails at once leaves its time to the next"),
        pytest.param([20, 20, 20], [], [20, 20, 20 + chain.GRACE], id="equal shares"),
        pytest.param([5, 5, 5], [], [20, 27.5, 50 + chain.GRACE], id="what is left is shared anew"),
        pytest.param([5, 5, 5], [1], [30, 55 + chain.GRACE], id="one that is left alone has no share"),
        pytest.param([5, 5, 5], [1, 2], [60 + chain.GRACE], id="the last in line keeps its own deadline"),
        pytest.param([60, 5, 5], [], [20], id="no time left"),
    ],
)
async def test_the_time_is_shared(granted, took, left_alone, seconds):
    clock, told = Clock(), []
    made = Made(*(Takes(clock, each, told) for each in took), timeout=60, monotonic=clock)
    for n in left_alone:
        made.open(n)
    with pytest.raises(ClassifierUnavailable):
        await made.ask()
    assert granted == pytest.approx(seconds)
    last = len(seconds) == len(took) - len(left_alone)
    assert told == pytest.approx([*seconds[:-1], seconds[-1] - chain.GRACE * last])


@pytest.mark.parametrize("answer", [verdict(), ClassifierInvalidAnswer("x")], ids=["a verdict", "no verdict"])
@pytest.mark.parametrize(("seconds", "state"), [(20, CLOSED), (21, OPEN)])
async def test_the_breaker_learns_how_long_a_call_took(seconds, state, answer):
    clock = Clock()

    class Slow(FakeModel):
        async def classify(self, alert, early=unheard, _seconds=None):
            clock.now += seconds
            return await super().classify(alert)

    made = Made(Slow([answer]), monotonic=clock)
    for _ in range(LIMITS.min_calls):
        with contextlib.suppress(ClassifierInvalidAnswer):
            await made.ask()
    assert made.states == [state]


async def test_a_turn_begins_with_its_place():
    clock = Clock()
    model = FakeModel([None])
    made = Made(model, timeout=60, concurrency=1, monotonic=clock)
    calls = [asyncio.create_task(made.ask(name)) for name in ("A", "B")]
    while not model.asked:
        await asyncio.sleep(0)
    clock.now += 61
    model.release.set()
    assert await asyncio.gather(*calls) == [verdict(), verdict()]


# Places


async def test_no_more_calls_than_places_are_under_way():
    model = FakeModel([None])
    made = Made(model, concurrency=3)
    calls = [asyncio.create_task(made.ask(f"A{n}")) for n in range(7)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(model.asked) == 3
    model.release.set()
    await asyncio.gather(*calls)
    assert len(model.asked) == 7


async def test_when_too_many_wait_the_oldest_is_turned_away():
    made = Made(model := FakeModel([None]), concurrency=1)
    calls = [asyncio.create_task(made.ask(f"A{n}")) for n in range(1 + WAITING_LIMIT + 1)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert (made.chain.running, made.chain.waiting) == (1, WAITING_LIMIT)
    with pytest.raises(ClassifierBusy, match="1000 calls wait already"):
        await calls[1]
    model.release.set()
    assert await asyncio.gather(calls[0], *calls[2:]) == [verdict()] * (1 + WAITING_LIMIT)


async def test_a_place_is_given_back_however_the_call_ends():
    model = FakeModel([ZeroDivisionError("x"), ClassifierInvalidAnswer("x"), None])
    made = Made(model, concurrency=1)
    with pytest.raises(ZeroDivisionError):
        await made.ask()
    with pytest.raises(ClassifierInvalidAnswer):
        await made.ask()
    cancelled = asyncio.create_task(made.ask())
    while len(model.asked) < 3:
        await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    model.release.set()
    assert await asyncio.wait_for(made.ask(), 10) == verdict()


# Cancelling


async def test_cancelling_cancels_the_call_and_gives_the_probe_back():
    ended = []

    class Cancelled(FakeModel):
        async def classify(self, alert, early=unheard, seconds=None):
            try:
                return await super().classify(alert)
            except asyncio.CancelledError:
                ended.append(alert)
                raise

    model, second = Cancelled([None]), FakeModel()
    made = Made(model, second)
    made.open(0)
    made.clock.now += 30
    call = asyncio.create_task(made.ask())
    while not model.asked:
        await asyncio.sleep(0)
    assert not made.links[0].breaker.ready
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    assert (len(ended), second.asked) == (1, [])
    assert (made.states[0], made.links[0].breaker.ready) == (HALF_OPEN, True)


@pytest.mark.parametrize("error", [ZeroDivisionError, ClassifierUnusable, ClassifierBusy])
async def test_a_probe_of_which_nothing_is_learnt_is_given_back(error):
    made = Made(FakeModel([error("x")]))
    made.open(0)
    made.clock.now += 30
    with pytest.raises(error):
        await made.ask()
    assert (made.states[0], made.links[0].breaker.ready) == (HALF_OPEN, True)


# Early labels


async def test_early_labels_are_passed_on_once_and_the_answer_follows():
    class Twice(Talker):
        async def classify(self, alert, early=unheard, seconds=None):
            early(LABELS)
            return await super().classify(alert, early)

    heard = []
    assert await Made(Twice()).ask(early=heard.append) == verdict()
    assert heard == [LABELS]


@pytest.mark.parametrize("error", [ClassifierUnavailable, ClassifierRejected, ClassifierInvalidAnswer, ClassifierBusy])
async def test_after_early_labels_no_other_model_gives_others(error):
    heard, second = [], FakeModel([OTHER])
    made = Made(Talker([error("x")]), second)
    assert await made.ask(early=heard.append) == replace(LABELS, recommendations=())
    assert (heard, second.asked) == ([LABELS], [])
    assert made.links[0].last_error == f"{error.reason}: x"


async def test_after_early_labels_the_failure_counts_all_the_same():
    made = Made(Talker([ClassifierUnavailable("x")]))
    await made.ask()
    assert made.spent(0) == 1


async def test_early_labels_hold_when_the_text_hangs():
    made = Made(Talker([None]), FakeModel([OTHER]), timeout=0.1)
    held = await asyncio.wait_for(made.ask(), 10)
    assert (held.severity, held.summary, held.recommendations) == (Severity.CRITICAL, "", ())


async def test_a_fallback_tells_early_labels_too():
    heard = []
    made = Made(FakeModel([ClassifierUnavailable("x")]), Talker())
    await made.ask(early=heard.append)
    assert heard == [LABELS]


async def test_labels_that_come_after_an_attempt_are_nobodys():
    kept = []

    class Forgetful(FakeModel):
        async def classify(self, alert, early=unheard, seconds=None):
            kept.append(early)
            return await super().classify(alert)

    heard = []
    made = Made(Forgetful([ClassifierUnavailable("x")]), FakeModel([OTHER]))
    assert await made.ask(early=heard.append) == OTHER
    kept[0](LABELS)
    assert heard == []


async def test_each_attempt_is_told_with_its_model_and_its_end():
    made = Made(FakeModel([ClassifierRejected("x"), ZeroDivisionError()]), FakeModel())
    await made.ask()
    with pytest.raises(ZeroDivisionError):
        await made.ask()
    assert made.attempts == [(0, "rejected"), (1, "ok"), (0, "bug")]


async def test_an_attempt_that_takes_too_long_and_one_that_is_cancelled_are_told_apart(monkeypatch):
    monkeypatch.setattr(chain, "GRACE", 0)
    made = Made(FakeModel([None]), Talker([None]), timeout=0.02)
    await made.ask()
    assert made.attempts == [(0, "timeout"), (1, "timeout")]
    patient = Made(model := FakeModel([None]))
    call = asyncio.create_task(patient.ask())
    while not model.asked:
        await asyncio.sleep(0)
    assert (patient.chain.running, patient.chain.waiting) == (1, 0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert (patient.attempts, patient.chain.running) == ([(0, "cancelled")], 0)
