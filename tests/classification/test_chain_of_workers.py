"""The chain over the model worker's classifiers: all models together keep to the time of one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from simulated import simulated
from workers import ALERT, FakeProcess, Sleeps, Watched, a_model, children, config

from proxy.classification import answers
from proxy.classification.breaker import CircuitBreaker
from proxy.classification.chain import Chain, Link
from proxy.classification.classification import Severity
from proxy.classification.classifier import unheard
from proxy.classification.usage import NO_USAGE
from proxy.classification.worker.asking import Asker, Completion, CompletionFailed, Form, Messages, Reply
from proxy.classification.worker.protocol import Answered, Ask, Cancel, Failed, Message, Ready
from proxy.errors import ClassifierError, ClassifierRateLimited, ClassifierTimeout

GOOD = '{"severity": "noise", "category": "other", "confidence": "low"}'
TIMEOUT = 30


async def hangs(messages: Messages, *, form: Form, seconds: float, heard: object) -> Reply:
    await asyncio.Event().wait()
    raise AssertionError


async def answers_well(messages: Messages, *, form: Form, seconds: float, heard: object) -> Reply:
    return Reply(GOOD)


async def is_busy(messages: Messages, *, form: Form, seconds: float, heard: object) -> Reply:
    raise CompletionFailed(ClassifierRateLimited("RateLimitError 429"), retry_after=20)


class Child(FakeProcess):
    """One whose calls run in this loop, for real."""

    def __init__(self, models: Sequence[Completion]) -> None:
        super().__init__(Ready("1", [""] * len(models)), stays=True)
        self._models = [Asker(complete, model="m", max_retries=3) for complete in models]
        self._calls: dict[int, asyncio.Task[None]] = {}

    def send(self, message: Message) -> None:
        super().send(message)
        if isinstance(message, Ask):
            self._calls[message.call] = asyncio.create_task(self._run(message))
        elif isinstance(message, Cancel):
            self._calls[message.call].cancel()

    async def _run(self, ask: Ask) -> None:
        try:
            verdict = await self._models[ask.model].ask(ask.messages, ask.seconds)
        except asyncio.CancelledError:
            self.say(Failed(ask.call, "cancelled", "", NO_USAGE))
        except ClassifierError as exc:
            self.say(Failed(ask.call, exc.reason, str(exc), NO_USAGE))
        else:
            self.say(Answered(ask.call, answers.members(verdict), NO_USAGE))


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    async def play(*models: Completion, seconds: float | None = None) -> tuple[object, list[tuple], float, list[float]]:
        """Return the verdict or the error, each attempt with its end and its time, the time of all, and what the child
        was told that it has."""
        child = Child(models)
        children(monkeypatch, lambda: child)
        loop = asyncio.get_running_loop()
        attempts: list[tuple[int, str, float]] = []
        async with Watched(
            config(*[a_model()] * len(models), timeout=timedelta(seconds=TIMEOUT)), sleep=Sleeps(1)
        ).worker as worker:
            chain = Chain(
                [Link(str(n), worker.classifier(n), CircuitBreaker(None)) for n in range(len(models))],
                timeout=timedelta(seconds=TIMEOUT),
                concurrency=1,
                monotonic=loop.time,
                on_attempt=lambda n, outcome, took: attempts.append((n, outcome, round(took, 3))),
            )
            begun = loop.time()
            [ended] = await asyncio.gather(chain.classify(ALERT, unheard, seconds), return_exceptions=True)
            took = loop.time() - begun
            assert child.killed == 0
        return ended, attempts, round(took, 3), [round(m.seconds, 3) for m in child.sent if isinstance(m, Ask)]

    return play


@simulated
async def test_one_that_is_to_be_asked_again_too_late_leaves_its_time_to_the_next(play):
    found, attempts, *_ = await play(is_busy, answers_well)
    assert found.severity is Severity.NOISE
    assert attempts == [(0, "rate_limited", 0), (1, "ok", 0)]


@simulated
async def test_one_that_is_alone_waits_as_long_as_it_is_asked_to(play):
    ended, _, took, told = await play(is_busy)
    assert (type(ended), took, told) == (ClassifierRateLimited, 20, [30])


@simulated
async def test_two_that_hang_take_no_longer_than_one(play):
    ended, attempts, took, told = await play(hangs, hangs)
    assert (type(ended), took, told) == (ClassifierTimeout, 30, [15, 15])
    assert attempts == [(0, "timeout", 15), (1, "timeout", 15)]


@simulated
async def test_whoever_asks_may_have_less_time(play):
    ended, _, took, told = await play(hangs, hangs, seconds=10)
    assert (type(ended), took, told) == (ClassifierTimeout, 10, [5, 5])
    assert (await play(hangs, hangs, seconds=100))[2:] == (30, [15, 15])
