"""What the worker reserves for a call, and what becomes of it, however the call ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from spending import MAX_TOKENS, Clock, MemoryStore, a_budget
from workers import ALERT, FakeProcess, a_model, children, config

from proxy.alert import Alert
from proxy.classification.batches import batch
from proxy.classification.pacing import Amounts
from proxy.classification.prompts import Prompts
from proxy.classification.spending import Budget
from proxy.classification.usage import Usage
from proxy.classification.worker import client
from proxy.classification.worker.client import ModelWorker
from proxy.classification.worker.configuration import WorkerState
from proxy.classification.worker.protocol import Answered, AnsweredAll, Ask, Cancel, Failed, Labelled, Message, Ready
from proxy.errors import ClassifierError, ClassifierOverBudget, ClassifierRejected, ClassifierUnavailable

MEMBERS = {"severity": "info", "category": "storage", "confidence": "high", "summary": "x", "recommendations": []}
USAGE = Usage(1, 480, 90)
SIZE = sum(len(message["content"].encode()) for message in Prompts().render(ALERT).messages)
ESTIMATE = -(-SIZE // 3) + MAX_TOKENS


@pytest.fixture
def budget() -> Budget:
    return a_budget(Amounts(tokens=1_000_000), Clock(), prices=[None, None])


class Child(FakeProcess):
    """Answers a call with what the test says, and hears what it is told."""

    def __init__(self, answer: Callable[[Ask], Sequence[Message]] = lambda _: []) -> None:
        super().__init__(Ready("1", ["", ""]), stays=True, answer=answer)
        self.heard: list[Message] = []
        self.told = asyncio.Event()

    def send(self, message: Message) -> None:
        super().send(message)
        self.heard.append(message)
        if isinstance(message, Ask | Cancel):
            self.told.set()

    def say(self, message: Message) -> None:
        self._said.put_nowait(message)


@asynccontextmanager
async def asking(monkeypatch, budget: Budget, child: Child):
    """A worker that is ready, and asks through `child`."""
    children(monkeypatch, lambda: child)
    ready = asyncio.Event()
    worker = ModelWorker(
        config(a_model(), a_model("ollama")),
        budget=budget,
        on_state=lambda state: ready.set() if state is WorkerState.READY else None,
    )
    async with worker:
        await ready.wait()
        yield worker


@pytest.mark.parametrize(
    ("said", "spent"),
    [
        pytest.param(lambda ask: [Answered(ask.call, MEMBERS, USAGE)], 570, id="an answer"),
        pytest.param(lambda ask: [Answered(ask.call, MEMBERS, Usage(1))], ESTIMATE, id="an answer that is not counted"),
        pytest.param(lambda ask: [Answered(ask.call, {"severity": "x"}, USAGE)], 570, id="an answer that is nonsense"),
        pytest.param(lambda ask: [Failed(ask.call, "timeout", "", USAGE)], 570, id="a failure that is counted"),
        pytest.param(lambda ask: [Failed(ask.call, "timeout", "", Usage(1))], ESTIMATE, id="a failure that is not"),
        pytest.param(lambda ask: [Failed(ask.call, "rejected", "", Usage(1))], 0, id="a refusal"),
        pytest.param(
            lambda ask: [Labelled(ask.call, MEMBERS), Failed(ask.call, "unavailable", "", Usage(1))],
            ESTIMATE,
            id="labels, and an end that is missing",
        ),
        pytest.param(lambda ask: [Cancel(1)], ESTIMATE, id="nonsense, and the child is replaced"),
    ],
)
async def test_a_call_is_settled(monkeypatch, budget, said, spent):
    async with asking(monkeypatch, budget, Child(said)) as worker:
        with suppress(ClassifierError):
            await worker.classifier(0).classify(ALERT)
        assert budget.spent().tokens == spent


async def test_a_prompt_is_measured_in_bytes_for_a_letter_of_another_script_is_often_a_token(monkeypatch, budget):
    alert = Alert({"alertname": "DiskFull", "site": "東京" * 100})
    size = sum(len(message["content"].encode()) for message in Prompts().render(alert).messages)
    async with asking(monkeypatch, budget, Child(lambda ask: [Answered(ask.call, MEMBERS, Usage(1))])) as worker:
        await worker.classifier(0).classify(alert)
        assert budget.spent().tokens == -(-size // 3) + MAX_TOKENS


async def test_while_it_runs_the_estimate_is_reserved(monkeypatch, budget):
    async with asking(monkeypatch, budget, child := Child()) as worker:
        call = asyncio.create_task(worker.classifier(0).classify(ALERT))
        await child.told.wait()
        assert budget.spent().tokens == ESTIMATE
        child.say(Answered(1, MEMBERS, USAGE))
        await call
        assert budget.spent().tokens == 570


@pytest.mark.parametrize(("usage", "spent"), [(USAGE, 570), (Usage(1), ESTIMATE)], ids=["counted", "not counted"])
async def test_a_call_that_is_given_up_is_settled_when_the_child_says_so(monkeypatch, budget, usage, spent):
    async with asking(monkeypatch, budget, child := Child()) as worker:
        call = asyncio.create_task(worker.classifier(0).classify(ALERT))
        await child.told.wait()
        child.told.clear()
        call.cancel()
        await child.told.wait()
        assert budget.spent().tokens == ESTIMATE
        child.say(Failed(1, "cancelled", "", usage))
        while not child._said.empty():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert budget.spent().tokens == spent
    assert call.cancelled()


async def test_a_call_that_is_given_up_and_then_lost_counts_as_estimated(monkeypatch, budget):
    async with asking(monkeypatch, budget, child := Child()) as worker:
        call = asyncio.create_task(worker.classifier(0).classify(ALERT))
        await child.told.wait()
        call.cancel()
        await asyncio.wait([call])
        child.say(None)
    assert (budget.spent().tokens, budget._asked) == (ESTIMATE, Amounts())


async def test_a_child_that_hangs_costs_the_estimate(monkeypatch, budget):
    monkeypatch.setattr(client, "_GRACE", -60)
    async with asking(monkeypatch, budget, Child()) as worker:
        with pytest.raises(ClassifierError, match="hangs"):
            await worker.classifier(0).classify(ALERT)
        assert (budget.spent().tokens, budget._asked) == (ESTIMATE, Amounts())


async def test_a_prompt_that_is_too_long_to_be_sent_costs_nothing(monkeypatch, budget):
    class Refuses(Child):
        def send(self, message: Message) -> None:
            if isinstance(message, Ask):
                raise client.ProtocolError("a frame of 9 bytes")
            super().send(message)

    async with asking(monkeypatch, budget, Refuses()) as worker:
        with pytest.raises(ClassifierRejected, match="too long"):
            await worker.classifier(0).classify(ALERT)
    assert (budget.spent(), budget._asked) == (Amounts(), Amounts())


async def test_what_is_over_budget_is_not_sent(monkeypatch):
    budget = a_budget(Amounts(tokens=1000), Clock(), prices=[None, None])
    async with asking(monkeypatch, budget, child := Child()) as worker:
        with pytest.raises(ClassifierOverBudget):
            await worker.classifier(0).classify(ALERT)
    assert not any(isinstance(message, Ask) for message in child.heard)


async def test_a_child_that_is_lost_while_the_store_is_asked_gets_no_call(monkeypatch):
    class Slow(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.begun, self.go_on = asyncio.Event(), asyncio.Event()

        async def exchange(self, *asked):
            self.begun.set()
            await self.go_on.wait()
            return await super().exchange(*asked)

    store = Slow()
    budget = a_budget(Amounts(tokens=1_000_000), Clock(), store, prices=[None, None])
    async with asking(monkeypatch, budget, child := Child()) as worker:
        call = asyncio.create_task(worker.classifier(0).classify(ALERT))
        await store.begun.wait()
        child.say(None)
        while worker.state is WorkerState.READY:
            await asyncio.sleep(0)
        store.go_on.set()
        with pytest.raises(ClassifierUnavailable, match="before the call"):
            await call
    assert (budget.spent(), budget._asked) == (Amounts(), Amounts())
    assert not any(isinstance(message, Ask) for message in child.heard)


async def test_several_that_there_is_not_enough_for_leave_each_of_them_its_own_call(monkeypatch):
    budget = a_budget(Amounts(tokens=20_000), Clock(), prices=[None, None])  # a fifth of it is there
    alerts = [Alert({"alertname": f"A{n}"}) for n in range(20)]
    answer = Answered(1, MEMBERS, USAGE)
    async with asking(monkeypatch, budget, Child(lambda ask: [replace(answer, call=ask.call)])) as worker:
        with pytest.raises(ClassifierOverBudget):
            await worker.ask_together(0, alerts)
        assert budget.affords(0)
        assert (await worker.ask(0, alerts[0])).summary == "x"


async def test_a_call_about_several_reserves_an_answer_for_each(monkeypatch, budget):
    alerts = [Alert({"alertname": name}) for name in "ABC"]
    size = sum(len(one["content"].encode()) for one in batch([Prompts().render(alert) for alert in alerts]).messages)
    held: list[int | None] = []

    def answer(ask: Ask) -> Sequence[Message]:
        held.append(budget.spent().tokens)
        return [AnsweredAll(ask.call, [MEMBERS, None, MEMBERS], Usage(1))]

    async with asking(monkeypatch, budget, Child(answer)) as worker:
        found = await worker.ask_together(0, alerts)
    assert [verdict is not None for verdict in found] == [True, False, True]
    assert held == [-(-size // 3) + 3 * MAX_TOKENS]
    assert budget.spent().tokens == held[0], "nothing was counted, so the estimate is"
