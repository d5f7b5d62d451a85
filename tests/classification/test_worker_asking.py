from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from proxy.classification import answers
from proxy.classification.classification import Classification, Severity
from proxy.classification.usage import Usage
from proxy.classification.worker import asking
from proxy.classification.worker.asking import Asker, Completion, CompletionFailed, Form, Messages, Reply, Tally
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
REFUSED = CompletionFailed(ClassifierRejected("BadRequestError 400"), form_refused=True)
BROKEN = CompletionFailed(ClassifierUnavailable("an empty stream"), retry_after=0, stream_broken=True)
USAGE = Usage(0, 480, 90, 0.002)
PIECES = [GOOD[:-1], ', "summary": "Fu', 'll."}']
LABELS = answers.parse(GOOD, "gpt-4o")


Said = str | CompletionFailed | Sequence[str | CompletionFailed]


class FakeCompletion:
    """Says or raises one thing after the other, and remembers what it was asked; a list is said piece by piece."""

    def __init__(self, *said: Said) -> None:
        self._said = iter(said)
        self.chats: list[Messages] = []
        self.forms: list[Form] = []
        self.streamed: list[bool] = []

    async def __call__(
        self, messages: Messages, *, form: Form, seconds: float, heard: Callable[[str], None] | None
    ) -> Reply:
        self.chats.append(messages)
        self.forms.append(form)
        self.streamed.append(heard is not None)
        assert seconds > 0
        said, text = next(self._said), ""
        for piece in [said] if isinstance(said, str | CompletionFailed) else said:
            if isinstance(piece, CompletionFailed):
                raise piece
            text += piece
            if heard:
                heard(text)
        return Reply(text, USAGE)


def asker(completion: Completion, max_retries: int = 3, **options: Any) -> Asker:
    return Asker(completion, model="gpt-4o", max_retries=max_retries, **options)


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

    async def slow(messages: Messages, *, form: Form, seconds: float, heard: object) -> Reply:
        next(calls)
        await asyncio.sleep(0.1)
        raise PASSING

    with pytest.raises(ClassifierError):
        async with asyncio.timeout(1):
            await asker(slow, 1000).ask(CHAT, 0.35)
    assert next(calls) <= 4  # a busy machine gets to fewer


async def test_silence_ends_at_the_deadline():
    async def silent(messages: Messages, *, form: Form, seconds: float, heard: object) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ClassifierTimeout):
        await asker(silent).ask(CHAT, 0.05)


@pytest.mark.parametrize("refusals", [1, 2])
async def test_a_refused_form_leads_to_the_next_and_is_remembered(refusals: int):
    model = FakeCompletion(*[REFUSED] * refusals, GOOD, GOOD)
    patient = asker(model, max_retries=0)
    await patient.ask(CHAT, 5)
    await patient.ask(CHAT, 5)
    assert model.forms == [*list(Form)[: refusals + 1], list(Form)[refusals]]


async def test_a_refusal_that_was_not_about_the_form_leaves_it_in_use():
    model = FakeCompletion(REFUSED, REFUSED, REFUSED, GOOD)
    patient = asker(model)
    with pytest.raises(ClassifierRejected):
        await patient.ask(CHAT, 5)
    await patient.ask(CHAT, 5)
    assert model.forms == [Form.SCHEMA, Form.OBJECT, Form.TEXT, Form.SCHEMA]


async def test_a_retry_goes_on_in_the_form_that_was_reached():
    model = FakeCompletion(REFUSED, PASSING, GOOD)
    await asker(model).ask(CHAT, 5)
    assert model.forms == [Form.SCHEMA, Form.OBJECT, Form.OBJECT]


async def test_labels_are_told_once_and_before_the_text():
    told: list[Classification] = []
    whole = await asker(FakeCompletion([*PIECES]), stream=True).ask(CHAT, 5, told.append)
    assert told == [LABELS]
    assert whole == replace(LABELS, summary="Full.")


async def test_without_streaming_nothing_is_told_early():
    told: list[Classification] = []
    await asker(FakeCompletion([*PIECES])).ask(CHAT, 5, told.append)
    assert told == []


@pytest.mark.parametrize(
    ("said", "requests"),
    [
        pytest.param([[GOOD[:-1], ', "score": NaN}']], 1, id="an answer that turns out to be none"),
        pytest.param([[GOOD[:-1], ', "severity": "critical"}']], 1, id="one that says other labels in the end"),
        pytest.param([[GOOD[:-1], BROKEN], GOOD.replace("info", "noise")], 2, id="other labels when asked again"),
        pytest.param([[GOOD[:-1], BROKEN], FINAL], 2, id="a failure when asked again"),
        pytest.param([[GOOD[:-1], BROKEN], *[PASSING] * 3], 4, id="one failure after the other"),
    ],
)
async def test_labels_that_were_told_hold(said: list[Said], requests: int):
    told: list[Classification] = []
    model = FakeCompletion(*said)
    assert await asker(model, stream=True).ask(CHAT, 5, told.append) == LABELS
    assert told == [LABELS]
    assert len(model.chats) == requests


async def test_labels_that_were_told_hold_at_the_deadline():
    async def stuck(messages: Messages, *, form: Form, seconds: float, heard: Callable[[str], None] | None) -> Reply:
        assert heard
        heard(GOOD[:-1])
        await asyncio.Event().wait()
        raise AssertionError

    assert await asker(stuck, stream=True).ask(CHAT, 0.05) == LABELS


async def test_a_broken_stream_is_asked_for_whole_within_the_retries():
    model = FakeCompletion(BROKEN, BROKEN, GOOD)
    await asker(model, max_retries=2, stream=True).ask(CHAT, 5)
    assert model.streamed == [True, False, False]
    model = FakeCompletion(BROKEN, GOOD)
    with pytest.raises(ClassifierUnavailable):
        await asker(model, max_retries=0, stream=True).ask(CHAT, 5)


async def test_a_failure_before_the_stream_began_is_streamed_again():
    model = FakeCompletion(PASSING, GOOD)
    await asker(model, stream=True).ask(CHAT, 5)
    assert model.streamed == [True, True]


async def test_two_broken_streams_in_a_row_are_the_last():
    model = FakeCompletion(BROKEN, GOOD, GOOD, BROKEN, GOOD, BROKEN, GOOD, GOOD)
    patient = asker(model, stream=True)
    for _ in range(5):
        await patient.ask(CHAT, 5)
    assert model.streamed == [True, False, True, True, False, True, False, False]


class Streams:
    """A model whose concurrent streams break when the test says so, and that answers what is not streamed."""

    def __init__(self) -> None:
        self.streamed: list[bool] = []
        self.under_way = 0
        self._break = asyncio.Event()

    async def __call__(
        self, messages: Messages, *, form: Form, seconds: float, heard: Callable[[str], None] | None
    ) -> Reply:
        self.streamed.append(heard is not None)
        if heard is None:
            return Reply(GOOD)
        self.under_way += 1
        await self._break.wait()
        raise BROKEN

    async def break_together(self, patient: Asker, number: int) -> None:
        self.under_way = 0
        self._break.clear()
        calls = [asyncio.create_task(patient.ask(CHAT, 5)) for _ in range(number)]
        while self.under_way < number:
            await asyncio.sleep(0)
        self._break.set()
        await asyncio.gather(*calls)


async def test_streams_that_break_together_are_one_broken_stream():
    model = Streams()
    patient = asker(model, stream=True)
    await model.break_together(patient, 3)
    assert patient.streams
    await model.break_together(patient, 3)
    assert not patient.streams


async def test_after_ten_minutes_a_stream_is_tried_again_and_who_asks_hears_of_it():
    told: list[bool] = []
    now = 1000.0
    model = FakeCompletion(BROKEN, GOOD, BROKEN, GOOD, GOOD, BROKEN, GOOD, GOOD, GOOD, BROKEN, GOOD, GOOD)
    patient = asker(model, stream=True, on_streaming=told.append, clock=lambda: now)
    await patient.ask(CHAT, 5)
    assert told == []
    await patient.ask(CHAT, 5)
    now += 599
    await patient.ask(CHAT, 5)
    now += 1
    await patient.ask(CHAT, 5)  # breaks again: no news, and as long a while
    now += 599
    await patient.ask(CHAT, 5)
    assert told == [False]
    now += 1
    await patient.ask(CHAT, 5)  # comes to its end
    assert told == [False, True]
    await patient.ask(CHAT, 5)  # and so one that breaks is the first again
    await patient.ask(CHAT, 5)
    assert model.streamed == [True, False, True, False, False, True, False, False, True, True, False, True]
    assert told == [False, True]


async def test_a_model_that_is_not_to_be_streamed_never_is():
    now = 1000.0
    patient = asker(FakeCompletion(GOOD), clock=lambda: now)
    now += 1e6
    assert not patient.streams


async def test_all_requests_of_a_call_are_counted():
    tally = Tally()
    lost = CompletionFailed(BROKEN.error, retry_after=0, stream_broken=True, usage=USAGE)
    await asker(FakeCompletion(REFUSED, PASSING, lost, "prose", GOOD), stream=True).ask(CHAT, 5, tally=tally)
    assert tally.usage == Usage(5, 1440, 270, pytest.approx(0.006))


async def test_a_call_that_fails_was_counted_all_the_same():
    tally = Tally()
    with pytest.raises(ClassifierRejected):
        await asker(FakeCompletion(PASSING, FINAL)).ask(CHAT, 5, tally=tally)
    assert tally.usage == Usage(2)


async def test_an_answer_that_is_no_verdict_is_asked_for_once_more():
    model = FakeCompletion("The disk is full.", GOOD)
    assert (await asker(model).ask(CHAT, 5)).severity is Severity.INFO
    assert [m["role"] for m in model.chats[1]] == ["user", "assistant", "user"]
    assert model.chats[1][1]["content"] == "The disk is full."


@pytest.mark.parametrize(
    ("said", "requests"),
    [
        pytest.param(["prose", *[PASSING] * 9], 2 + 3, id="all are left"),
        pytest.param([PASSING, "prose", *[PASSING] * 9], 2 + 3, id="two are left"),
        pytest.param([PASSING, PASSING, PASSING, "prose", *[PASSING] * 9], 2 + 3, id="none is left"),
    ],
)
async def test_the_retries_are_those_of_the_whole_call(said: list[Said], requests: int):
    model = FakeCompletion(*said)
    with pytest.raises(ClassifierUnavailable):
        await asker(model, 3).ask(CHAT, 5)
    assert len(model.chats) == requests


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
