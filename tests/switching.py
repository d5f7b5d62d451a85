"""A switch with the clock, the store and the recovery in the test's hands."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from simulated import Time

from proxy.decisions.canary import Canary
from proxy.decisions.decision import Names
from proxy.decisions.rollout import Rollout
from proxy.decisions.state import Choice, State
from proxy.decisions.store import DecisionStore
from proxy.decisions.stores.memory import MemoryStore
from proxy.decisions.switch import Memory, Switch
from proxy.policy import Mode

PLAIN, ENRICHED, TEXT = Mode.TRANSPARENT, Mode.ENRICHED, Mode.TRANSPARENT_WITH_RECOMMENDATIONS


class Recovery:
    """Counts how often it was asked; waits while `answered` is not set."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = asyncio.Event()
        self.answered.set()

    async def again(self) -> None:
        self.asked += 1
        await self.answered.wait()


class Switched:
    """One proxy's switch; several on one store and one clock are several proxies."""

    def __init__(
        self,
        mode: Mode,
        store: DecisionStore | None = None,
        time: Time | None = None,
        *,
        canary: Canary | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.time = time or Time()
        self.store = store or MemoryStore()
        self.recovery = Recovery()
        self.refused = ""
        self.others_label = False
        self.rollout = Rollout(mode, names=Names(), canary=canary)
        self.switch = Switch(
            self.rollout,
            self.recovery,  # type: ignore[arg-type]
            self.store,
            (mode, canary or Canary()),
            refused=lambda force: "" if force else self.refused,
            memory=memory,
            others_label=lambda: self.others_label,
            now=lambda: self.time.now,
        )

    @property
    def mode(self) -> Mode:
        return self.rollout.mode

    @property
    def since(self) -> datetime | None:
        return self.rollout.labelling_since

    async def written(self) -> State | None:
        """What the store holds."""
        text = (await self.store.beat("reader", "")).state
        return State.read(text) if text is not None else None

    async def start(self) -> Switched:
        await self.switch.start((await self.store.beat("starts", "")).state)
        return self

    async def hears(self) -> None:
        """As with the next beat."""
        await self.switch.heard((await self.store.beat("hears", "")).state)


def choice(mode: Mode, at: datetime, **more: Any) -> Choice:
    return Choice(mode, at, "me", "10.0.0.1", **more)
