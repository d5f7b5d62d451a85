"""Several alerts in one call of a model, and who is asked about alone after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes import an_alert, verdict

from proxy.alert import Alert
from proxy.classification import chain
from proxy.classification.breaker import BreakerState, CircuitBreaker, Limits
from proxy.classification.chain import BATCHED, Batching, Chain, Link
from proxy.classification.classification import Classification, Severity
from proxy.classification.classifier import Early, unheard
from proxy.classification.queue import Priority
from proxy.errors import (
    ClassifierError,
    ClassifierInvalidAnswer,
    ClassifierOverBudget,
    ClassifierRateLimited,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
)

LIMITS = Limits(
    max_failures=2,
    failure_rate=100,
    slow_rate=100,
    slow_call=None,
    min_calls=50,
    reset_timeout=timedelta(seconds=30),
)
CRITICAL, NORMAL = Priority
TOGETHER, ALONE, OTHER = verdict(), verdict(Severity.WARNING), verdict(Severity.NOISE)


class Model:
    """Says one thing about an alert among others, and another about one that is alone."""

    def __init__(self, together: Callable[[str], Classification | None] = lambda _: TOGETHER) -> None:
        self.together: Callable[[str], Classification | None] | ClassifierError | None = together
        """What it says about the alert of a name; None: it hangs."""
        self.alone: Classification | ClassifierError = ALONE
        self.asked: list[str] = []
        """The names in each call, joined by a +."""
        self.seconds: list[float | None] = []

    async def classify(self, alert: Alert, early: Early = unheard, seconds: float | None = None) -> Classification:
        self.asked.append(alert.name)
        if isinstance(self.alone, ClassifierError):
            raise self.alone
        early(self.alone)
        return self.alone

    async def classify_together(
        self, alerts: Sequence[Alert], seconds: float | None = None
    ) -> Sequence[Classification | None]:
        self.asked.append("+".join(alert.name for alert in alerts))
        self.seconds.append(seconds)
        if self.together is None:
            await asyncio.Event().wait()
        if isinstance(self.together, ClassifierError):
            raise self.together
        assert self.together is not None
        return [self.together(alert.name) for alert in alerts]


class Made:
    """A chain in which three alerts may share a call, and what it told."""

    def __init__(
        self,
        *models: Model,
        holds: Callable[[Alert, Classification], bool] = lambda *_: True,
        limits: Limits = LIMITS,
        priority: Callable[[Alert], Priority] = lambda _: NORMAL,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.links = [Link(str(n), model, CircuitBreaker(limits)) for n, model in enumerate(models)]
        self.outcomes: list[str] = []
        self.attempts: list[tuple[int, str]] = []
        self.chain = Chain(
            self.links,
            timeout=timedelta(seconds=60),
            concurrency=2,
            priority=priority,
            monotonic=monotonic,
            batching=Batching(3, kind=lambda _: True, holds=holds, on_verdict=self.outcomes.append),
            on_attempt=lambda n, outcome, _: self.attempts.append((n, outcome)),
        )

    async def ask(self, *names: str) -> list[Classification | BaseException]:
        asked = (self.chain.classify(an_alert(name)) for name in names)
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)


async def test_those_that_come_together_are_asked_about_in_one_call():
    made = Made(model := Model())
    assert await made.ask("A", "B", "C", "D") == [TOGETHER] * 3 + [ALONE]
    assert (model.asked, made.outcomes) == (["A+B+C", "D"], ["holds"] * 3)
    assert (made.attempts, model.seconds) == ([(0, "ok")] * 2, [pytest.approx(60, abs=5)])


async def test_who_has_no_verdict_is_asked_about_alone():
    made = Made(model := Model(lambda name: None if name in "AC" else TOGETHER))
    assert await made.ask("A", "B", "C") == [ALONE, TOGETHER, ALONE]
    assert (model.asked, made.outcomes) == (["A+B+C", "A", "C"], ["missing", "holds", "missing"])


async def test_who_has_a_verdict_that_may_not_be_used_is_asked_about_alone():
    made = Made(
        model := Model(lambda name: OTHER if name == "B" else TOGETHER), holds=lambda _, found: found == TOGETHER
    )
    assert await made.ask("A", "B", "C") == [TOGETHER, ALONE, TOGETHER]
    assert (model.asked, made.outcomes) == (["A+B+C", "B"], ["holds", "differs", "holds"])


async def test_what_is_said_of_one_that_is_alone_needs_nobodys_leave():
    made = Made(Model(), holds=lambda *_: False)
    assert await made.ask("A", "B") == [ALONE] * 2


async def test_nothing_is_told_early_of_those_that_share_a_call():
    heard: list[str] = []
    made = Made(Model(lambda name: TOGETHER if name == "A" else None))
    await asyncio.gather(
        *(made.chain.classify(an_alert(name), lambda _, name=name: heard.append(name)) for name in "ABC")
    )
    assert heard == ["B", "C"]


@pytest.mark.parametrize(
    "error",
    [
        ClassifierUnavailable("x"),
        ClassifierRejected("x"),
        ClassifierInvalidAnswer("x"),
        ClassifierTimeout("x"),
        ClassifierOverBudget("x"),
    ],
)
async def test_all_are_asked_about_alone_after_a_failure_that_one_of_them_may_be_the_reason_of(error: ClassifierError):
    model, second = Model(), Model()
    made = Made(model, second)
    model.together = error
    assert await made.ask("A", "B", "C") == [ALONE] * 3
    assert (model.asked, second.asked, made.outcomes) == (["A+B+C", "A", "B", "C"], [], ["failed"] * 3)


async def test_the_next_model_is_asked_about_all_after_another_failure():
    model, second = Model(), Model(lambda _: OTHER)
    made = Made(model, second)
    model.together = ClassifierRateLimited("x")
    assert await made.ask("A", "B", "C") == [OTHER] * 3
    assert (model.asked, second.asked) == (["A+B+C"], ["A+B+C"])


async def test_the_last_ones_failure_is_everybodys():
    made = Made(model := Model())
    model.together = ClassifierRateLimited("x")
    assert [str(error) for error in await made.ask("A", "B")] == ["x", "x"]
    assert made.links[0].last_error == "rate_limited: x, asked about 2 alerts at once"


@pytest.mark.parametrize("error", [ClassifierUnavailable("x"), ClassifierRejected("x"), ClassifierTimeout("x")])
async def test_a_failure_of_several_says_nothing_about_the_provider(error: ClassifierError):
    made = Made(model := Model(), limits=replace(LIMITS, max_failures=1))
    model.together = error
    assert await made.ask("A", "B") == [ALONE] * 2
    assert made.links[0].breaker.state is BreakerState.CLOSED


async def test_a_refusal_of_everybody_opens_the_breaker_all_the_same():
    made = Made(model := Model())
    model.together = model.alone = ClassifierRejected("x")
    await made.ask("A", "B")
    assert made.links[0].breaker.state is BreakerState.OPEN


async def test_a_call_about_several_that_fails_is_one_failure():
    made = Made(model := Model())
    model.together = ClassifierRateLimited("x")
    await made.ask("A", "B", "C")
    assert made.links[0].breaker.state is BreakerState.CLOSED
    await made.ask("A", "B", "C")
    assert made.links[0].breaker.state is BreakerState.OPEN


async def test_after_two_failures_in_a_row_nobody_shares_a_call_for_a_while():
    now = [0.0]
    made = Made(model := Model(), monotonic=lambda: now[0])
    model.together = ClassifierTimeout("x")
    # All of them wait when the first two fail: two places, so both are under way.
    assert await made.ask(*"ABCDEFGHI") == [ALONE] * 9
    assert [asked for asked in model.asked if "+" in asked] == ["A+B+C", "D+E+F"]
    model.together, now[0] = (lambda _: TOGETHER), chain._UNBATCHED - 1
    assert await made.ask("J", "K") == [ALONE] * 2
    now[0] = chain._UNBATCHED
    assert await made.ask("L", "M") == [TOGETHER] * 2


async def test_failures_with_a_success_between_them_do_not_count():
    made = Made(model := Model())
    for together in (ClassifierTimeout("x"), lambda _: TOGETHER, ClassifierTimeout("x"), lambda _: TOGETHER):
        model.together = together
        await made.ask("A", "B")
    assert model.asked.count("A+B") == 4


async def test_what_is_critical_shares_no_call():
    made = Made(model := Model(), priority=lambda alert: CRITICAL if alert.name in "AB" else NORMAL)
    assert await made.ask("A", "B", "C", "D") == [ALONE, ALONE, TOGETHER, TOGETHER]
    assert model.asked == ["A", "B", "C+D"]


async def test_a_call_is_given_up_when_the_last_who_asked_is_gone():
    made = Made(model := Model())
    model.together = None
    calls = [asyncio.create_task(made.chain.classify(an_alert(name))) for name in "AB"]
    while not model.asked:
        await asyncio.sleep(0)
    calls[0].cancel()
    await asyncio.sleep(0)
    assert (made.chain.running, made.attempts) == (1, [])
    calls[1].cancel()
    await asyncio.wait(calls)
    assert made.attempts == [(0, "cancelled")]
    await asyncio.sleep(0)
    assert made.chain.running == 0


async def test_a_bug_is_everybodys_and_leaves_the_place_free():
    def bug(_: str) -> Classification:
        raise ZeroDivisionError

    made = Made(Model(bug))
    assert [type(error) for error in await made.ask("A", "B")] == [ZeroDivisionError] * 2
    await asyncio.sleep(0)
    assert made.chain.running == 0


async def test_every_outcome_has_its_name():
    made = Made(model := Model(lambda name: {"A": None, "B": OTHER}.get(name, TOGETHER)), holds=lambda _, v: v != OTHER)
    await made.ask("A", "B", "C")
    model.together = ClassifierRejected("x")
    await made.ask("A", "B")
    assert set(made.outcomes) == set(BATCHED)
