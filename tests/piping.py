"""The pipeline on real rooms, without a listener and without anything that runs by itself but the recovery."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fakes import FakeModel, Observer, body

from proxy.classification.allowance import WaitingAllowance
from proxy.classification.cache import ClassCache
from proxy.classification.rules import Rules
from proxy.classification.service import ClassificationService
from proxy.decisions.canary import Canary
from proxy.decisions.decider import Decider
from proxy.decisions.decision import Names
from proxy.decisions.keeper import Keeper
from proxy.decisions.living import Living
from proxy.decisions.reach import Reach
from proxy.decisions.recovery import Recovery
from proxy.decisions.rollout import Rollout
from proxy.decisions.stores.memory import MemoryStore
from proxy.decisions.watch import Cluster, HeldAlert, Watch
from proxy.gateway.pipeline import Pipeline, Prepared
from proxy.policy import Mode


class Held:
    """An Alertmanager that says what it holds once `ready` is set."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.alerts_held: list[HeldAlert] = []

    async def alerts(self) -> list[HeldAlert]:
        await self.ready.wait()
        return self.alerts_held

    async def cluster(self) -> Cluster:
        return Cluster(0, 0.0)


class Piped:
    """A pipeline, and the rooms behind it."""

    def __init__(
        self,
        model: FakeModel | None = None,
        mode: Mode = Mode.ENRICHED,
        *,
        observer: Observer | None = None,
        held: Held | None = None,
        budget: float = 4.0,
        others_label: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> None:
        self.observer = observer or Observer()
        self.held = held or Held()
        self.living, names, allowance = Living(), Names(), WaitingAllowance(2 * budget)
        self.rollout = Rollout(mode, names=names)
        self.rollout.apply(mode, Canary(), datetime.now(UTC))
        self._service = ClassificationService(
            rules=Rules.shipped(),
            model=model,
            salt="",
            cache=ClassCache(3600),
            allowance=allowance,
            observer=self.observer,
        )
        store = MemoryStore()
        reach = Reach(shared=False, on_error=lambda: pytest.fail("store"))
        keeper = Keeper(self.living, store, reach, on_handover=lambda n: pytest.fail(f"{n} handed over"))
        self.decider = Decider(
            living=self.living,
            store=store,
            reach=reach,
            keeper=keeper,
            verdicts=self._service,
            names=names,
            on_fault=self.observer.fault,
        )
        self.recovery = Recovery(
            self.held,
            self.decider,
            keeper,
            names,
            allowance,
            Watch(self.held, names, replicas=None),
            on_outcome=lambda _: None,
        )
        self._task = asyncio.create_task(self.recovery.run())
        self.pipeline = Pipeline(
            rollout=self.rollout,
            decider=self.decider,
            living=self.living,
            recovery=self.recovery,
            budget=budget,
            observer=self.observer,
            others_label=others_label,
            **options,
        )

    async def close(self) -> None:
        await self._service.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def run(self, *alerts: Any) -> Prepared:
        return await self.pipeline.run(body(*alerts))

    async def sent(self, *alerts: Any) -> list[dict[str, Any]]:
        """What Alertmanager would get; it takes nothing."""
        found: list[dict[str, Any]] = json.loads((await self.run(*alerts)).body)
        return found
