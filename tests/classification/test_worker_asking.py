from __future__ import annotations

import asyncio
import itertools
import json

import pytest

from proxy.classification.classification import Severity
from proxy.classification.worker import asking
from proxy.classification.worker.asking import Asker, CompletionFailed, Messages
from proxy.errors import (
    ClassifierError,
    ClassifierInvalidAnswer,
    ClassifierRateLimited,
    ClassifierRejected,
    ClassifierTimeout,
    ClassifierUnavailable,
)

CHAT = [{"role": "user", "content": "?"}]
GOOD = json.dumps({"severity": "info", "category": "other", "confidence": "low"})
PASSING = CompletionFailed(ClassifierUnavailable("InternalServerError 500"), retry_after=0)
FINAL = CompletionFailed(ClassifierRejected("AuthenticationError 401"))
NO_SCHEMA = CompletionFailed(ClassifierRejected("BadRequestError 400"), schema_refused=True)


class FakeCompletion:
    """Says or raises one thing after the other, and remembers what it was asked."""

    def __init__(self, *said: str | CompletionFailed) -> None:
        self._said = iter(said)
        self.chats: list[Messages] = []
        self.schemas: list[bool] = []

    async def __call__(self, messages: Messages, *, schema: bool, seconds: float) -> str:
        self.chats.append(messages)
        self.schemas.append(schema)
        assert seconds > 0
        said = next(self._said)
        if isinstance(said, CompletionFailed):
            raise said
        return said


def asker(completion: FakeCompletion, max_retries: int = 3) -> Asker:
    return Asker(completion, model="gpt-4o", max_retries=max_retries)


async def test_the_verdict_carries_the_model():
    verdict = await asker(FakeCompletion(GOOD)).ask(CHAT, 5)
    assert (verdict.severity, verdict.model) == (Severity.INFO, "gpt-4o")


async def test_a_failure_that_may_pass_is_tried_again():
    model = FakeCompletion(PASSING, PASSING, GOOD)
    await asker(model, max_retries=2).ask(CHAT, 5)
    assert len(model.chats) == 3


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_retries_are_counted(retries: int):
    model = FakeCompletion(*[PASSING] * 10)
    with pytest.raises(ClassifierUnavailable, match="InternalServerError 500"):
        await asker(model, retries).ask(CHAT, 5)
    assert len(model.chats) == 1 + retries


async def test_a_refusal_is_not_tried_again():
    model = FakeCompletion(FINAL, GOOD)
    with pytest.raises(ClassifierRejected):
        await asker(model).ask(CHAT, 5)
    assert len(model.chats) == 1


async def test_a_retry_after_beyond_the_deadline_is_given_up_at_once():
    model = FakeCompletion(CompletionFailed(ClassifierRateLimited("RateLimitError 429"), retry_after=60), GOOD)
    async with asyncio.timeout(1):
        with pytest.raises(ClassifierRateLimited):
            await asker(model).ask(CHAT, 30)


async def test_a_retry_after_is_obeyed(monkeypatch):
    monkeypatch.setattr(asking, "_FIRST_WAIT", 0.0)
    model = FakeCompletion(CompletionFailed(ClassifierRateLimited("RateLimitError 429"), retry_after=0.2), GOOD)
    began = asyncio.get_running_loop().time()
    await asker(model).ask(CHAT, 30)
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_waits_grow_up_to_a_limit(monkeypatch):
    monkeypatch.setattr("backoff.full_jitter", lambda longest: longest)
    waits = asking._waits(asyncio.get_running_loop().time() + 100)
    next(waits)
    assert [waits.send(CompletionFailed(ClassifierTimeout())) for _ in range(7)] == [0.5, 1, 2, 4, 8, 8, 8]


async def test_waits_are_spread(monkeypatch):
    seen = []
    monkeypatch.setattr("backoff.full_jitter", lambda longest: seen.append(longest) or 0.0)
    await asker(FakeCompletion(*[CompletionFailed(ClassifierTimeout())] * 2, GOOD)).ask(CHAT, 5)
    assert seen == [0.5, 1.0]


async def test_one_deadline_bounds_the_whole_call():
    calls = itertools.count()

    async def slow(messages: Messages, *, schema: bool, seconds: float) -> str:
        next(calls)
        await asyncio.sleep(0.1)
        raise PASSING

    with pytest.raises(ClassifierError):
        async with asyncio.timeout(1):
            await Asker(slow, model="m", max_retries=1000).ask(CHAT, 0.35)
    assert next(calls) == 4


async def test_silence_ends_at_the_deadline():
    async def silent(messages: Messages, *, schema: bool, seconds: float) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ClassifierTimeout):
        await Asker(silent, model="m", max_retries=3).ask(CHAT, 0.05)


async def test_a_server_that_knows_no_schema_is_asked_without_and_remembered():
    model = FakeCompletion(NO_SCHEMA, GOOD, GOOD)
    patient = asker(model, max_retries=0)
    await patient.ask(CHAT, 5)
    await patient.ask(CHAT, 5)
    assert model.schemas == [True, False, False]


async def test_a_refusal_that_was_not_about_the_schema_leaves_it_in_use():
    model = FakeCompletion(NO_SCHEMA, NO_SCHEMA, GOOD)
    patient = asker(model)
    with pytest.raises(ClassifierRejected):
        await patient.ask(CHAT, 5)
    await patient.ask(CHAT, 5)
    assert model.schemas == [True, False, True]


async def test_an_answer_that_is_no_verdict_is_asked_for_once_more():
    model = FakeCompletion("The disk is full.", GOOD)
    assert (await asker(model).ask(CHAT, 5)).severity is Severity.INFO
    assert [m["role"] for m in model.chats[1]] == ["user", "assistant", "user"]
    assert model.chats[1][1]["content"] == "The disk is full."


async def test_the_second_answer_that_is_no_verdict_is_the_last():
    model = FakeCompletion("", "Still full.", GOOD)
    with pytest.raises(ClassifierInvalidAnswer):
        await asker(model).ask(CHAT, 5)
    assert len(model.chats) == 2
    assert model.chats[1][1]["content"]  # providers refuse an empty message


async def test_of_an_endless_answer_the_beginning_is_kept():
    model = FakeCompletion(" " * 1_000_000, GOOD)
    await asker(model).ask(CHAT, 5)
    assert len(model.chats[1][1]["content"]) == 64 * 1024
