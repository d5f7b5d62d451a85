"""The chain when not every model can be paid, and in which order it asks."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from fakes import FakeModel, an_alert, verdict

from proxy.classification import chain
from proxy.classification.breaker import BreakerState, CircuitBreaker, Limits
from proxy.classification.chain import Chain, Link
from proxy.classification.classification import Classification, Severity
from proxy.classification.queue import Priority
from proxy.errors import ClassifierOpen, ClassifierOverBudget, ClassifierUnavailable

OTHER = verdict(Severity.NOISE)
ONCE = Limits(
    max_failures=1,
    failure_rate=100,
    slow_rate=100,
    slow_call=None,
    min_calls=50,
    reset_timeout=timedelta(seconds=30),
)


class Made:
    """A chain whose breakers open with the first failure, by a clock of their own."""

    def __init__(self, *models: FakeModel, concurrency: int = 4, **options: Any) -> None:
        self.now = 0.0
        self.unpaid: set[int] = set()
        self.attempts: list[tuple[int, str]] = []
        self.links = [
            Link(
                f"model {n}",
                model,
                CircuitBreaker(ONCE, monotonic=lambda: self.now),
                affordable=lambda n=n: n not in self.unpaid,
            )
            for n, model in enumerate(models)
        ]
        self.chain = Chain(
            self.links,
            timeout=timedelta(seconds=60),
            concurrency=concurrency,
            on_attempt=lambda n, outcome, _: self.attempts.append((n, outcome)),
            monotonic=lambda: self.now,
            **options,
        )

    async def ask(self, name: str = "HighLatency", **labels: str) -> Classification:
        return await self.chain.classify(an_alert(name, **labels))

    def open(self, n: int) -> None:
        permit = self.links[n].breaker.admit()
        assert permit
        permit.failed(1)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_model_that_cannot_be_paid_is_passed_over():
    first = FakeModel()
    made = Made(first, FakeModel([OTHER]))
    made.unpaid.add(0)
    assert await made.ask() == OTHER
    assert (first.asked, made.attempts) == ([], [(1, "ok")])


async def test_when_none_can_be_paid_it_says_so_at_once_even_while_others_wait():
    made = Made(hanging := FakeModel([None]), concurrency=1)
    calls = [asyncio.create_task(made.ask(name)) for name in ("A", "B")]
    await settled()
    made.unpaid.add(0)
    with pytest.raises(ClassifierOverBudget):
        await made.ask("C")
    hanging.release.set()
    first, second = await asyncio.gather(*calls, return_exceptions=True)
    # The one that waited for a place is not asked about either.
    assert (first, type(second), len(hanging.asked)) == (verdict(), ClassifierOverBudget, 1)


async def test_a_model_that_could_be_paid_and_is_left_alone_is_not_over_budget():
    made = Made(FakeModel(), FakeModel())
    made.unpaid.add(0)
    for n in range(2):
        made.open(n)
    with pytest.raises(ClassifierOpen):
        await made.ask()


async def test_a_call_that_turns_out_too_dear_says_nothing_of_the_model_and_leaves_it_to_the_next():
    made = Made(FakeModel([ClassifierOverBudget("x")]), FakeModel([OTHER]))
    assert await made.ask() == OTHER
    assert (made.links[0].last_error, made.links[0].breaker.state) == ("", BreakerState.CLOSED)


async def test_the_last_model_being_too_dear_the_call_is_over_budget():
    made = Made(FakeModel([ClassifierUnavailable("x")]), FakeModel([ClassifierOverBudget("x")]))
    with pytest.raises(ClassifierOverBudget):
        await made.ask()


async def test_one_that_fails_before_another_that_cannot_be_paid_has_failed():
    made = Made(FakeModel([ClassifierUnavailable("x")]), FakeModel())
    made.unpaid.add(1)
    with pytest.raises(ClassifierUnavailable):
        await made.ask()


async def test_a_probe_that_is_too_dear_is_given_back():
    made = Made(FakeModel([ClassifierOverBudget("x")]))
    made.open(0)
    made.now += 30
    with pytest.raises(ClassifierOverBudget):
        await made.ask()
    assert (made.links[0].breaker.state, made.links[0].breaker.ready) == (BreakerState.HALF_OPEN, True)


async def test_a_model_that_cannot_be_paid_is_no_probe():
    made = Made(FakeModel())
    made.open(0)
    made.now += 30
    made.unpaid.add(0)
    with pytest.raises(ClassifierOverBudget):
        await made.ask()
    assert made.links[0].breaker.ready


async def test_a_model_that_cannot_be_paid_has_no_share_of_the_time(monkeypatch):
    granted: list[float] = []
    timeout = asyncio.timeout
    monkeypatch.setattr(chain.asyncio, "timeout", lambda seconds: granted.append(seconds) or timeout(seconds))
    made = Made(FakeModel([ClassifierUnavailable("x")]), FakeModel(), FakeModel([ClassifierUnavailable("x")]))
    made.unpaid.add(1)
    with pytest.raises(ClassifierUnavailable):
        await made.ask()
    assert granted == [30, 60 + chain.GRACE]


def test_over_budget_is_an_error_of_its_own():
    assert (ClassifierOverBudget.reason, ClassifierOverBudget.retryable) == ("over_budget", False)


async def test_the_order_is_by_priority_and_in_turns_by_alertname():
    def priority(alert):
        return Priority.CRITICAL if alert.labels.get("severity") == "critical" else Priority.NORMAL

    made = Made(model := FakeModel([None]), concurrency=1, priority=priority)
    asked = [("A", {}), ("B", {"n": "1"}), ("B", {"n": "2"}), ("C", {}), ("D", {"severity": "critical"})]
    calls = [asyncio.create_task(made.ask(name, **labels)) for name, labels in asked]
    await settled()
    assert (made.chain.running, made.chain.waiting) == (1, 4)
    model.release.set()
    await asyncio.gather(*calls)
    assert [alert.name for alert in model.asked] == ["A", "D", "B", "C", "B"]


async def test_who_is_turned_away_is_told_by_priority():
    dropped: list[Priority] = []
    made = Made(model := FakeModel([None]), concurrency=1, on_drop=dropped.append)
    calls = [asyncio.create_task(made.ask(f"A{n}")) for n in range(1002)]
    await settled()
    assert dropped == [Priority.NORMAL]
    model.release.set()
    await asyncio.gather(*calls, return_exceptions=True)
