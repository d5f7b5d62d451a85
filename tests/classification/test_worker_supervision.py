"""How the worker's child is supervised, with children that play a part."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from structlog.testing import capture_logs
from workers import ALERT, SECRET, FakeProcess, Sleeps, Watched, a_model, children, config

from proxy.classification import answers
from proxy.classification.classification import Classification
from proxy.classification.usage import NO_USAGE, Usage
from proxy.classification.worker import client
from proxy.classification.worker.client import ModelWorker, WorkerState
from proxy.classification.worker.protocol import (
    Answered,
    Ask,
    Cancel,
    Crashed,
    Failed,
    Labelled,
    Message,
    ProtocolError,
    Ready,
)
from proxy.errors import ClassifierInvalidAnswer, ClassifierTimeout, ClassifierUnavailable


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(lambda: OSError(11, "Resource temporarily unavailable"), id="cannot be started"),
        pytest.param(FakeProcess, id="ends before it is ready"),
        pytest.param(lambda: FakeProcess(Crashed("MemoryError")), id="crashes while it loads"),
        pytest.param(lambda: FakeProcess(Ready("1", [""])), id="ends when ready"),
        pytest.param(lambda: FakeProcess(Ready("1", [""]), Crashed("KeyError")), id="crashes when ready"),
        pytest.param(lambda: FakeProcess(Ready("1", [""]), ProtocolError("x")), id="talks nonsense"),
        pytest.param(lambda: FakeProcess(Ready("1", [""]), Cancel(1)), id="says what only a parent says"),
        pytest.param(lambda: FakeProcess(Ready("1", [])), id="counts other models than we do"),
    ],
)
async def test_restarts_are_spaced_further_and_further(lost: Callable[[], object], monkeypatch):
    children(monkeypatch, lost)
    sleeps = Sleeps(9)
    watched = Watched(config(), sleep=sleeps)
    async with watched.worker:
        await sleeps.over.wait()
    assert sleeps.seconds == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert watched.restarts == 8


async def test_a_stable_life_starts_the_waits_anew(monkeypatch):
    children(monkeypatch, lambda: FakeProcess(Ready("1", [""])))
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 31
        return now

    # A life asks for the time when it starts, is ready and is lost: 31 s stable, short of the minute.
    sleeps = Sleeps(3)
    async with Watched(config(), sleep=sleeps, clock=clock).worker:
        await sleeps.over.wait()
    assert sleeps.seconds == [0.5, 1, 2]

    def fast_clock() -> float:
        nonlocal now
        now += 60
        return now

    sleeps = Sleeps(3)
    async with Watched(config(), sleep=sleeps, clock=fast_clock).worker:
        await sleeps.over.wait()
    assert sleeps.seconds == [0.5, 0.5, 0.5]


async def test_a_child_that_never_gets_ready_is_replaced(monkeypatch):
    born: list[FakeProcess] = []

    def deaf() -> FakeProcess:
        born.append(FakeProcess(stays=True))
        return born[-1]

    children(monkeypatch, deaf)
    monkeypatch.setattr(client, "_LOAD_WITHIN", 0.01)
    sleeps = Sleeps(2)
    async with Watched(config(), sleep=sleeps).worker:
        await sleeps.over.wait()
    assert [child.stopped for child in born] == [True, True]


async def test_a_call_does_not_wait_for_a_child_beyond_its_deadline(monkeypatch):
    children(monkeypatch, lambda: FakeProcess(stays=True))
    async with ModelWorker(config(timeout=timedelta(seconds=0.05))) as worker:
        with pytest.raises(ClassifierTimeout, match="not ready"):
            await worker.classifier(0).classify(ALERT)


async def test_the_parent_judges_again_what_the_child_says(monkeypatch):
    children(
        monkeypatch,
        lambda: FakeProcess(
            Ready("1", [""]), stays=True, answer=lambda ask: [Answered(ask.call, {"severity": "urgent"}, NO_USAGE)]
        ),
    )
    async with ModelWorker(config()) as worker:
        with pytest.raises(ClassifierInvalidAnswer, match="unknown severity"):
            await worker.classifier(0).classify(ALERT)


LABELS = {"severity": "info", "category": "other", "confidence": "low"}


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(lambda call: Failed(call, "timeout", "x", Usage(1)), id="a failure"),
        pytest.param(lambda call: Answered(call, {"severity": "urgent"}, Usage(1)), id="an answer that is none"),
        pytest.param(lambda call: Crashed("MemoryError"), id="a crash"),
    ],
)
async def test_labels_that_were_told_hold_whatever_comes_then(then: Callable[[int], Message], monkeypatch):
    def answer(ask: Ask) -> list[Message]:
        return [Labelled(ask.call, LABELS), Labelled(ask.call, LABELS | {"severity": "noise"}), then(ask.call)]

    children(monkeypatch, lambda: FakeProcess(Ready("1", [""]), stays=True, answer=answer))
    told: list[Classification] = []
    async with Watched(config(), sleep=Sleeps(1)).worker as worker:
        found = await worker.classifier(0).classify(ALERT, told.append)
    assert told == [found]
    assert found == answers.verdict(LABELS, "gpt-4o")


async def test_what_a_call_took_is_told_with_its_model_whatever_the_outcome(monkeypatch):
    outcomes = iter([Failed(1, "timeout", "x", Usage(3)), Answered(2, LABELS, Usage(1, 480, 90))])
    children(monkeypatch, lambda: FakeProcess(Ready("1", ["", ""]), stays=True, answer=lambda _: [next(outcomes)]))
    watched = Watched(config(a_model(), a_model("ollama")))
    async with watched.worker as worker:
        with pytest.raises(ClassifierTimeout):
            await worker.classifier(1).classify(ALERT)
        assert (await worker.classifier(0).classify(ALERT)).model == "gpt-4o"
    assert watched.usage == [(1, Usage(3)), (0, Usage(1, 480, 90))]


async def test_a_model_that_cannot_be_used_is_named(monkeypatch):
    children(monkeypatch, lambda: FakeProcess(Ready("1", ["", "no such provider"]), stays=True))
    watched = Watched(config(a_model(), a_model("opanai")))
    with capture_logs() as logs:
        async with watched.worker:
            await watched.reach(WorkerState.READY)
    (said,) = [entry for entry in logs if entry["log_level"] == "error"]
    assert (said["model"], said["reason"]) == ("opanai/m", "no such provider")


async def test_a_worker_never_started_says_so():
    with pytest.raises(ClassifierUnavailable):
        await ModelWorker(config()).classifier(0).classify(ALERT)


def test_the_key_is_in_no_repr():
    assert SECRET not in repr(config())
