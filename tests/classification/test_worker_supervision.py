"""How the worker's child is supervised, with children that play a part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes import an_alert
from simulated import simulated
from structlog.testing import capture_logs
from workers import ALERT, SECRET, FakeProcess, Sleeps, Watched, a_model, children, config

from proxy.classification import answers
from proxy.classification.classification import Classification
from proxy.classification.usage import NO_USAGE, Usage
from proxy.classification.worker import client
from proxy.classification.worker.client import ModelWorker
from proxy.classification.worker.configuration import WorkerState
from proxy.classification.worker.protocol import (
    Answered,
    AnsweredAll,
    Ask,
    Cancel,
    Configure,
    Crashed,
    Failed,
    Keys,
    Labelled,
    Message,
    ProtocolError,
    Ready,
    Streaming,
    Unusable,
)
from proxy.errors import ClassifierError, ClassifierInvalidAnswer, ClassifierTimeout, ClassifierUnavailable


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


async def test_a_child_that_could_ask_nobody_is_started_again_when_the_key_is_another(monkeypatch):
    born: list[FakeProcess] = []

    def one_after_the_other() -> FakeProcess:
        born.append(FakeProcess(Ready("1", [""]), stays=True) if born else FakeProcess(Unusable("no key")))
        return born[-1]

    children(monkeypatch, one_after_the_other)
    watched = Watched(config())
    async with watched.worker as worker:
        await watched.reach(WorkerState.UNUSABLE)
        another = [replace(a_model(), api_key="sk-another")]
        await worker.use_keys(another)
        await watched.reach(WorkerState.READY)
        assert worker.why_unusable == ""
        [configured] = born[1].sent
        assert isinstance(configured, Configure)
        assert configured.models == another
        await worker.use_keys([a_model()])
        assert born[1].sent[1:] == [Keys([a_model().api_key])]
    assert len(born) == 2


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


async def test_a_child_that_counts_other_alerts_than_it_was_asked_about_has_said_nothing(monkeypatch):
    def answer(ask: Ask) -> list[Message]:
        return [AnsweredAll(ask.call, [LABELS], NO_USAGE)]

    children(monkeypatch, lambda: FakeProcess(Ready("1", [""]), stays=True, answer=answer))
    async with ModelWorker(config()) as worker:
        with pytest.raises(ClassifierInvalidAnswer, match="not one verdict for each alert"):
            await worker.classifier(0).classify_together([an_alert("DiskFull"), an_alert("PodDown")])


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


class Asked:
    """A call that is under way at a child which says what the test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, models: int = 1, **changes: object) -> None:
        self.child = FakeProcess(Ready("1", [""] * models), stays=True)
        children(monkeypatch, lambda: self.child)
        self.watched = Watched(config(*[a_model(), a_model("ollama")][:models], **changes), sleep=Sleeps(1))

    async def begin(self, seconds: float | None = None) -> asyncio.Task[Classification]:
        call = asyncio.create_task(self.watched.worker.classifier(0).classify(ALERT, seconds=seconds))
        while not any(isinstance(message, Ask) for message in self.child.sent):
            await asyncio.sleep(0)
        return call

    @property
    def ask(self) -> Ask:
        return next(message for message in self.child.sent if isinstance(message, Ask))


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(lambda call: Answered(call, LABELS, Usage(1, 480, 90)), id="an answer"),
        pytest.param(lambda call: Failed(call, "timeout", "x", Usage(1, 480, 90)), id="a failure"),
    ],
)
@pytest.mark.parametrize("before", [0, 1], ids=["", "after its labels"])
@simulated
async def test_a_child_that_had_answered_when_the_call_was_given_up_lives_on(before, last, monkeypatch):
    asked = Asked(monkeypatch)
    async with asked.watched.worker as worker:
        call = await asked.begin()
        number = asked.ask.call
        # In one turn of the loop.
        for message in [Labelled(number, LABELS)] * before + [last(number)]:
            worker._settle(message)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await asyncio.sleep(2 * client._GRACE)
        assert (asked.child.killed, worker.state) == (0, WorkerState.READY)
        assert asked.watched.usage == [(0, Usage(1, 480, 90))]
        assert not any(isinstance(message, Cancel) for message in asked.child.sent)


@simulated
async def test_labels_alone_are_no_end_of_a_call_that_is_given_up(monkeypatch):
    asked = Asked(monkeypatch)
    async with asked.watched.worker as worker:
        call = await asked.begin()
        worker._settle(Labelled(asked.ask.call, LABELS))
        call.cancel()
        await asyncio.wait([call])
        assert asked.child.sent[-1] == Cancel(asked.ask.call)
        await asyncio.sleep(2 * client._GRACE)
        assert asked.child.killed == 1


@simulated
async def test_a_child_that_answers_when_its_time_is_up_lives_on(monkeypatch):
    asked = Asked(monkeypatch)
    loop = asyncio.get_running_loop()
    async with asked.watched.worker as worker:
        call = await asked.begin(5)
        # Due before the deadline's own timer, and run in the same turn of the loop.
        loop.call_at(
            loop.time() + 5 + client._GRACE - 5e-10, worker._settle, Failed(asked.ask.call, "x", "x", Usage(1))
        )
        with pytest.raises(ClassifierError):
            await call
        await asyncio.sleep(2 * client._GRACE)
        assert (asked.child.killed, asked.watched.usage) == (0, [(0, Usage(1))])


@simulated
async def test_a_call_that_was_given_up_is_nothing_to_the_next_child(monkeypatch):
    asked = Asked(monkeypatch)
    async with asked.watched.worker as worker:
        call = await asked.begin()
        call.cancel()
        await asyncio.wait([call])
        asked.child.say(Crashed("MemoryError"))
        while not asked.child.stopped:
            await asyncio.sleep(0)
        assert worker._cancelled == {}
        await asyncio.sleep(2 * client._GRACE)
        assert asked.child.killed == 0


@pytest.mark.parametrize(("seconds", "told"), [(None, 60), (15, 15), (100, 60)])
@simulated
async def test_the_child_is_told_the_time_that_is_left(seconds, told, monkeypatch):
    asked = Asked(monkeypatch)
    async with asked.watched.worker:
        call = await asked.begin(seconds)
        assert asked.ask.seconds == pytest.approx(told)
        with pytest.raises(ClassifierTimeout, match="hangs"):
            await call


@simulated
async def test_a_child_that_loads_is_not_waited_for_beyond_the_time_that_is_left(monkeypatch):
    children(monkeypatch, lambda: FakeProcess(stays=True))
    loop = asyncio.get_running_loop()
    async with ModelWorker(config()) as worker:
        with pytest.raises(ClassifierTimeout, match="not ready"):
            await worker.classifier(0).classify(ALERT, seconds=5)
        assert loop.time() == pytest.approx(1000 + 5)


async def test_what_becomes_of_streaming_is_told_with_the_model(monkeypatch):
    asked = Asked(monkeypatch, models=2)
    with capture_logs() as logs:
        async with asked.watched.worker:
            await asked.watched.reach(WorkerState.READY)
            for works in (False, True):
                asked.child.say(Streaming(1, works))
            while not any("again" in entry["event"] for entry in logs):
                await asyncio.sleep(0)
    assert [
        (entry["log_level"], entry["event"].partition(":")[0], entry["model"]) for entry in logs if "model" in entry
    ] == [
        ("warning", "answers of a model are not streamed for a while", "ollama/llama3.2"),
        ("info", "answers of a model are streamed again", "ollama/llama3.2"),
    ]


async def test_a_model_that_may_lack_its_key_is_named(monkeypatch):
    children(monkeypatch, lambda: FakeProcess(Ready("1", ["", ""], ["", "no API key"]), stays=True))
    watched = Watched(config(a_model(), a_model("azure")))
    with capture_logs() as logs:
        async with watched.worker:
            await watched.reach(WorkerState.READY)
    (said,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert (said["model"], said["reason"]) == ("azure/m", "no API key")


async def test_only_a_classifier_of_ones_own_is_sent_labels_beside_the_prompt(monkeypatch):
    asked: list[Ask] = []

    def answer(ask: Ask) -> list[Message]:
        asked.append(ask)
        return [Answered(ask.call, LABELS, NO_USAGE)]

    children(monkeypatch, lambda: FakeProcess(Ready("1", ["", ""]), stays=True, answer=answer))
    async with ModelWorker(config(a_model(), a_model("classifier"))) as worker:
        for place in (0, 1):
            await worker.classifier(place).classify(ALERT)
    assert [(ask.labels, ask.annotations) for ask in asked] == [({}, {}), (ALERT.labels, ALERT.annotations)]


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
