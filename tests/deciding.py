"""Builders for the room of decisions: alerts, verdicts, a store that is shared, one proxy's rooms around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from fakes import verdict
from simulated import NOW, Time

from proxy.alert import Alert, Identity
from proxy.classification.classification import Severity, Source
from proxy.classification.service import Verdict
from proxy.decisions.decider import Decider
from proxy.decisions.decision import Decision, Names, Treatment
from proxy.decisions.keeper import Keeper
from proxy.decisions.living import Living
from proxy.decisions.reach import Reach
from proxy.decisions.store import Beat, DecisionStore, Kept
from proxy.decisions.stores.memory import MemoryStore


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Have `work` done meanwhile."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0)  # it has begun
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], Any]) -> None:
    """Wait until `condition` holds, and fail if that takes long."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def living_by(time: Time, capacity: int = 1000, *, shared: bool = False) -> Living:
    return Living(capacity=capacity, shared=shared, monotonic=lambda: time.monotonic, now=lambda: time.now)


def firing(time: Time, name: str = "A", *, begun: datetime = NOW) -> Alert:
    """An alert as Prometheus resends it: its end is always four minutes away."""
    return Alert({"alertname": name}, starts_at=begun, ends_at=time.now + timedelta(minutes=4))


def resolved(alert: Alert, time: Time) -> Alert:
    return replace(alert, ends_at=time.now)


def added(severity: str, category: str = "performance") -> dict[str, str]:
    return {"ai_severity": severity, "ai_category": category}


def labelled(alert: Alert, severity: str = "critical", category: str = "performance") -> Decision:
    return Decision(alert.identity, added(severity, category), {"ai_source": "llm"})


def bare(alert: Alert) -> Decision:
    return Decision(alert.identity)


def held(decision: Decision, *, life: int = 7, left: float = 3600, **more: float | None) -> Kept:
    """A decision as a store holds it."""
    return Kept(decision, life, left, **more)  # type: ignore[arg-type]


def take_up(living: Living, decision: Decision, alert: Alert, **options: bool) -> Decision:
    """Add a decision as the decider does."""
    return living.add(living.candidate(decision, alert), alert, **options)


def tell_store(living: Living) -> list[Kept]:
    """Have the store told all there is to tell; return that."""
    told = living.take_unkept(1000)
    for kept in told:
        living.kept(kept, kept)
    return told


def lose_claim(living: Living, winner: Kept) -> None:
    """Have the store say that another proxy's claim came before ours."""
    entry = living._entries.get(winner.decision.identity)
    living.hand_over(living._kept(entry) if entry else winner, winner)


def sweep(living: Living) -> None:
    for _ in living.sweep(256):
        pass


class SharedStore(MemoryStore):
    """One store of several proxies; raises `fails` while that is set, and keeps what it was asked."""

    kind = "redis"
    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.fails: Exception | None = None
        self.asked: list[str] = []
        self.peers: dict[str, str] = {}

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Kept]:
        self._asked("get")
        return await super().get(identities)

    async def claim(self, new: Sequence[Kept], *, patient: bool = False) -> Mapping[Identity, Kept]:
        self._asked("claim")
        return await super().claim(new)

    async def forget(self, identities: Collection[Identity]) -> None:
        self._asked("forget")
        await super().forget(identities)

    async def beat(self, name: str, me: str) -> Beat:
        self._asked("beat")
        self.peers[name] = me
        return replace(await super().beat(name, me), peers=dict(self.peers))

    async def write_state(self, state: str) -> None:
        self._asked("write_state")
        await super().write_state(state)

    def _asked(self, question: str) -> None:
        self.asked.append(question)
        if self.fails is not None:
            raise self.fails

    def lose_everything(self) -> None:
        """As a Redis that is started anew without its data."""
        emptied = MemoryStore()
        self._kept, self._generation, self._state = emptied._kept, emptied._generation, emptied._state


class Verdicts:
    """Says `now` of every alert, and that `later` may follow; the rules say warning."""

    def __init__(self, now=None, later=None) -> None:  # type: ignore[no-untyped-def]
        self.now, self.later = now, later
        self.asked: list[Alert] = []
        self.waits: list[float] = []

    async def classify(self, alerts: Sequence[Alert], wait: float) -> list[Verdict]:
        self.asked += alerts
        self.waits.append(wait)
        return [Verdict(self.now, self.later) for _ in alerts]

    def by_rules(self, alerts: Sequence[Alert]) -> list[Verdict]:
        return [Verdict(verdict(Severity.WARNING, summary="The rules say so.", source=Source.RULES)) for _ in alerts]


class Rooms:
    """One proxy's rooms around a store. Nothing in them runs by itself."""

    def __init__(
        self,
        store: DecisionStore | None = None,
        verdicts: Verdicts | None = None,
        time: Time | None = None,
        *,
        by_rules: Callable[[], str] = lambda: "",
        capacity: int = 1000,
    ) -> None:
        self.time = time or Time()
        self.store = store or MemoryStore()
        self.verdicts = verdicts or Verdicts(verdict())
        self.errors = 0
        self.handovers: list[int] = []
        self.texts: list[Identity] = []
        self.living = living_by(self.time, capacity, shared=self.store.shared)
        self.reach = Reach(shared=self.store.shared, on_error=self._error, monotonic=lambda: self.time.monotonic)
        self.keeper = Keeper(
            self.living,
            self.store,
            self.reach,
            on_handover=self.handovers.append,
            monotonic=lambda: self.time.monotonic,
        )
        self.decider = Decider(
            living=self.living,
            store=self.store,
            reach=self.reach,
            keeper=self.keeper,
            verdicts=self.verdicts,
            names=Names(),
            on_fault=pytest.fail,
            by_rules=by_rules,
            on_text=self.texts.append,
            monotonic=lambda: self.time.monotonic,
        )

    def _error(self) -> None:
        self.errors += 1

    async def decide(
        self, alert: Alert, treatment: Treatment = Treatment.LABEL, *, wait: float = 1.0, recovered: bool = True
    ) -> Decision:
        """Return what is decided about a new alert."""
        return (await self.decider.decide([(alert, treatment)], wait, recovered=recovered))[alert.identity]

    async def keep(self) -> None:
        """Tell the store what there is to tell, as the keeper does in a moment."""
        await self.keeper.load()
        await self.keeper.finish(5)
